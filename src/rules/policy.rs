//! Whether a response is stored, and its freshness: the one decision at fill time (RFC 9111 §3, §4.2).
//!
//! ```text
//! method, status      storable::        what RFC 9111 §3 lets a shared cache keep at all
//! directives          targeted::        which field speaks to this cache
//! lifetime            lifetime::        that field, Expires, heuristic, then the site's wishes
//! second opinion      base::            http-cache-semantics on a normalised copy; it can only shorten
//! windows             this file         stale-while-revalidate, stale-if-error
//! ```

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::{
    age, base, conditional,
    directives::Directives,
    freshness::Freshness,
    invalidate::{self, Target},
    lifetime::{self, Kind, Lifetime},
    storable,
    targeted::{self, Deciding},
    time::Millis,
};

pub use super::storable::NotStored;

/// What becomes of a response that sets cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetCookie {
    /// Never stored; the client gets it as it is.
    Pass,
    /// Stored without the field.
    Strip,
    /// Stored as any other (RFC 9111 §7.3 lets a cache do so).
    Store,
}

/// A site's wishes. They never beat private, no-store, Set-Cookie or Authorization.
#[derive(Clone, Debug, PartialEq)]
pub struct SitePolicy {
    /// What becomes of responses that set cookies.
    pub set_cookie: SetCookie,
    /// When the origin says nothing and no heuristic applies.
    pub default_ttl_ms: i64,
    /// Raises what the origin, a heuristic, `default_ttl` or `negative_ttl` gives; never makes `no-cache` or an error
    /// storable.
    pub min_ttl_ms: i64,
    /// Caps the same, and beats `min_ttl`.
    pub max_ttl_ms: i64,
    /// In place of all that, and of the bounds; for statuses below 400. It gives no permission to store: a 302 without
    /// freshness of its own stays out (RFC 9111 §3).
    pub override_ttl_ms: Option<i64>,
    /// By status, where the response has no freshness information.
    pub negative_ttl_ms: Vec<(u16, i64)>,
    /// Caps the lifetime of a 5xx.
    pub max_error_ttl_ms: i64,
    /// When the response says nothing.
    pub stale_while_revalidate_ms: i64,
    /// When the response says nothing.
    pub stale_if_error_ms: i64,
    /// Whether a client's Cache-Control counts.
    pub honor_request_cache_control: bool,
    /// See [`decide_post`].
    pub cache_post: bool,
    /// A response that varies on one of these is not stored.
    pub vary_pass: Vec<HeaderName>,
    /// See [`super::language`].
    pub accept_language_select: bool,
    /// What this cache is called in Surrogate-Capability; see [`super::targeted`].
    pub surrogate: Arc<str>,
}

impl Default for SitePolicy {
    /// The `edge` profile.
    fn default() -> Self {
        const DAY_MS: i64 = 86_400_000;
        SitePolicy {
            set_cookie: SetCookie::Pass,
            default_ttl_ms: 0,
            min_ttl_ms: 0,
            max_ttl_ms: 365 * DAY_MS,
            override_ttl_ms: None,
            negative_ttl_ms: Vec::new(),
            max_error_ttl_ms: 30_000,
            stale_while_revalidate_ms: 0,
            stale_if_error_ms: DAY_MS,
            honor_request_cache_control: false,
            cache_post: false,
            vary_pass: vec![header::COOKIE, header::USER_AGENT],
            accept_language_select: false,
            surrogate: "larder".into(),
        }
    }
}

/// A request that was forwarded, and the origin's answer to it.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Of the request.
    pub method: &'a Method,
    /// As the client sent them.
    pub request_headers: &'a HeaderMap,
    /// Of the response.
    pub status: StatusCode,
    /// As they came, hop-by-hop fields and all.
    pub response_headers: &'a HeaderMap,
    /// When the request was sent.
    pub request_time: Millis,
    /// When the head of the response arrived.
    pub response_time: Millis,
}

/// The freshness of what may be stored, or why it may not.
///
/// A response that is stale at once is stored when a 304 can renew it or when it asks for stale use itself. A 206 is
/// accepted when it says which range it is; the caller keeps it as a partial object (`partial::stored_range`).
///
/// # Errors
/// The reason, in terms of RFC 9111 §3 or of the site's policy. POST always fails here: see [`decide_post`].
pub fn decide(exchange: &Exchange<'_>, site: &SitePolicy) -> Result<Freshness, NotStored> {
    if exchange.method != Method::GET {
        return Err(NotStored::Method);
    }
    decide_understood(exchange, site)
}

/// The answer to a POST, stored as the representation that a GET would return (RFC 9110 §9.3.3).
///
/// # Errors
/// As [`decide`], and when the site does not cache POST, the answer has no explicit freshness, or it does not name the
/// target itself in Content-Location.
pub fn decide_post(
    exchange: &Exchange<'_>,
    site: &SitePolicy,
    target: &Target<'_>,
) -> Result<Freshness, NotStored> {
    if exchange.method != Method::POST || !site.cache_post {
        return Err(NotStored::Method);
    }
    // No other success encloses a representation of the target: a 201 describes what was made, a 202 what is to be, and a
    // 204 or 205 has nothing to show.
    if !matches!(exchange.status, StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION) {
        return Err(NotStored::Status);
    }
    if !invalidate::content_location_is_target(target, exchange.response_headers) {
        return Err(NotStored::ContentLocation);
    }
    let deciding = targeted::decide(exchange.response_headers, &site.surrogate);
    if lifetime::of_origin(exchange, &deciding).kind != Kind::Explicit {
        return Err(NotStored::NoFreshness);
    }
    decide_understood(exchange, site)
}

