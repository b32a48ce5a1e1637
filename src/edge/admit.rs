//! The first step: refuse what is malformed or hostile, find the site, the rule and the cache key.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body::Body as _;

use super::Edge;
use super::addressed::{is_purge_location, is_purge_method};
use super::claims;
use super::client::{self, Client};
use super::config::{Config, Site, Treatment};
use super::fields::Fields;
use super::refusal::{Reason, Refusal};
use super::route::{Route, Url};
use crate::net::{ConnInfo, RequestBody};
use crate::rules::hop;
use crate::rules::invalidate::Target;
use crate::rules::key::{self, BadTarget, CacheKey, Scheme};

/// A request that may be answered.
#[derive(Debug)]
pub(super) struct Admitted {
    route: Arc<Route>,
    pub(super) client: Client,
    pub(super) fields: Fields,
    /// The protocol that the request came by.
    pub(super) version: Version,
    /// The node itself asks: no client is to be limited for it.
    pub(super) is_own: bool,
}

impl Deref for Admitted {
    type Target = Route;

    fn deref(&self) -> &Route {
        &self.route
    }
}

impl Admitted {
    /// A request of the node's own, for what a URL was found to be.
    pub(super) fn own(route: Route, client: Client, headers: &HeaderMap) -> Self {
        Self {
            route: Arc::new(route),
            client,
            fields: Fields::of(headers).0,
            version: Version::HTTP_11,
            is_own: true,
        }
    }

    /// Takes out of a request what does not reach the origin because of who sends it, and how: a response is stored for
    /// requests like the one that the origin has seen.
    #[inline]
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        if self.fields.has_nominations {
            hop::strip_nominated(headers);
        }
        if self.fields.has_claims {
            claims::strip(headers, self.client.is_behind_proxy);
        }
    }

    /// The normalised host.
    pub(super) fn host(&self) -> &str {
        &self.key.canonical()[self.host_at..self.path_at]
    }

    /// The normalised path and the filtered query: what the origin is asked for.
    pub(super) fn target(&self) -> &str {
        &self.key.canonical()[self.path_at..]
    }

    /// The target in its parts.
    pub(super) fn as_target(&self) -> Target<'_> {
        let (path, query) = match self.target().split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target(), None),
        };
        Target { scheme: self.scheme, host: self.host(), path, query }
    }

    /// The key under which a GET of a target of this site and host is stored, whatever rule this request fell under.
    pub(super) fn key_of(&self, path: &str, query: Option<&str>) -> CacheKey {
        let query = self.site.treatment(&Method::GET, path).query_of(query);
        CacheKey::new(self.scheme, self.host(), path, query.as_deref())
    }
}

/// Why a request goes no further, and the site that it was found to be for, if any.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) site: Option<Arc<Site>>,
    pub(super) client: IpAddr,
    pub(super) is_https: bool,
}

impl Refused {
    fn new(refusal: Refusal, site: Option<&Arc<Site>>, client: &Client) -> Box<Self> {
        let (site, is_https) = (site.cloned(), client.is_https);
        Box::new(Self { refusal, site, client: client.address, is_https })
    }
}

impl Edge {
    /// Admits a request, or says why not.
    pub(super) fn admit(
        &self,
        parts: &Parts,
        body: &RequestBody,
        conn: &ConnInfo,
    ) -> Result<Admitted, Box<Refused>> {
        let client = client::verify(conn, &parts.headers, &self.config.trusted_proxies);
        let scheme = if client.is_https { Scheme::Https } else { Scheme::Http };
        let refuse = |refusal: Refusal| Refused::new(refusal, None, &client);
        let (fields, host, hosts) = Fields::of(&parts.headers);
        check_message(parts, fields, body, &self.config).map_err(refuse)?;
        if hosts > 1 {
            return Err(refuse(bad_host("there is more than one Host")));
        }
        let host = authority(parts, host).map_err(refuse)?;
        let find = || self.find_route(parts, host, &client, scheme);
        // An absolute form is checked against Host each time.
        let is_plain = parts.uri.authority().is_none() || hosts == 0;
        let route = match parts.uri.path_and_query() {
            Some(target) if is_plain && parts.method == Method::GET => {
                self.routes.get(Url { scheme, host, target: target.as_str() }, find)
            }
            _ => find().map(Arc::new),
        }?;
        self.check_request(parts, fields, &route, &client)
            .map_err(|refusal| Refused::new(refusal, Some(&route.site), &client))?;
        Ok(Admitted { route, client, fields, version: parts.version, is_own: false })
    }

