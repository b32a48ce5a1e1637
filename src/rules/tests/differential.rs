//! What is stored, and for how long it is fresh, against two independent readings: `http-cache-semantics` on well-formed
//! exchanges, and plain arithmetic.
//!
//! The generator writes only what the crate reads as RFC 9111 does. What it reads otherwise (its other statuses, Set-Cookie,
//! proxy-revalidate, immutable, must-understand, targeted fields, obsolete dates, duplicates, upper-case directives, a huge
//! Age) is left out; each of these differences has a test of its own in `policy/tests`. Two remain and are named below.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_cache_semantics::{CacheOptions, CachePolicy};
use proptest::{option, prelude::*, sample::select};

use super::super::{
    date,
    freshness::{Freshness, State},
    policy::{self, Exchange, SetCookie, SitePolicy},
    storable::NotStored,
    time::Millis,
};

const NOW_SECS: i64 = 1_780_000_000;
const DAY_SECS: i64 = 86_400;

/// The statuses that the crate knows.
const STATUSES: [u16; 14] = [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501];
const DIRECTIVES: [&str; 7] =
    ["no-store", "private", "public", "must-revalidate", "no-cache", "no-transform", "ext=1"];

#[derive(Clone, Debug)]
struct Case {
    status: u16,
    is_authorized: bool,
    directives: Vec<&'static str>,
    max_age: Option<u32>,
    s_maxage: Option<u32>,
    /// From Date.
    expires: Option<i64>,
    /// Before Date.
    modified: Option<i64>,
    /// From the receipt.
    date: i64,
    age: Option<u32>,
    has_etag: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    let secs = || option::of(prop_oneof![Just(0), 0..100_u32, 0..1_000_000_u32]);
    let directives = proptest::sample::subsequence(&DIRECTIVES[..], 0..3);
    let times = (option::of(-1000..1_000_000_i64), option::of(0..2_000_000_i64), -100..100_i64, secs());
    (select(&STATUSES[..]), any::<bool>(), directives, secs(), secs(), times, any::<bool>()).prop_map(
        |(status, is_authorized, directives, max_age, s_maxage, (expires, modified, date, age), has_etag)| {
            Case {
                status,
                is_authorized,
                directives,
                max_age,
                s_maxage,
                expires,
                // The crate rounds a heuristic lifetime to whole seconds.
                modified: modified.map(|secs| secs / 10 * 10),
                date,
                age,
                has_etag,
            }
        },
    )
}

impl Case {
    fn response(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut control: Vec<String> = self.directives.iter().map(|&name| name.to_owned()).collect();
        control.extend(self.max_age.map(|secs| format!("max-age={secs}")));
        control.extend(self.s_maxage.map(|secs| format!("s-maxage={secs}")));
        if !control.is_empty() {
            headers.insert(header::CACHE_CONTROL, HeaderValue::try_from(control.join(", ")).unwrap());
        }
        let date = NOW_SECS + self.date;
        headers.insert(header::DATE, date::format(date));
        for (name, secs) in
            [(header::EXPIRES, self.expires), (header::LAST_MODIFIED, self.modified.map(|m| -m))]
        {
            if let Some(secs) = secs {
                headers.insert(name, date::format(date + secs));
            }
        }
        if let Some(age) = self.age {
            headers.insert(header::AGE, age.into());
        }
        if self.has_etag {
            headers.insert(header::ETAG, HeaderValue::from_static("\"a\""));
        }
        headers
    }

    fn request(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.is_authorized {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic eDp5"));
        }
        headers
    }

    fn ours(&self) -> Result<Freshness, NotStored> {
        let exchange = Exchange {
            method: &Method::GET,
            request_headers: &self.request(),
            status: StatusCode::from_u16(self.status).unwrap(),
            response_headers: &self.response(),
            request_time: Millis::from_secs(NOW_SECS),
            response_time: Millis::from_secs(NOW_SECS),
        };
        // What RFC 9111 allows, without a site's care.
        let site = SitePolicy {
            set_cookie: SetCookie::Store,
            max_ttl_ms: i64::MAX,
            max_error_ttl_ms: i64::MAX,
            ..SitePolicy::default()
        };
        policy::decide(&exchange, &site)
    }

    fn theirs(&self) -> CachePolicy {
        let mut request = Request::new(());
        *request.headers_mut() = self.request();
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
        *response.headers_mut() = self.response();
        CachePolicy::new_options(&request, &response, system_time(0), CacheOptions::default())
    }
}

