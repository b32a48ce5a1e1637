//! Properties that hold across the modules: nothing panics, and nothing is stored that RFC 9111 forbids.

mod differential;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use proptest::{collection::vec, prelude::*};

use super::{
    base, conditional, directives,
    directives::Directives,
    encoding,
    freshness::State,
    hop, invalidate,
    key::Scheme,
    language, lifetime, partial,
    policy::{self, Exchange, SetCookie, SitePolicy},
    range, request, targeted,
    time::Millis,
    update, vary,
};

const NAMES: [&str; 34] = [
    "accept-encoding",
    "accept-language",
    "age",
    "authorization",
    "cache-control",
    "cdn-cache-control",
    "connection",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "cookie",
    "date",
    "etag",
    "expires",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "larder-cdn-cache-control",
    "last-modified",
    "location",
    "pragma",
    "range",
    "set-cookie",
    "surrogate-control",
    "te",
    "transfer-encoding",
    "vary",
    "via",
    "warning",
    "x-a",
];

const VALUES: [&str; 48] = [
    "max-age=3600",
    "s-maxage=60",
    "no-store",
    "No-Store",
    "no-cache",
    "private",
    "PRIVATE=\"a\"",
    "public",
    "must-understand",
    "must-revalidate",
    "proxy-revalidate",
    "stale-while-revalidate=60",
    "stale-if-error=60",
    "immutable",
    "max-age=-1",
    "max-age=99999999999999999999",
    "max-age",
    "max-age=0",
    "*",
    "accept",
    "Cookie",
    "Sun, 06 Nov 1994 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Fri, 01 Jan 2100 00:00:00 GMT",
    "0",
    "18446744073709551615",
    "2147483648",
    "\"a\"",
    "W/\"a\"",
    "abc",
    "bytes=0-1",
    "bytes=-1,5-,1-2",
    "bytes 0-1/10",
    "bytes */10",
    "gzip;q=0.5, br",
    "de, en;q=0.1",
    "/x",
    "https://a.example/y?z",
    "",
    ",",
    "a=b",
    "no-cache=\"set-cookie\"",
    "close, cache-control",
    "max-stale",
    "min-fresh=5",
    "content=\"ESI/1.0\", max-age=5+5",
    "max-age=1, max-age=2",
];

fn value() -> impl Strategy<Value = HeaderValue> {
    let known = proptest::sample::select(&VALUES[..]);
    let list = vec(known.clone(), 1..4).prop_map(|values| values.join(", "));
    let text = prop_oneof![4 => known.prop_map(str::to_owned), 3 => list, 1 => "[ -~\t]{0,30}".prop_map(|text| text)];
    let bytes =
        vec(any::<u8>(), 0..20).prop_filter_map("a value", |bytes| HeaderValue::from_bytes(&bytes).ok());
    prop_oneof![9 => text.prop_filter_map("a value", |text| HeaderValue::from_str(&text).ok()), 1 => bytes]
}

fn soup() -> impl Strategy<Value = HeaderMap> {
    vec((proptest::sample::select(&NAMES[..]), value()), 0..8).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    })
}

/// Responses that have a fair chance of being stored.
fn response() -> impl Strategy<Value = HeaderMap> {
    let directives = vec(proptest::sample::select(&VALUES[..18]), 0..4).prop_map(|values| values.join(", "));
    (soup(), directives).prop_map(|(mut headers, directives)| {
        headers.append("cache-control", HeaderValue::from_str(&directives).unwrap());
        headers
    })
}

fn site() -> impl Strategy<Value = SitePolicy> {
    let cookies = proptest::sample::select(&[SetCookie::Pass, SetCookie::Strip, SetCookie::Store][..]);
    let ttl = || prop_oneof![Just(0), 0..100_000_000_i64, any::<i64>()];
    (cookies, ttl(), ttl(), ttl(), proptest::option::of(ttl()), ttl(), ttl(), any::<bool>()).prop_map(
        |(set_cookie, default, min, max, fixed, swr, sie, honor)| SitePolicy {
            set_cookie,
            default_ttl_ms: default,
            min_ttl_ms: min,
            max_ttl_ms: max,
            override_ttl_ms: fixed,
            stale_while_revalidate_ms: swr,
            stale_if_error_ms: sie,
            honor_request_cache_control: honor,
            negative_ttl_ms: vec![(404, default)],
            ..SitePolicy::default()
        },
    )
}

fn status() -> impl Strategy<Value = StatusCode> {
    prop_oneof![3 => Just(200), 1 => Just(206), 1 => Just(404), 1 => Just(503), 3 => 100..600_u16]
        .prop_map(|code| StatusCode::from_u16(code).unwrap())
}

fn exchange<'a>(
    asked: &'a HeaderMap,
    status: StatusCode,
    response_headers: &'a HeaderMap,
    sent: i64,
    received: i64,
) -> Exchange<'a> {
    Exchange {
        method: &Method::GET,
        request_headers: asked,
        status,
        response_headers,
        request_time: Millis(sent),
        response_time: Millis(received),
    }
}