    /// What the URL, the method and the configuration decide.
    fn find_route(
        &self,
        parts: &Parts,
        host: &[u8],
        client: &Client,
        scheme: Scheme,
    ) -> Result<Route, Box<Refused>> {
        let host = std::str::from_utf8(host).ok().filter(|host| host.is_ascii());
        let refuse = |refusal: Refusal| Refused::new(refusal, None, client);
        let host = host.ok_or_else(|| refuse(bad_host("Host is not ASCII")))?;
        let host = key::normalize_host(host, scheme).map_err(|e| refuse(bad_host(&e.to_string())))?;
        check_absolute_form(parts, &host, scheme).map_err(refuse)?;
        let Some(site) = self.sites.find(&host) else {
            let detail = "this node serves no such host";
            let refusal = Refusal::new(Reason::UnknownHost, StatusCode::MISDIRECTED_REQUEST, detail);
            return Err(refuse(refusal));
        };
        let refuse = |refusal: Refusal| Refused::new(refusal, Some(site), client);
        // `OPTIONS *` is about the node; the site's checks hold for it all the same.
        let path = if parts.uri.path() == "*" { "/" } else { parts.uri.path() };
        let path = key::normalize_path(path)
            .map_err(|e| refuse(Refusal::new(Reason::BadTarget, StatusCode::BAD_REQUEST, e.to_string())))?;
        let treatment = site.treatment(&parts.method, &path);
        check_site(parts, site, treatment, client, &host).map_err(refuse)?;
        let query = self.check_signature(parts, treatment, &host, &path).map_err(refuse)?;
        let query = query.as_deref().and_then(|query| key::filter_query(query, &treatment.query));
        let key = CacheKey::new(scheme, &host, &path, query.as_deref());
        Ok(Route::new(site.clone(), treatment.clone(), key, scheme, &host))
    }

    /// What has to be asked of each request, whatever its URL comes to.
    fn check_request(
        &self,
        parts: &Parts,
        fields: Fields,
        route: &Route,
        client: &Client,
    ) -> Result<(), Refusal> {
        check_access(&route.treatment, client)?;
        if route.treatment.access.signed.is_some() {
            // A route that is remembered was good when it was found.
            self.check_signature(parts, &route.treatment, route.host(), route.path())?;
        }
        if fields.has_cdn_loop && self.has_been_here(&parts.headers) {
            let detail = "the request has passed this node before: an origin points back at it";
            return Err(Refusal::new(Reason::Loop, StatusCode::LOOP_DETECTED, detail));
        }
        Ok(())
    }

    /// The query without its signature, where URLs have to be signed.
    fn check_signature<'p>(
        &self,
        parts: &'p Parts,
        treatment: &Treatment,
        host: &str,
        path: &str,
    ) -> Result<Option<Cow<'p, str>>, Refusal> {
        let query = parts.uri.query();
        let Some(signed) = &treatment.access.signed else { return Ok(query.map(Cow::Borrowed)) };
        let verified = signed.split(query).and_then(|(value, rest)| {
            let now_secs = self.clock.now().as_secs_floor();
            signed.verify(value, host, path, rest.as_deref(), now_secs).map(|()| rest)
        });
        verified.map_err(|bad| Refusal::new(Reason::Signature, StatusCode::FORBIDDEN, bad.to_string()))
    }

    /// RFC 8586: whether CDN-Loop names this node.
    fn has_been_here(&self, headers: &HeaderMap) -> bool {
        let lines = headers.get_all(&super::CDN_LOOP).iter().filter_map(|value| value.to_str().ok());
        let mut members = lines.flat_map(|line| line.split(','));
        members.any(|member| member.split(';').next().unwrap_or_default().trim() == self.config.loop_id)
    }
}

fn check_site(
    parts: &Parts,
    site: &Site,
    treatment: &Treatment,
    client: &Client,
    host: &str,
) -> Result<(), Refusal> {
    let is_location = !site.purge.allow.is_empty() && is_purge_location((&parts.method, &parts.uri));
    if is_location || is_purge_method(&parts.method) {
        let detail = "this address has no right to purge";
        return Err(Refusal::new(Reason::PurgeDenied, StatusCode::FORBIDDEN, detail));
    }
    if let Some(methods) = &site.methods
        && !methods.contains(&parts.method)
    {
        let allowed = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        return Err(not_allowed(&allowed));
    }
    check_access(treatment, client)?;
    if site.redirect_to_https && !client.is_https && parts.uri.path() != "*" {
        return Err(redirect_to_https(parts, host));
    }
    Ok(())
}

fn check_access(treatment: &Treatment, client: &Client) -> Result<(), Refusal> {
    if treatment.access.admits(client.address) {
        return Ok(());
    }
    let detail = "this address may not use this site";
    Err(Refusal::new(Reason::AccessDenied, StatusCode::FORBIDDEN, detail))
}

