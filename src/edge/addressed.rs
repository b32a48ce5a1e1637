//! A request that is for the node and not for the cache: whom it addresses, and how its answer is counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, Uri, header};

use super::admit;
use super::answer::Answer;
use super::body::Body;
use super::config::Site;
use super::fields::Fields;
use super::metrics::Outcome;
use super::record::{Asked, Record};
use super::{CACHE_STATUS, Edge, client, respond};
use crate::net::{ConnInfo, RequestBody};
use crate::rules::cache_status::CacheStatus;
use crate::rules::key::{self, Scheme};

/// Whom a well-formed request addresses, and who asks.
#[derive(Clone, Debug)]
pub struct Addressed {
    /// The site of its Host, if there is one.
    pub site: Option<Arc<Site>>,
    /// Its Host, normalised.
    pub host: Box<str>,
    /// The verified address of the client; `None` where a proxy did not say whom it speaks for.
    pub client: Option<IpAddr>,
    address: IpAddr,
    is_https: bool,
}

/// Methods of purge dialects: never forwarded, whatever a site lets in.
const PURGE_METHODS: [&str; 6] = ["PURGE", "BAN", "URIBAN", "PURGEKEYS", "PURGETAGS", "REFRESH"];
/// Below it nginx purges.
const PURGE_LOCATION: &str = "/purge/";

/// Whether a request asks for a purge by its method.
#[inline]
pub fn is_purge_method(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD) && PURGE_METHODS.contains(&method.as_str())
}

/// Whether a GET or HEAD is a purge where a site takes purges from addresses.
#[inline]
pub fn is_purge_location(parts: (&Method, &Uri)) -> bool {
    let (method, uri) = parts;
    matches!(*method, Method::GET | Method::HEAD) && uri.path().starts_with(PURGE_LOCATION)
}

impl Edge {
    /// What a request addresses; `None`: it is to be refused as any other would be.
    pub fn addressed(&self, parts: &Parts, body: &RequestBody, conn: &ConnInfo) -> Option<Addressed> {
        let config = self.config();
        let client = client::verify(conn, &parts.headers, &config.trusted_proxies);
        let scheme = if client.is_https { Scheme::Https } else { Scheme::Http };
        let (fields, host, hosts) = Fields::of(&parts.headers);
        admit::check_message(parts, fields, body, config).ok()?;
        let host = admit::authority(parts, host).ok().filter(|_| hosts <= 1)?;
        let host = key::normalize_host(std::str::from_utf8(host).ok()?, scheme).ok()?;
        admit::check_absolute_form(parts, &host, scheme).ok()?;
        Some(Addressed {
            site: self.sites.find(&host).cloned(),
            host: host.into(),
            client: (!conn.is_anonymous).then_some(client.address),
            address: client.address,
            is_https: client.is_https,
        })
    }

    /// An answer that another part of the node gives, counted and logged as all are.
    pub fn answer_of(
        self: &Arc<Self>,
        (parts, addressed): (Parts, Addressed),
        conn: &Arc<ConnInfo>,
        started: Instant,
        answering: impl Future<Output = Response<Bytes>> + Send + 'static,
    ) -> Answer {
        let (edge, conn) = (self.clone(), conn.clone());
        Answer::later(async move {
            let mut response = answering.await.map(Body::bytes);
            let length = http_body::Body::size_hint(response.body()).exact().unwrap_or(0);
            let status = CacheStatus { detail: Some("purge"), ..CacheStatus::default() };
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LENGTH, length.into());
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(&CACHE_STATUS, respond::cache_status(&edge.config.node, &status));
            let is_refused = !response.status().is_success();
            let outcome = if is_refused { Outcome::Refused } else { Outcome::Pass };
            let Addressed { site, address: client, is_https, .. } = addressed;
            let asked = Asked { parts: &parts, conn: &conn, started, client, is_https, site: site.as_ref() };
            Record::open(&edge, &asked, outcome, response)
        })
    }
}