/// All directives that the words of a field can mean, however malformed: stricter than any parser.
fn mentions(headers: &HeaderMap, name: &str, word: &str) -> bool {
    headers.get_all(name).iter().any(|line| {
        let line = line.as_bytes().to_ascii_lowercase();
        line.split(|&b| b == b',').any(|member| {
            let member = String::from_utf8_lossy(member).trim().to_owned();
            member == word || member.starts_with(&format!("{word}="))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn header_soups_never_panic(a in soup(), b in soup(), status in status(), site in site(), times: (i64, i64, i64)) {
        let (sent, received, now) = (Millis(times.0), Millis(times.1), Millis(times.2));
        if let Ok(mut freshness) = policy::decide(&exchange(&a, status, &b, sent.0, received.0), &site) {
            let _ = request::state(&Directives::parse(&a), &freshness, now);
            let _ = (freshness.age_secs(now), freshness.ttl_secs(now), freshness.may_serve_on_error(now));
            freshness.expire(now);
        }
        let target = invalidate::Target { scheme: Scheme::Https, host: "a.example", path: "/x", query: None };
        let post = Exchange { method: &Method::POST, ..exchange(&a, status, &b, sent.0, received.0) };
        let _ = policy::decide_post(&post, &SitePolicy { cache_post: true, ..site.clone() }, &target);
        let _ = invalidate::targets(&target, &b);
        let validators = conditional::Validators::of(&b, now);
        let _ = conditional::evaluate(&Method::GET, &a, &validators, now);
        let _ = conditional::if_range_holds(&a, &validators, now);
        let _ = (range::parse(&a, times.0.unsigned_abs()), encoding::normalize(&a), language::selects(&a, &b));
        if let vary::Vary::Fields(rule) = vary::parse(&b) {
            prop_assert_eq!(rule.key(&a), rule.key(&a));
        }
        if let Some(part) = partial::stored_range(&b, times.1.unsigned_abs()) {
            let _ = (partial::subset(&part, &a), partial::completion(&b, &part, now));
        }
        let _ = (partial::may_combine(&a, &b, now), update::matches_304(&a, &b), update::head_update(&a, None, StatusCode::OK, &b));
        let mut stored = a.clone();
        update::merge_304(&mut stored, &b, site.set_cookie);
        hop::strip_request(&mut stored);
        hop::strip_response(&mut stored);
        prop_assert!(!stored.contains_key("connection"));
    }

    /// RFC 9111 §3, read from the words of the fields and not with our parsers.
    #[test]
    fn nothing_forbidden_is_stored(asked in soup(), answer in response(), status in status(), site in site()) {
        let Ok(freshness) = policy::decide(&exchange(&asked, status, &answer, 0, 1_780_000_000_000), &site) else { return Ok(()) };
        prop_assert!(status.as_u16() >= 200 && status != StatusCode::NOT_MODIFIED);
        let deciding = targeted::decide(&answer, "larder");
        let name = deciding.field.as_str();
        prop_assert!(!mentions(&answer, name, "no-store") || deciding.directives.must_understand);
        if deciding.field == targeted::Field::CacheControl {
            prop_assert!(!mentions(&answer, name, "private"));
        }
        if asked.contains_key("authorization") {
            let words = ["public", "must-revalidate", "s-maxage"];
            prop_assert!(words.iter().any(|word| mentions(&answer, name, word)));
        }
        prop_assert!(site.set_cookie != SetCookie::Pass || !answer.contains_key("set-cookie"));
        prop_assert!(!mentions(&answer, "vary", "*"));
        prop_assert!(status != StatusCode::PARTIAL_CONTENT || answer.contains_key("content-range"));
        if mentions(&answer, name, "no-cache") && deciding.directives.no_cache && freshness.source != "override" {
            prop_assert!(freshness.state(Millis(i64::MIN)) == State::MustRevalidate && !freshness.may_serve_on_error(Millis(0)));
        }
        if mentions(&answer, name, "must-revalidate") {
            prop_assert_eq!(freshness.swr_until.max(freshness.sie_until), freshness.fresh_until);
        }
    }

    #[test]
    fn lines_and_lists_are_the_same(values in vec(proptest::sample::select(&VALUES[..]), 0..5)) {
        let mut lines = HeaderMap::new();
        for value in &values {
            lines.append("cache-control", HeaderValue::from_str(value).unwrap());
        }
        let list = HeaderMap::from_iter([(http::header::CACHE_CONTROL, HeaderValue::from_str(&values.join(", ")).unwrap())]);
        prop_assert_eq!(Directives::parse(&lines), Directives::parse(&list));
    }

    /// On its normalised copy the base policy never objects and never differs: what it would say otherwise is left out.
    #[test]
    fn the_base_policy_agrees(asked in soup(), answer in response(), received in 0..4_000_000_000_000_i64) {
        let exchange = exchange(&asked, StatusCode::OK, &answer, received, received);
        let deciding = targeted::decide(&answer, "larder");
        let site = SitePolicy { set_cookie: SetCookie::Store, ..SitePolicy::default() };
        if super::storable::check(&exchange, &deciding.directives, &site).is_err() {
            return Ok(());
        }
        let opinion = base::opinion(&exchange, &deciding);
        prop_assert!(opinion.storable);
        let ours = lifetime::of_origin(&exchange, &deciding);
        if matches!(ours.kind, lifetime::Kind::Explicit | lifetime::Kind::Invalid) {
            prop_assert_eq!(opinion.lifetime_ms / 1000, ours.ms / 1000);
        }
    }

    #[test]
    fn deltas_are_bounded(secs: u64) {
        prop_assert!(directives::Delta::from_secs(secs).as_ms() <= (1_i64 << 31) * 1000);
    }
}