/// What hyper lets through and a cache must not.
pub(super) fn check_message(
    parts: &Parts,
    fields: Fields,
    body: &RequestBody,
    limits: &Config,
) -> Result<(), Refusal> {
    let uri_bytes = limits.uri_bytes;
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS").closing());
    }
    // On HTTP/1.1 hyper counts them while it parses.
    if parts.headers.len() > limits.header_count {
        let detail = format!("there are more than {} fields", limits.header_count);
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Refusal::new(Reason::TooManyFields, status, detail));
    }
    let target_bytes = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target_bytes > uri_bytes {
        let detail = format!("the target is longer than {uri_bytes} bytes");
        return Err(Refusal::new(Reason::TargetTooLong, StatusCode::URI_TOO_LONG, detail));
    }
    let is_of_the_node = parts.method == Method::OPTIONS && parts.uri.path() == "*";
    if !parts.uri.path().starts_with('/') && !is_of_the_node {
        let detail = "the target must be a path or an absolute URL";
        return Err(Refusal::new(Reason::BadTarget, StatusCode::BAD_REQUEST, detail).closing());
    }
    if fields.has_transfer_encoding {
        let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
        let is_chunked =
            codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if codings.next().is_some() || !is_chunked {
            let detail = "the only transfer coding understood is one `chunked`";
            return Err(Refusal::new(Reason::TransferCoding, StatusCode::BAD_REQUEST, detail).closing());
        }
    }
    // A body on GET has no meaning (RFC 9110 §9.3.1) and every smuggling trick needs one.
    if matches!(parts.method, Method::GET | Method::HEAD) && !body.is_end_stream() {
        let detail = "a GET or HEAD request must not have a body";
        return Err(Refusal::new(Reason::UnexpectedBody, StatusCode::BAD_REQUEST, detail).closing());
    }
    if body.is_too_large() {
        let detail = "the request's body is larger than the limit";
        return Err(Refusal::new(Reason::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE, detail).closing());
    }
    Ok(())
}

/// The one authority that a request names (RFC 9112 §3.2, RFC 9113 §8.3.1).
pub(super) fn authority<'a>(parts: &'a Parts, host: Option<&'a HeaderValue>) -> Result<&'a [u8], Refusal> {
    match (parts.uri.authority(), host) {
        (Some(authority), None) if parts.version >= Version::HTTP_2 => Ok(authority.as_str().as_bytes()),
        (_, Some(host)) => Ok(host.as_bytes()),
        (_, None) => Err(bad_host("there is no Host")),
    }
}

/// An absolute-form target, or `:authority`, must agree with Host and with the connection.
pub(super) fn check_absolute_form(parts: &Parts, host: &str, scheme: Scheme) -> Result<(), Refusal> {
    let mismatch =
        |detail: &str| Err(Refusal::new(Reason::HostMismatch, StatusCode::BAD_REQUEST, detail).closing());
    if let Some(authority) = parts.uri.authority() {
        match key::normalize_host(authority.as_str(), scheme) {
            Ok(of_target) if of_target == host => {}
            Err(error @ BadTarget::UserInfo) => return Err(bad_authority(error)),
            _ => return mismatch("the target names another host than Host does"),
        }
    }
    if parts.version < Version::HTTP_2
        && let Some(of_target) = parts.uri.scheme_str()
        && !of_target.eq_ignore_ascii_case(scheme.as_str())
    {
        return mismatch("the target names another scheme than the connection's");
    }
    Ok(())
}

fn bad_authority(error: BadTarget) -> Refusal {
    match error {
        BadTarget::UserInfo => {
            let detail = "user information in a URL is not supported";
            Refusal::new(Reason::Userinfo, StatusCode::BAD_REQUEST, detail).closing()
        }
        error => bad_host(&error.to_string()),
    }
}

fn bad_host(detail: &str) -> Refusal {
    Refusal::new(Reason::BadHost, StatusCode::BAD_REQUEST, detail).closing()
}

fn not_allowed(allowed: &str) -> Refusal {
    let detail = format!("the method is not allowed here; allowed: {allowed}");
    let refusal = Refusal::new(Reason::Method, StatusCode::METHOD_NOT_ALLOWED, detail);
    match HeaderValue::try_from(allowed) {
        Ok(allowed) => refusal.with(header::ALLOW, allowed),
        Err(_) => refusal,
    }
}

/// The same URL on the port of https that need not be named.
pub(super) fn https_location(host: &str, target: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    format!("https://{name}{target}")
}

pub(super) fn served_over_https(location: &str) -> String {
    format!("this site is served over https: {location}")
}

fn redirect_to_https(parts: &Parts, host: &str) -> Refusal {
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let location = https_location(host, target);
    let detail = served_over_https(&location);
    let refusal = Refusal::new(Reason::HttpsRedirect, StatusCode::PERMANENT_REDIRECT, detail);
    match HeaderValue::try_from(location) {
        Ok(location) => refusal.with(header::LOCATION, location),
        Err(_) => refusal,
    }
}
