//! The freshness lifetime (RFC 9111 §4.2.1): what the origin grants, then what the site makes of it.

use http::{HeaderMap, header};

use super::{
    date,
    directives::Delta,
    fields, heuristic,
    policy::{Exchange, SitePolicy},
    storable,
    targeted::{Deciding, Field},
    time::Millis,
};

/// Where a lifetime comes from, as far as it matters for what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A valid s-maxage, max-age or Expires, also 0.
    Explicit,
    /// One of those, but malformed: 0, and nothing else is asked.
    Invalid,
    Heuristic,
    /// The site's `default_ttl` or `negative_ttl`.
    Site,
    /// The site's `override_ttl`.
    Override,
    /// Nothing is known.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub ms: i64,
    pub kind: Kind,
    pub source: &'static str,
}

impl Lifetime {
    const UNKNOWN: Lifetime = Lifetime { ms: 0, kind: Kind::Unknown, source: "none" };
}

/// The first present of s-maxage, max-age and Expires decides, even when it is malformed; then the heuristic.
pub(super) fn of_origin(exchange: &Exchange<'_>, deciding: &Deciding) -> Lifetime {
    let directives = &deciding.directives;
    for (delta, name) in [(directives.s_maxage, "s-maxage"), (directives.max_age, "max-age")] {
        if let Some(delta) = delta {
            let kind = if delta == Delta::Invalid { Kind::Invalid } else { Kind::Explicit };
            let source = if deciding.field == Field::CacheControl { name } else { deciding.field.as_str() };
            return Lifetime { ms: delta.as_ms(), kind, source };
        }
    }
    if deciding.field == Field::CacheControl
        && let Some(expires) = expires(exchange.response_headers, exchange.response_time)
    {
        return match expires {
            Some(expires) => {
                let ms = expires.saturating_sub(date_secs(exchange)).saturating_mul(1000).max(0);
                Lifetime { ms, kind: Kind::Explicit, source: "expires" }
            }
            None => Lifetime { ms: 0, kind: Kind::Invalid, source: "expires" },
        };
    }
    match heuristic::lifetime_ms(exchange, directives.public) {
        Some(ms) => Lifetime { ms, kind: Kind::Heuristic, source: "heuristic" },
        None => Lifetime::UNKNOWN,
    }
}

/// Applies the site's wishes. `None`: RFC 9111 §3 gives no permission to store this, since the origin says nothing, the
/// status is not cacheable by default and the site names no lifetime for it.
pub(super) fn of_site(
    origin: Lifetime,
    exchange: &Exchange<'_>,
    deciding: &Deciding,
    site: &SitePolicy,
) -> Option<Lifetime> {
    let status = exchange.status;
    let explicit = matches!(origin.kind, Kind::Explicit | Kind::Invalid);
    let negative = site.negative_ttl_ms.iter().find(|(code, _)| *code == status.as_u16());
    let bounded = |lifetime: Lifetime| {
        let ms = lifetime.ms.max(site.min_ttl_ms).min(site.max_ttl_ms);
        // An error must not stick.
        let ms = if status.is_server_error() { ms.min(site.max_error_ttl_ms) } else { ms };
        Lifetime { ms: ms.max(0), ..lifetime }
    };
    if let Some(&(_, ms)) = negative
        && !explicit
    {
        return Some(bounded(Lifetime { ms, kind: Kind::Site, source: "negative-ttl" }));
    }
    if !explicit && !deciding.directives.public && !storable::is_heuristically_cacheable(status) {
        return None;
    }
    if let Some(ms) = site.override_ttl_ms
        && status.as_u16() < 400
    {
        return Some(Lifetime { ms: ms.max(0), kind: Kind::Override, source: "override" });
    }
    Some(match origin.kind {
        Kind::Unknown
            if site.default_ttl_ms > 0 && !heuristic::pragma_no_cache(exchange.response_headers) =>
        {
            bounded(Lifetime { ms: site.default_ttl_ms, kind: Kind::Site, source: "default-ttl" })
        }
        // Where nobody gives a lifetime there is none to raise.
        Kind::Unknown => origin,
        _ => bounded(origin),
    })
}

/// `None`: absent. `Some(None)`: malformed, or several that differ (RFC 9111 §4.2.1, §5.3), which means "expired".
#[allow(clippy::option_option)]
pub(super) fn expires(headers: &HeaderMap, now: Millis) -> Option<Option<i64>> {
    let mut lines = headers.get_all(header::EXPIRES).iter();
    let first = lines.next()?;
    if lines.any(|line| line != first) {
        return Some(None);
    }
    Some(date::parse(fields::trim(first.as_bytes()), now))
}

/// The response's Date, or when it was received (RFC 9110 §6.6.1).
pub(super) fn date_secs(exchange: &Exchange<'_>) -> i64 {
    field_date(exchange, header::DATE).unwrap_or(exchange.response_time.as_secs_floor())
}

pub(super) fn last_modified(exchange: &Exchange<'_>) -> Option<i64> {
    field_date(exchange, header::LAST_MODIFIED)
}

fn field_date(exchange: &Exchange<'_>, name: header::HeaderName) -> Option<i64> {
    date::parse(exchange.response_headers.get(name)?.as_bytes(), exchange.response_time)
}
