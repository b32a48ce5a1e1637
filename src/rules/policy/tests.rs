use http::HeaderValue;

use super::*;
use crate::rules::{date, freshness::State};

mod differences_from_the_base_policy;
mod lifetimes;
mod sites;
mod storing;
mod targeted_fields;
mod windows;

/// Far from the epoch and from every century's end.
const NOW: Millis = Millis::from_secs(1_780_000_000);

/// A builder, because every test is one exchange with a twist.
#[derive(Clone)]
struct Case {
    method: Method,
    request: HeaderMap,
    status: u16,
    response: HeaderMap,
    delay_ms: i64,
    site: SitePolicy,
}

fn response(lines: &[(&str, &str)]) -> Case {
    let mut case = Case {
        method: Method::GET,
        request: HeaderMap::new(),
        status: 200,
        response: HeaderMap::new(),
        delay_ms: 0,
        site: SitePolicy::default(),
    };
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        case.response.append(name, HeaderValue::from_str(value).unwrap());
    }
    case
}

fn cache_control(value: &str) -> Case {
    response(&[("cache-control", value)])
}

impl Case {
    fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn dated(mut self, name: &'static str, offset_secs: i64) -> Self {
        self.response.append(name, date::format(NOW.as_secs_floor() + offset_secs));
        self
    }

    fn asked(mut self, name: &'static str, value: &'static str) -> Self {
        self.request.append(name, HeaderValue::from_static(value));
        self
    }

    fn site(mut self, change: impl FnOnce(&mut SitePolicy)) -> Self {
        change(&mut self.site);
        self
    }

    fn exchange(&self) -> Exchange<'_> {
        Exchange {
            method: &self.method,
            request_headers: &self.request,
            status: StatusCode::from_u16(self.status).unwrap(),
            response_headers: &self.response,
            request_time: Millis(NOW.0 - self.delay_ms),
            response_time: NOW,
        }
    }

    fn decide(&self) -> Result<Freshness, NotStored> {
        decide(&self.exchange(), &self.site)
    }

    /// Seconds left at once; 0 when it is not stored at all.
    fn ttl(&self) -> i64 {
        self.decide().map_or(0, |freshness| freshness.ttl_secs(NOW))
    }

    fn source(&self) -> &'static str {
        self.decide().unwrap().source
    }

    fn refused(&self) -> NotStored {
        self.decide().unwrap_err()
    }
}

#[test]
fn the_default_site_is_the_edge_profile() {
    let site = SitePolicy::default();
    assert_eq!(
        (site.set_cookie, site.cache_post, site.accept_language_select),
        (SetCookie::Pass, false, false)
    );
    assert_eq!((site.default_ttl_ms, site.max_error_ttl_ms, site.stale_if_error_ms), (0, 30_000, 86_400_000));
    assert_eq!(site.max_ttl_ms, 365 * 86_400_000);
}

#[test]
fn every_source_is_listed() {
    use crate::rules::freshness::SOURCES;
    let cases = [
        cache_control("max-age=1"),
        cache_control("s-maxage=1"),
        response(&[]).dated("expires", 1),
        response(&[]).dated("last-modified", -1000),
        response(&[("etag", "\"a\"")]),
        response(&[("cdn-cache-control", "max-age=1")]),
        response(&[("larder-cdn-cache-control", "max-age=1")]),
        response(&[("surrogate-control", "max-age=1")]),
        response(&[]).site(|site| site.default_ttl_ms = 1),
        response(&[]).site(|site| site.override_ttl_ms = Some(1)),
        response(&[]).site(|site| site.negative_ttl_ms = vec![(200, 1)]),
    ];
    for case in &cases {
        assert!(SOURCES.contains(&case.source()), "{}", case.source());
    }
    assert_eq!(cases.len(), SOURCES.len());
}