fn decide_understood(exchange: &Exchange<'_>, site: &SitePolicy) -> Result<Freshness, NotStored> {
    let deciding = targeted::decide(exchange.response_headers, &site.surrogate);
    storable::check(exchange, &deciding.directives, site)?;
    let mut lifetime = lifetime::of_origin(exchange, &deciding);
    let opinion = base::opinion(exchange, &deciding);
    if !opinion.storable {
        return Err(NotStored::Policy);
    }
    if lifetime.kind == Kind::Explicit {
        lifetime.ms = lifetime.ms.min(opinion.lifetime_ms);
    }
    let lifetime = lifetime::of_site(lifetime, exchange, &deciding, site).ok_or(NotStored::NoFreshness)?;
    let freshness = freshness(exchange, &deciding, lifetime, site);
    let renewable = renewable(exchange);
    if freshness.no_cache && !renewable {
        return Err(NotStored::NoCache);
    }
    if freshness.fresh_until <= exchange.response_time
        && !renewable
        && !asks_for_stale_use(&freshness, &deciding)
        && !is_only_late(&freshness, exchange)
    {
        return Err(NotStored::NoFreshness);
    }
    Ok(freshness)
}

/// A validator on what no 304 speaks of renews nothing.
fn renewable(exchange: &Exchange<'_>) -> bool {
    let headers = exchange.response_headers;
    conditional::can_be_confirmed(exchange.status)
        && (headers.contains_key(header::ETAG) || lifetime::last_modified(exchange).is_some())
}

/// Only windows that the response itself opens are a reason to keep something that is stale at once: the site's default
/// for origin failures would otherwise keep every page that says nothing about caching, personal ones included.
fn asks_for_stale_use(freshness: &Freshness, deciding: &Deciding) -> bool {
    let directives = &deciding.directives;
    let asks = directives.stale_while_revalidate.is_some() || directives.stale_if_error.is_some();
    asks && freshness.swr_until.max(freshness.sie_until) > freshness.response_time
}

/// It was fresh when it was asked for, and its origin took longer than its lifetime: a slow origin is to be spared, and not
/// asked by everybody at once, as it is for what can't be stored.
fn is_only_late(freshness: &Freshness, exchange: &Exchange<'_>) -> bool {
    freshness.fresh_until > exchange.request_time
        && freshness.swr_until.max(freshness.sie_until) > exchange.response_time
}

fn freshness(
    exchange: &Exchange<'_>,
    deciding: &Deciding,
    lifetime: Lifetime,
    site: &SitePolicy,
) -> Freshness {
    let directives = &deciding.directives;
    let response_delay_ms = exchange.response_time.saturating_sub(exchange.request_time).max(0);
    // RFC 9111 §4.2.3, without apparent_age: it is optional, and an origin's wrong clock must not end caching.
    let age_ms = i64::from(age::parse(exchange.response_headers)) * 1000;
    let initial_age_ms = age_ms.saturating_add(response_delay_ms);
    let fresh_until = exchange.response_time.saturating_add(lifetime.ms.saturating_sub(initial_age_ms));
    let windows = Windows::of(exchange.status, directives, lifetime, site);
    Freshness {
        response_time: exchange.response_time,
        initial_age_ms,
        fresh_until,
        swr_until: fresh_until.saturating_add(windows.swr_ms),
        sie_until: fresh_until.saturating_add(windows.sie_ms),
        no_cache: directives.no_cache && lifetime.kind != Kind::Override,
        never_stale: windows.forbidden,
        source: lifetime.source,
        strip_fields: directives.no_cache_fields.clone().into_boxed_slice(),
    }
}

struct Windows {
    forbidden: bool,
    swr_ms: i64,
    sie_ms: i64,
}

impl Windows {
    /// RFC 9111 §4.2.4 and RFC 5861. must-revalidate, proxy-revalidate and no-cache forbid stale use; s-maxage forbids what
    /// the site would add, but not what the same response grants.
    fn of(status: StatusCode, directives: &Directives, lifetime: Lifetime, site: &SitePolicy) -> Self {
        let forbidden = directives.must_revalidate || directives.proxy_revalidate || directives.no_cache;
        // An error must not stick, and there is no sense in covering an error with an older one.
        if forbidden || status.is_server_error() {
            return Windows { forbidden, swr_ms: 0, sie_ms: 0 };
        }
        // Where the origin gave no usable lifetime, it is not ours to assume that it can live with older content.
        let defaults =
            directives.s_maxage.is_none() && !matches!(lifetime.kind, Kind::Unknown | Kind::Invalid);
        let window = |explicit: Option<super::directives::Delta>, default_ms: i64| match explicit {
            Some(delta) => delta.as_ms(),
            None if defaults => default_ms.max(0),
            None => 0,
        };
        Windows {
            forbidden: directives.s_maxage.is_some(),
            swr_ms: window(directives.stale_while_revalidate, site.stale_while_revalidate_ms),
            sie_ms: window(directives.stale_if_error, site.stale_if_error_ms),
        }
    }
}

#[cfg(test)]
mod tests;
