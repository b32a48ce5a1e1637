//! A second opinion: `http-cache-semantics` on a normalised copy of an exchange.
//!
//! The copy is built from parsed values only, so that the crate never meets input it can't take (a huge Age makes it
//! panic, upper-case directives pass it by, it sees one of several lines). What RFC 9111 or the site decides otherwise is
//! left out of the copy:
//!
//! | left out | because the crate |
//! |---|---|
//! | the status, after ours was checked | knows 14 of them and refuses the rest, also with explicit freshness |
//! | Set-Cookie | makes the response stale unless `public`; the site decides |
//! | proxy-revalidate | makes the response stale at once; RFC 9111 §5.2.2.8 speaks of stale ones only |
//! | no-cache | makes the lifetime 0; we keep the lifetime and revalidate |
//! | immutable | invents a lifetime of a day; RFC 8246 gives none |
//! | no-store under must-understand | does not know must-understand |
//! | Age, Vary | are handled by `freshness` and `vary` |
//! | Last-Modified | has a heuristic without a limit |
//!
//! What remains should never differ, and property tests say so (`tests`); if it does, the shorter lifetime
//! wins.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Request, Response, header};
use http_cache_semantics::{CacheOptions, CachePolicy};

use super::{
    date,
    directives::Delta,
    lifetime,
    policy::Exchange,
    targeted::{Deciding, Field},
    time::Millis,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opinion {
    pub storable: bool,
    pub lifetime_ms: i64,
}

/// Costs over a microsecond, so it is asked at fill time only.
pub(super) fn opinion(exchange: &Exchange<'_>, deciding: &Deciding) -> Opinion {
    let mut request = Request::new(());
    if exchange.request_headers.contains_key(header::AUTHORIZATION) {
        request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static("x"));
    }
    let mut response = Response::new(());
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(cache_control(deciding)) {
        headers.insert(header::CACHE_CONTROL, value);
    }
    headers.insert(header::DATE, date::format(lifetime::date_secs(exchange).max(0)));
    if deciding.field == Field::CacheControl
        && let Some(expires) = lifetime::expires(exchange.response_headers, exchange.response_time)
    {
        let value = expires.map_or(HeaderValue::from_static("0"), |secs| date::format(secs.max(0)));
        headers.insert(header::EXPIRES, value);
    }
    let now = system_time(exchange.response_time);
    let policy = CachePolicy::new_options(&request, &response, now, CacheOptions::default());
    let lifetime_ms = i64::try_from(policy.time_to_live(now).as_millis()).unwrap_or(i64::MAX);
    Opinion { storable: policy.is_storable(), lifetime_ms }
}

/// Lower-case, each directive once, only what the crate reads as RFC 9111 does. Never empty, so that its reading of Pragma
/// stays out of the way.
fn cache_control(deciding: &Deciding) -> String {
    let directives = &deciding.directives;
    let mut text = String::from("x-normalised");
    for (set, name) in [
        (directives.no_store && !directives.must_understand, "no-store"),
        (directives.private, "private"),
        (directives.public, "public"),
        (directives.must_revalidate, "must-revalidate"),
    ] {
        if set {
            text.push_str(", ");
            text.push_str(name);
        }
    }
    for (delta, name) in [(directives.s_maxage, ", s-maxage="), (directives.max_age, ", max-age=")] {
        let secs = match delta {
            Some(Delta::Secs(secs)) => secs,
            Some(Delta::Invalid) => 0,
            None => continue,
        };
        text.push_str(name);
        text.push_str(&secs.to_string());
    }
    text
}

/// Within the years 1970 to 9999, which the crate can take.
fn system_time(time: Millis) -> SystemTime {
    let ms = u64::try_from(time.0.clamp(0, 253_402_300_799_000)).unwrap_or(0);
    UNIX_EPOCH + Duration::from_millis(ms)
}
