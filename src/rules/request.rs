//! Cache-Control of requests (RFC 9111 §5.2.1), for sites that honour it.

use super::{
    directives::Directives,
    freshness::{Freshness, State},
    time::Millis,
};

/// What may be done with a stored response for a client that sent these directives.
///
/// [`State::Fresh`] also stands for a stale response that `max-stale` accepts. `no-store` concerns storing
/// (`policy::decide`), and `only-if-cached` what a caller does when this says [`State::MustRevalidate`]: answer 504.
#[must_use]
pub fn state(directives: &Directives, freshness: &Freshness, now: Millis) -> State {
    let state = freshness.state(now);
    if directives.no_cache || !directives.no_cache_fields.is_empty() {
        return State::MustRevalidate;
    }
    if directives.max_age.is_some_and(|limit| freshness.age_ms(now) > limit.as_ms()) {
        return State::MustRevalidate;
    }
    let left_ms = freshness.fresh_until.saturating_sub(now);
    if directives.min_fresh.is_some_and(|wanted| left_ms < wanted.as_ms()) {
        return State::MustRevalidate;
    }
    let tolerated = match directives.max_stale {
        Some(None) => true,
        Some(Some(limit)) => left_ms.saturating_neg() <= limit.as_ms(),
        None => false,
    };
    // no-cache and must-revalidate of the response beat the client's tolerance (RFC 9111 §4.2.4).
    if tolerated && !freshness.no_cache && !freshness.never_stale { State::Fresh } else { state }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header::CACHE_CONTROL};

    use super::*;

    fn sample() -> Freshness {
        Freshness {
            response_time: Millis(0),
            initial_age_ms: 0,
            fresh_until: Millis(10_000),
            swr_until: Millis(10_000),
            sie_until: Millis(10_000),
            no_cache: false,
            never_stale: false,
            source: "max-age",
            strip_fields: Box::default(),
        }
    }

    fn with(value: &'static str, freshness: &Freshness, now_ms: i64) -> State {
        let headers = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static(value))]);
        state(&Directives::parse(&headers), freshness, Millis(now_ms))
    }

    #[test]
    fn clients_can_ask_for_younger_responses() {
        assert_eq!(with("max-age=5", &sample(), 5000), State::Fresh);
        assert_eq!(with("max-age=5", &sample(), 5001), State::MustRevalidate);
        assert_eq!(with("min-fresh=5", &sample(), 5000), State::Fresh);
        assert_eq!(with("min-fresh=5", &sample(), 5001), State::MustRevalidate);
        assert_eq!(with("no-cache", &sample(), 0), State::MustRevalidate);
        assert_eq!(with("foo", &sample(), 0), State::Fresh);
    }

    #[test]
    fn clients_can_accept_stale_responses_that_allow_it() {
        assert_eq!(with("max-stale", &sample(), 99_000), State::Fresh);
        assert_eq!(with("max-stale=5", &sample(), 15_000), State::Fresh);
        assert_eq!(with("max-stale=5", &sample(), 15_001), State::MustRevalidate);
        assert_eq!(with("max-stale=x", &sample(), 15_000), State::MustRevalidate);
        let strict = Freshness { never_stale: true, ..sample() };
        assert_eq!(with("max-stale", &strict, 15_000), State::MustRevalidate);
    }

    #[test]
    fn an_invalidated_response_is_not_revived_by_max_stale() {
        let mut freshness = sample();
        freshness.invalidate();
        assert_eq!(with("max-stale", &freshness, 1), State::MustRevalidate);
    }
}
