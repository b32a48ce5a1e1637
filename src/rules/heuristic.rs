//! Heuristic freshness (RFC 9111 §4.2.2).

use http::{HeaderMap, header::PRAGMA};

use super::{fields, lifetime, policy::Exchange, storable};

const MAX_MS: i64 = 24 * 3600 * 1000;

/// A tenth of the time since the last modification, at most a day.
///
/// Only for statuses that are cacheable by default or with `public`, only with a valid Last-Modified, and never beside a
/// `Pragma: no-cache`, whose intent is plain even though RFC 9111 §5.4 gives it no meaning in responses.
pub(super) fn lifetime_ms(exchange: &Exchange<'_>, public: bool) -> Option<i64> {
    if !public && !storable::is_heuristically_cacheable(exchange.status) {
        return None;
    }
    if pragma_no_cache(exchange.response_headers) {
        return None;
    }
    let age_secs = lifetime::date_secs(exchange).saturating_sub(lifetime::last_modified(exchange)?);
    Some(age_secs.saturating_mul(100).clamp(0, MAX_MS))
}

pub(super) fn pragma_no_cache(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(PRAGMA).iter();
    lines.any(|line| {
        fields::elements(line.as_bytes()).any(|element| element.eq_ignore_ascii_case(b"no-cache"))
    })
}
