//! The freshness of a stored response: computed once, then compared (RFC 9111 §4.2, RFC 5861).

use http::HeaderName;

use super::time::Millis;

/// Everything a hit needs to know about time. A hit compares integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// When the response, or the 304 that renewed it, was received.
    pub response_time: Millis,
    /// `corrected_initial_age` (RFC 9111 §4.2.3).
    pub initial_age_ms: i64,
    /// Fresh before this.
    pub fresh_until: Millis,
    /// Until then, stale is served while one fetch revalidates; equal to `fresh_until` when there is no such window.
    pub swr_until: Millis,
    /// Until then, stale is served when the origin fails; likewise.
    pub sie_until: Millis,
    /// Never used without validation.
    pub no_cache: bool,
    /// The response forbids stale use that it does not grant itself; a client's max-stale has no effect.
    pub never_stale: bool,
    /// What decided the lifetime: one of [`SOURCES`].
    pub source: &'static str,
    /// Left out of every answer that was not validated for it: `no-cache="..."` (RFC 9111 §5.2.2.4).
    pub strip_fields: Box<[HeaderName]>,
}

/// All values of [`Freshness::source`]; a store may keep the position. Only ever appended to.
pub const SOURCES: [&str; 11] = [
    "none",
    "s-maxage",
    "max-age",
    "expires",
    "heuristic",
    "larder-cdn-cache-control",
    "cdn-cache-control",
    "surrogate-control",
    "override",
    "default-ttl",
    "negative-ttl",
];

/// What may be done with a stored response now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Serve it.
    Fresh,
    /// Serve it and revalidate in the background.
    StaleWhileRevalidate,
    /// Ask the origin first.
    MustRevalidate,
}

impl Freshness {
    /// Fresh while lifetime > age, strictly: `max-age=0` is never fresh.
    #[must_use]
    pub fn state(&self, now: Millis) -> State {
        if self.no_cache {
            State::MustRevalidate
        } else if now < self.fresh_until {
            State::Fresh
        } else if self.within(self.swr_until, now) {
            State::StaleWhileRevalidate
        } else {
            State::MustRevalidate
        }
    }

    /// Whether it may stand in for an origin that fails (RFC 9111 §4.2.4, RFC 5861 §4).
    #[must_use]
    pub fn may_serve_on_error(&self, now: Millis) -> bool {
        self.state(now) != State::MustRevalidate || (!self.no_cache && self.within(self.sie_until, now))
    }

    /// `current_age` in whole seconds (RFC 9111 §4.2.3), for the Age field.
    #[must_use]
    pub fn age_secs(&self, now: Millis) -> u64 {
        u64::try_from(self.age_ms(now) / 1000).unwrap_or(0)
    }

    /// Seconds until it is stale; negative when it is.
    #[must_use]
    pub fn ttl_secs(&self, now: Millis) -> i64 {
        Millis(self.fresh_until.saturating_sub(now)).as_secs_floor()
    }

    /// Marks the response to be revalidated before any further use, also when the origin fails (RFC 9111 §4.4).
    pub fn invalidate(&mut self) {
        self.fresh_until = Millis::MIN;
        self.swr_until = Millis::MIN;
        self.sie_until = Millis::MIN;
        self.never_stale = true;
    }

    /// Makes the response stale now and keeps its windows, which then start now: a soft purge.
    pub fn expire(&mut self, now: Millis) {
        if now < self.fresh_until {
            let (swr_ms, sie_ms) = (
                self.swr_until.saturating_sub(self.fresh_until),
                self.sie_until.saturating_sub(self.fresh_until),
            );
            self.fresh_until = now;
            self.swr_until = now.saturating_add(swr_ms);
            self.sie_until = now.saturating_add(sie_ms);
        }
    }

    pub(super) fn age_ms(&self, now: Millis) -> i64 {
        self.initial_age_ms.max(0).saturating_add(now.saturating_sub(self.response_time).max(0))
    }

    /// A window of no length has no last moment either.
    fn within(&self, until: Millis, now: Millis) -> bool {
        until > self.fresh_until && now <= until
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Freshness {
        Freshness {
            response_time: Millis(1_000_000),
            initial_age_ms: 1500,
            fresh_until: Millis(1_010_000),
            swr_until: Millis(1_014_000),
            sie_until: Millis(1_020_000),
            no_cache: false,
            never_stale: false,
            source: "max-age",
            strip_fields: Box::default(),
        }
    }

    #[test]
    fn states_follow_one_another() {
        let freshness = sample();
        assert_eq!(freshness.state(Millis(1_009_999)), State::Fresh);
        assert_eq!(freshness.state(Millis(1_010_000)), State::StaleWhileRevalidate);
        assert_eq!(freshness.state(Millis(1_014_000)), State::StaleWhileRevalidate);
        assert_eq!(freshness.state(Millis(1_014_001)), State::MustRevalidate);
        assert!(freshness.may_serve_on_error(Millis(1_020_000)));
        assert!(!freshness.may_serve_on_error(Millis(1_020_001)));
    }

    #[test]
    fn without_windows_stale_is_stale() {
        let freshness = Freshness { swr_until: Millis(1_010_000), sie_until: Millis(1_010_000), ..sample() };
        assert_eq!(freshness.state(Millis(1_010_000)), State::MustRevalidate);
        assert!(!freshness.may_serve_on_error(Millis(1_010_000)));
    }

    #[test]
    fn age_and_ttl_are_floored() {
        let freshness = sample();
        assert_eq!(freshness.age_secs(Millis(1_000_499)), 1);
        assert_eq!(freshness.age_secs(Millis(1_000_500)), 2);
        assert_eq!(freshness.age_secs(Millis(0)), 1, "a clock that went back makes nothing younger");
        assert_eq!(freshness.ttl_secs(Millis(1_009_001)), 0);
        assert_eq!(freshness.ttl_secs(Millis(1_010_001)), -1);
    }

    #[test]
    fn no_cache_is_never_used_unvalidated() {
        let freshness = Freshness { no_cache: true, ..sample() };
        assert_eq!(freshness.state(Millis(1_000_000)), State::MustRevalidate);
        assert!(!freshness.may_serve_on_error(Millis(1_000_000)));
    }

    #[test]
    fn invalidated_is_never_used_unvalidated() {
        let mut freshness = sample();
        freshness.invalidate();
        for now in [Millis::MIN, Millis(1_000_000), Millis::MAX] {
            assert_eq!(freshness.state(now), State::MustRevalidate);
            assert!(!freshness.may_serve_on_error(now));
        }
    }

    #[test]
    fn expired_keeps_its_windows() {
        let mut freshness = sample();
        freshness.expire(Millis(1_002_000));
        assert_eq!(freshness.state(Millis(1_006_000)), State::StaleWhileRevalidate);
        assert_eq!(freshness.state(Millis(1_006_001)), State::MustRevalidate);
        assert!(freshness.may_serve_on_error(Millis(1_012_000)));
        let stale = freshness.clone();
        freshness.expire(Millis(1_005_000));
        assert_eq!(freshness, stale, "what is stale already gets no new window");
    }

    proptest! {
        #[test]
        fn never_panics(a: i64, b: i64, c: i64, d: i64, e: i64, now: i64) {
            let mut freshness = Freshness {
                response_time: Millis(a), initial_age_ms: b, fresh_until: Millis(c), swr_until: Millis(d), sie_until: Millis(e), ..sample()
            };
            let now = Millis(now);
            let _ = (freshness.state(now), freshness.may_serve_on_error(now), freshness.age_secs(now), freshness.ttl_secs(now));
            freshness.expire(now);
        }
    }
}