fn system_time(elapsed_secs: i64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_secs((NOW_SECS + elapsed_secs) as u64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

    #[test]
    fn http_cache_semantics_agrees(case in cases(), elapsed in prop_oneof![0..100_i64, 0..2_000_000_i64]) {
        let theirs = case.theirs();
        let their_ttl = theirs.time_to_live(system_time(0)).as_secs() as i64;
        let freshness = match case.ours() {
            Ok(freshness) => freshness,
            Err(NotStored::NoFreshness | NotStored::NoCache) => {
                // The first difference: what could never be used is not stored. By the second, that is also what is
                // older than a day and has but a heuristic lifetime.
                let is_heuristic = (case.max_age, case.s_maxage, case.expires) == (None, None, None);
                let is_old = is_heuristic && i64::from(case.age.unwrap_or(0)) >= DAY_SECS;
                prop_assert!(their_ttl == 0 || is_old, "{}", their_ttl);
                return Ok(());
            }
            Err(reason) => {
                prop_assert!(!theirs.is_storable(), "{:?}", reason);
                return Ok(());
            }
        };
        prop_assert!(theirs.is_storable());
        let is_fresh = freshness.state(Millis::from_secs(NOW_SECS + elapsed)) == State::Fresh;
        let mut they_say_fresh = !theirs.is_stale(system_time(elapsed));
        if freshness.source == "heuristic" {
            // The second: a heuristic lifetime is a day at most.
            they_say_fresh &= elapsed + i64::from(case.age.unwrap_or(0)) < DAY_SECS;
        }
        prop_assert_eq!(is_fresh, they_say_fresh, "{:?}", freshness);
    }

    /// Lifetime, age, time on the way and windows as numbers: fresh, stale and no longer at the very millisecond.
    #[test]
    fn nothing_is_served_older_than_allowed(
        field in select(&["cache-control", "cdn-cache-control", "larder-cdn-cache-control"][..]),
        (lifetime, age, swr, sie) in (0..5000_i64, 0..5000_i64, 0..1000_i64, 0..1000_i64),
        (delay_ms, elapsed_ms) in (0..3000_i64, prop_oneof![0..12_000_000_i64, 0..10_000_i64]),
        strict in any::<bool>(),
    ) {
        let forbids = if strict { ", must-revalidate" } else { "" };
        let control = format!("max-age={lifetime}, stale-while-revalidate={swr}, stale-if-error={sie}{forbids}");
        let headers = HeaderMap::from_iter([
            (HeaderName::from_static(field), HeaderValue::try_from(control).unwrap()),
            (header::AGE, HeaderValue::from(age)),
            (header::ETAG, HeaderValue::from_static("\"a\"")),
        ]);
        let sent = Millis::from_secs(NOW_SECS);
        let received = sent.saturating_add(delay_ms);
        let exchange = Exchange {
            method: &Method::GET,
            request_headers: &HeaderMap::new(),
            status: StatusCode::OK,
            response_headers: &headers,
            request_time: sent,
            response_time: received,
        };
        let freshness = policy::decide(&exchange, &SitePolicy::default()).unwrap();
        let now = received.saturating_add(elapsed_ms);
        let age_ms = age * 1000 + delay_ms + elapsed_ms;
        let stale_ms = age_ms - lifetime * 1000;
        let expected = if stale_ms < 0 {
            State::Fresh
        } else if !strict && swr > 0 && stale_ms <= swr * 1000 {
            State::StaleWhileRevalidate
        } else {
            State::MustRevalidate
        };
        prop_assert_eq!(freshness.state(now), expected);
        let covers = stale_ms < 0 || (!strict && stale_ms <= 1000 * sie.max(swr) && sie.max(swr) > 0);
        prop_assert_eq!(freshness.may_serve_on_error(now), covers);
        prop_assert_eq!(freshness.age_secs(now), (age_ms / 1000) as u64);
    }

    /// Whatever the numbers: time makes nothing fresh again.
    #[test]
    fn nothing_becomes_fresher(case in cases(), times: (i32, u32)) {
        let Ok(freshness) = case.ours() else { return Ok(()) };
        let rank = |secs: i64| {
            let now = Millis::from_secs(NOW_SECS.saturating_add(secs));
            let state = match freshness.state(now) {
                State::Fresh => 0,
                State::StaleWhileRevalidate => 1,
                State::MustRevalidate => 2,
            };
            (state, !freshness.may_serve_on_error(now))
        };
        let earlier = i64::from(times.0);
        prop_assert!(rank(earlier) <= rank(earlier + i64::from(times.1)));
    }
}
