//! Whether a shared cache may store a response at all (RFC 9111 §3, §3.5), apart from its lifetime.

use http::{HeaderMap, StatusCode, header};

use super::{
    directives::Directives,
    hop, partial,
    policy::{Exchange, SetCookie, SitePolicy},
    vary::{self, Vary},
};

/// Why a response is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// Not GET, nor a POST that is treated as one.
    Method,
    /// Of no use to another request.
    Status,
    /// A partial answer that does not say which part it is.
    Partial,
    /// Response directive (RFC 9111 §5.2.2.5).
    NoStore,
    /// Response directive (RFC 9111 §5.2.2.7).
    Private,
    /// RFC 9111 §3.5.
    Authorization,
    /// The site's `set_cookie` is to pass.
    SetCookie,
    /// `*` among the members of Vary.
    VaryStar,
    /// Varies on a field that the site lets pass.
    Vary,
    /// `no-cache` without a validator: it could never be used.
    NoCache,
    /// Neither fresh nor to be renewed.
    NoFreshness,
    /// POST: Content-Location is not the target.
    ContentLocation,
    /// The client said no-store, and the site honours it.
    RequestNoStore,
    /// Only the base policy objects.
    Policy,
}

impl NotStored {
    /// A stable word for the `detail` of Cache-Status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            NotStored::Method => "method",
            NotStored::Status => "status",
            NotStored::Partial => "partial",
            NotStored::NoStore => "no-store",
            NotStored::Private => "private",
            NotStored::Authorization => "authorization",
            NotStored::SetCookie => "set-cookie",
            NotStored::VaryStar => "vary-star",
            NotStored::Vary => "vary",
            NotStored::NoCache => "no-cache",
            NotStored::NoFreshness => "no-freshness",
            NotStored::ContentLocation => "content-location",
            NotStored::RequestNoStore => "request-no-store",
            NotStored::Policy => "policy",
        }
    }
}

/// Makes a response's fields ready to be stored: without hop-by-hop fields, and without Set-Cookie where the site strips it.
pub fn prepare(headers: &mut HeaderMap, set_cookie: SetCookie) {
    hop::strip_response(headers);
    if set_cookie != SetCookie::Store {
        headers.remove(header::SET_COOKIE);
    }
}

pub(super) fn check(
    exchange: &Exchange<'_>,
    directives: &Directives,
    site: &SitePolicy,
) -> Result<(), NotStored> {
    let headers = exchange.response_headers;
    check_status(exchange, directives)?;
    if directives.no_store && !overrides_no_store(directives) {
        return Err(NotStored::NoStore);
    }
    if directives.private {
        return Err(NotStored::Private);
    }
    if exchange.request_headers.contains_key(header::AUTHORIZATION) && !allows_authorized(directives) {
        return Err(NotStored::Authorization);
    }
    if site.set_cookie == SetCookie::Pass && headers.contains_key(header::SET_COOKIE) {
        return Err(NotStored::SetCookie);
    }
    match vary::parse(headers) {
        Vary::Any => return Err(NotStored::VaryStar),
        Vary::Fields(rule) if rule.names().iter().any(|name| site.vary_pass.contains(name)) => {
            return Err(NotStored::Vary);
        }
        Vary::Fields(_) => {}
    }
    if site.honor_request_cache_control && Directives::parse(exchange.request_headers).no_store {
        return Err(NotStored::RequestNoStore);
    }
    Ok(())
}

/// Any final status may be stored with explicit freshness, except the answers to a request's conditions, ranges and
/// circumstances (which are not in the cache key) and those whose RFC says "MUST NOT be stored" (RFC 6585, RFC 8470).
fn check_status(exchange: &Exchange<'_>, directives: &Directives) -> Result<(), NotStored> {
    match exchange.status.as_u16() {
        // Above 599 is no status at all (RFC 9110 §15).
        ..200 | 600.. | 304 | 407 | 412 | 416 | 417 | 421 | 425 | 426 | 428 | 429 | 431 | 511 => {
            Err(NotStored::Status)
        }
        206 if partial::of_headers(exchange.response_headers).is_none() => Err(NotStored::Partial),
        _ if directives.must_understand && !is_understood(exchange.status) => Err(NotStored::Status),
        _ => Ok(()),
    }
}

/// Statuses whose caching behaviour Larder implements (RFC 9111 §3, must-understand).
fn is_understood(status: StatusCode) -> bool {
    is_heuristically_cacheable(status) || matches!(status.as_u16(), 302 | 303 | 307)
}

/// RFC 9110 §15.1.
pub(super) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// RFC 9111 §5.2.2.3: a cache that understands must-understand and the status ignores no-store. The status was checked.
fn overrides_no_store(directives: &Directives) -> bool {
    directives.must_understand
}

/// RFC 9111 §3.5.
fn allows_authorized(directives: &Directives) -> bool {
    let valid = |delta| matches!(delta, Some(super::directives::Delta::Secs(_)));
    directives.public || directives.must_revalidate || valid(directives.s_maxage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_tokens() {
        for reason in [NotStored::Method, NotStored::VaryStar, NotStored::RequestNoStore, NotStored::Policy] {
            assert!(super::super::structured::is_token(reason.as_str()));
        }
    }

    #[test]
    fn prepared_fields_have_no_cookie_unless_it_is_stored() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SET_COOKIE, http::HeaderValue::from_static("a=b"));
        headers.insert(header::CONNECTION, http::HeaderValue::from_static("x"));
        let mut kept = headers.clone();
        prepare(&mut headers, SetCookie::Strip);
        assert!(headers.is_empty());
        prepare(&mut kept, SetCookie::Store);
        assert_eq!(kept.len(), 1);
    }
}
