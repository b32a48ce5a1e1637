use proptest::prelude::*;

use super::*;

const NOW: Millis = Millis::from_secs(1_780_000_000);
/// Sun, 06 Nov 1994 08:49:37 GMT
const MODIFIED: i64 = 784_111_777;

fn request(lines: &[(HeaderName, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

fn with(etag: &HeaderValue) -> Validators<'_> {
    Validators { etag: Some(etag), last_modified: Some(MODIFIED), date: Some(MODIFIED + 3600) }
}

fn get(lines: &[(HeaderName, &str)]) -> Outcome {
    let etag = HeaderValue::from_static(r#""a""#);
    evaluate(&Method::GET, &request(lines), &with(&etag), NOW)
}

const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const LATER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

#[test]
fn if_none_match_decides_alone() {
    assert_eq!(get(&[(IF_NONE_MATCH, r#"W/"a""#)]), Outcome::NotModified);
    assert_eq!(get(&[(IF_NONE_MATCH, r#""b", "a""#)]), Outcome::NotModified);
    assert_eq!(get(&[(IF_NONE_MATCH, "*")]), Outcome::NotModified);
    assert_eq!(get(&[(IF_NONE_MATCH, r#""b""#), (IF_MODIFIED_SINCE, LATER)]), Outcome::Proceed);
    assert_eq!(get(&[(IF_NONE_MATCH, r#""a""#), (IF_MODIFIED_SINCE, EARLIER)]), Outcome::NotModified);
}

#[test]
fn if_modified_since_compares_dates() {
    assert_eq!(get(&[(IF_MODIFIED_SINCE, SAME)]), Outcome::NotModified);
    assert_eq!(get(&[(IF_MODIFIED_SINCE, LATER)]), Outcome::NotModified);
    assert_eq!(get(&[(IF_MODIFIED_SINCE, EARLIER)]), Outcome::Proceed);
    assert_eq!(get(&[(IF_MODIFIED_SINCE, "yesterday")]), Outcome::Proceed);
}

#[test]
fn without_last_modified_the_date_counts() {
    let dated = Validators { date: Some(MODIFIED), ..Validators::default() };
    let outcome = |since| evaluate(&Method::GET, &request(&[(IF_MODIFIED_SINCE, since)]), &dated, NOW);
    assert_eq!(outcome(EARLIER), Outcome::Proceed);
    assert_eq!(outcome(LATER), Outcome::NotModified);
    let nothing = Validators::default();
    assert_eq!(
        evaluate(&Method::GET, &request(&[(IF_MODIFIED_SINCE, LATER)]), &nothing, NOW),
        Outcome::Proceed
    );
}

#[test]
fn if_match_and_if_unmodified_since_come_first() {
    assert_eq!(get(&[(IF_MATCH, r#""b""#), (IF_NONE_MATCH, r#""a""#)]), Outcome::PreconditionFailed);
    assert_eq!(get(&[(IF_MATCH, r#"W/"a""#)]), Outcome::PreconditionFailed);
    assert_eq!(get(&[(IF_MATCH, r#""a""#), (IF_UNMODIFIED_SINCE, EARLIER)]), Outcome::Proceed);
    assert_eq!(get(&[(IF_MATCH, "*"), (IF_NONE_MATCH, r#""a""#)]), Outcome::NotModified);
    assert_eq!(get(&[(IF_UNMODIFIED_SINCE, EARLIER)]), Outcome::PreconditionFailed);
    assert_eq!(get(&[(IF_UNMODIFIED_SINCE, SAME)]), Outcome::Proceed);
    assert_eq!(get(&[(IF_UNMODIFIED_SINCE, "x")]), Outcome::Proceed);
}

#[test]
fn unsafe_methods_fail_where_safe_ones_are_not_modified() {
    let etag = HeaderValue::from_static(r#""a""#);
    let outcome = |lines: &[_]| evaluate(&Method::PUT, &request(lines), &with(&etag), NOW);
    assert_eq!(outcome(&[(IF_NONE_MATCH, "*")]), Outcome::PreconditionFailed);
    assert_eq!(outcome(&[(IF_MODIFIED_SINCE, LATER)]), Outcome::Proceed);
}

#[test]
fn derived_tags_name_the_content_but_not_the_bytes() {
    let etag = HeaderValue::from_static(r#""a""#);
    let brotli = HeaderValue::from_static(r#""a-br-0123abcd""#);
    let outcome = |lines: &[_], own: &HeaderValue| {
        evaluate_derived(&Method::GET, &request(lines), &with(own), Some(&etag), NOW)
    };
    for own in [&etag, &brotli] {
        for tag in [r#""a""#, r#""a-br-0123abcd""#, r#""a-gzip-89898989""#, r#"W/"a""#] {
            assert_eq!(outcome(&[(IF_NONE_MATCH, tag)], own), Outcome::NotModified, "{tag}");
        }
        for tag in [r#""a-br""#, r#""b-br-0123abcd""#, r#""a-br-0123abcx""#] {
            assert_eq!(outcome(&[(IF_NONE_MATCH, tag)], own), Outcome::Proceed, "{tag}");
        }
    }
    assert_eq!(outcome(&[(IF_MATCH, r#""a-br-0123abcd""#)], &etag), Outcome::PreconditionFailed);
    assert_eq!(outcome(&[(IF_MATCH, r#""a""#)], &brotli), Outcome::PreconditionFailed);
    assert_eq!(outcome(&[(IF_MATCH, r#""a-br-0123abcd""#)], &brotli), Outcome::Proceed);
}

#[test]
fn if_range_is_strong() {
    let etag = HeaderValue::from_static(r#""a""#);
    let weak = HeaderValue::from_static(r#"W/"a""#);
    let holds = |v: &Validators<'_>, value| if_range_holds(&request(&[(IF_RANGE, value)]), v, NOW);
    assert!(if_range_holds(&HeaderMap::new(), &with(&etag), NOW));
    assert!(holds(&with(&etag), r#""a""#));
    assert!(!holds(&with(&etag), r#""b""#));
    assert!(!holds(&with(&weak), r#"W/"a""#));
    assert!(holds(&with(&etag), SAME));
    assert!(!holds(&with(&etag), LATER));
    assert!(
        !holds(&Validators { date: Some(MODIFIED + 59), ..with(&etag) }, SAME),
        "modified too shortly before"
    );
    assert!(!holds(&Validators { date: None, ..with(&etag) }, SAME));
    assert!(!holds(&Validators::default(), "junk"));
}

#[test]
fn conditions_are_noticed() {
    assert!(!has_conditions(&HeaderMap::new()));
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE] {
        assert!(has_conditions(&request(&[(name, "")])));
    }
}

#[test]
fn a_revalidation_carries_the_stored_validators_verbatim() {
    let client = [(IF_NONE_MATCH, "\"z\""), (IF_RANGE, "\"z\""), (IF_MATCH, "*")];
    for tag in ["\"a\"", "W/\"a\"", "abc"] {
        let mut asked = request(&client);
        assert!(make_conditional(&mut asked, &request(&[(ETAG, tag), (LAST_MODIFIED, SAME)])));
        assert_eq!(asked, request(&[(IF_NONE_MATCH, tag), (IF_MODIFIED_SINCE, SAME)]));
    }
    let mut asked = request(&client);
    assert!(!make_conditional(&mut asked, &request(&[(LAST_MODIFIED, "yesterday")])));
    assert!(asked.is_empty());
}

#[test]
fn a_304_repeats_all_but_what_describes_the_content() {
    let kept = [(ETAG, "\"a\""), (DATE, SAME), (http::header::VARY, "a"), (http::header::EXPIRES, "0")];
    let mut response = request(&kept);
    for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE] {
        response.insert(name, HeaderValue::from_static("x"));
    }
    strip_for_304(&mut response);
    assert_eq!(response, request(&kept));
}

proptest! {
    #[test]
    fn a_request_without_conditions_proceeds_and_none_panics(value in "\\PC{0,30}", tag in "[ -~]{0,10}", modified: Option<i64>, date: Option<i64>, now: i64) {
        let tag = HeaderValue::from_str(&tag).unwrap();
        let v = Validators { etag: Some(&tag), last_modified: modified, date };
        prop_assert_eq!(evaluate(&Method::GET, &HeaderMap::new(), &v, Millis(now)), Outcome::Proceed);
        if let Ok(value) = HeaderValue::from_str(&value) {
            for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE] {
                let headers = HeaderMap::from_iter([(name, value.clone())]);
                let _ = evaluate(&Method::GET, &headers, &v, Millis(now));
                let _ = if_range_holds(&headers, &v, Millis(now));
            }
        }
    }
}
