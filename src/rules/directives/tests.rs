use http::HeaderValue;

use super::*;

fn parse(lines: &[&str]) -> Directives {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
    }
    Directives::parse(&headers)
}

fn max_age(line: &str) -> Option<Delta> {
    parse(&[line]).max_age
}

#[test]
fn strings_are_skipped_as_a_whole() {
    assert_eq!(max_age(r#"extension="max-age=3600", max-age=1"#), Some(Delta::Secs(1)));
    assert_eq!(max_age(r#"max-age=1, extension="max-age=3600""#), Some(Delta::Secs(1)));
    assert_eq!(max_age(r#"extension="a\", max-age=3600", max-age=1"#), Some(Delta::Secs(1)));
}

#[test]
fn names_ignore_case() {
    assert_eq!(max_age("MaX-aGe=5"), Some(Delta::Secs(5)));
    assert!(parse(&["No-StOrE"]).no_store);
    assert!(parse(&["No-CaChE"]).no_cache);
    assert!(parse(&["PRIVATE"]).private);
}

#[test]
fn numbers_are_clamped() {
    assert_eq!(max_age("max-age=003600"), Some(Delta::Secs(3600)));
    for huge in ["2147483648", "2147483649", "99999999999", "123456789012345678901234567890"] {
        assert_eq!(max_age(&format!("max-age={huge}")), Some(Delta::Secs(1 << 31)), "{huge}");
    }
}

#[test]
fn malformed_numbers_are_invalid_not_absent() {
    for value in [
        "=-3600", "='3600'", "=3600.0", "=3600.5", "=a3600", "=3600a", "=", "", " =3600", "= 3600",
        "=\"3600", "=\"\"",
    ] {
        assert_eq!(max_age(&format!("max-age{value}")), Some(Delta::Invalid), "{value}");
    }
    assert_eq!(max_age("max-age 3600"), Some(Delta::Invalid));
}

#[test]
fn a_quoted_number_is_accepted() {
    assert_eq!(max_age(r#"max-age="3600""#), Some(Delta::Secs(3600)));
}

#[test]
fn the_first_duplicate_wins_however_lines_are_split() {
    for (lines, wanted) in [
        (&["max-age=1800, max-age=1"][..], 1800),
        (&["max-age=1800", "max-age=1"], 1800),
        (&["max-age=1, max-age=1800"], 1),
        (&["max-age=1", "max-age=1800"], 1),
    ] {
        assert_eq!(parse(lines).max_age, Some(Delta::Secs(wanted)));
    }
}

#[test]
fn unknown_directives_are_ignored() {
    assert_eq!(max_age("foobar, max-age=3600"), Some(Delta::Secs(3600)));
    assert_eq!(parse(&["a-directive-with-a-name-longer-than-any=1"]), Directives::default());
}

#[test]
fn qualified_no_cache_names_fields() {
    let named = parse(&[r#"no-cache="Set-Cookie, x-a""#]);
    assert!(!named.no_cache);
    assert_eq!(named.no_cache_fields, ["set-cookie", "x-a"]);
    assert!(parse(&[r#"no-cache="""#]).no_cache);
    assert!(parse(&[r#"no-cache="b@d name""#]).no_cache);
    assert!(parse(&["no-cache =x"]).no_cache);
}

#[test]
fn malformed_restrictions_hold_and_malformed_permissions_do_not() {
    let all = parse(&[
        "no-store =1, private = x, must-revalidate foo, public=no, must-understand foo, immutable=1",
    ]);
    assert!(all.no_store && all.private && all.must_revalidate);
    assert!(!all.public && !all.must_understand && !all.immutable);
}

#[test]
fn max_stale_may_stand_alone() {
    assert_eq!(parse(&["max-stale"]).max_stale, Some(None));
    assert_eq!(parse(&["max-stale=5"]).max_stale, Some(Some(Delta::Secs(5))));
    assert_eq!(parse(&["max-stale=x"]).max_stale, Some(Some(Delta::Invalid)));
}

#[test]
fn an_unclosed_string_over_two_lines_hides_nothing() {
    assert!(parse(&[r#"ext="a"#, "no-store"]).no_store);
}
