use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

fn url(scheme: Scheme, host: &str, path: &str, query: Option<&str>) -> String {
    let host = normalize_host(host, scheme).unwrap();
    let path = normalize_path(path).unwrap();
    CacheKey::new(scheme, &host, &path, query).canonical().to_owned()
}

#[test]
fn equivalent_urls_share_a_key() {
    let wanted = "https://a.example/~b/%2F?q";
    for (host, path) in
        [("A.example", "/~b/%2F"), ("a.example:443", "/%7eb/%2f"), ("a.example.", "/x/../~b/./%2f")]
    {
        assert_eq!(url(Scheme::Https, host, path, Some("q")), wanted);
    }
}

#[test]
fn other_urls_have_other_keys() {
    let keys = [
        url(Scheme::Https, "a.example", "/b", None),
        url(Scheme::Https, "a.example", "/b", Some("")),
        url(Scheme::Https, "a.example", "/b", Some("x=1&y=2")),
        url(Scheme::Https, "a.example", "/b", Some("y=2&x=1")),
        url(Scheme::Https, "a.example", "/B", None),
        url(Scheme::Https, "a.example", "/b/", None),
        url(Scheme::Https, "a.example", "//b", None),
        url(Scheme::Https, "a.example", "/b%2F", None),
        url(Scheme::Https, "a.example", "/b%3F", None),
        url(Scheme::Https, "a.example:8443", "/b", None),
        url(Scheme::Http, "a.example", "/b", None),
        url(Scheme::Http, "a.example:443", "/b", None),
    ];
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key), "{key}");
        assert_eq!(CacheKey::from_canonical(key.as_str().into()).hash(), KeyHash::of(key));
    }
}

/// Triplets of every kind, raw text, dots and slashes.
fn paths() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("."),
        Just(".."),
        Just("%2e"),
        Just("%2E"),
        Just("%2f"),
        Just("%25"),
        Just("%"),
        Just("%%"),
        Just("%4"),
        Just("%41"),
        Just("%7e"),
        Just("%zz"),
        Just("a"),
        Just("1"),
        Just("F"),
        Just("é"),
        Just("%c3%a9"),
        Just("~"),
        Just("\\"),
        Just(";"),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// What an origin may make of a path: its segments, each decoded where a triplet is valid, with what marks "%" as literal
/// kept apart. Written differently from the implementation on purpose.
fn meaning(path: &str) -> Vec<Vec<(u8, bool)>> {
    let mut segments: Vec<Vec<(u8, bool)>> = Vec::new();
    for segment in path[1..].split('/') {
        let bytes = segment.as_bytes();
        let mut decoded = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let hex = bytes
                .get(at + 1..at + 3)
                .and_then(|h| std::str::from_utf8(h).ok())
                .filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
            match (bytes[at], hex) {
                (b'%', Some(hex)) => {
                    let byte = u8::from_str_radix(hex, 16).unwrap();
                    let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || !byte.is_ascii();
                    decoded.push((byte, !plain));
                    at += 3;
                }
                (byte, _) => {
                    decoded.push((byte, false));
                    at += 1;
                }
            }
        }
        segments.push(decoded);
    }
    let mut out: Vec<Vec<(u8, bool)>> = Vec::new();
    let last = segments.len() - 1;
    for (index, segment) in segments.into_iter().enumerate() {
        let text: Vec<u8> = segment.iter().map(|&(byte, _)| byte).collect();
        match &text[..] {
            b"." | b".." => {
                if text.len() == 2 {
                    out.pop();
                }
                if index == last {
                    out.push(Vec::new());
                }
            }
            _ => out.push(segment),
        }
    }
    out
}

proptest! {
    #[test]
    fn normalising_a_path_is_idempotent(path in paths()) {
        let once = normalize_path(&path).unwrap().into_owned();
        prop_assert!(matches!(normalize_path(&once), Ok(Cow::Borrowed(same)) if same == once), "{} -> {}", path, once);
    }

    #[test]
    fn a_path_keeps_its_meaning(path in paths()) {
        let normal = normalize_path(&path).unwrap();
        prop_assert_eq!(meaning(&normal), meaning(&path), "{} -> {}", path, normal);
    }

    #[test]
    fn different_meanings_never_share_a_key(a in paths(), b in paths()) {
        if meaning(&a) != meaning(&b) {
            prop_assert_ne!(normalize_path(&a).unwrap(), normalize_path(&b).unwrap());
        }
    }

    #[test]
    fn nothing_panics(text in "\\PC{0,40}", bytes in proptest::collection::vec(any::<char>(), 0..20)) {
        let raw: String = bytes.into_iter().collect();
        for text in [&text, &raw, &format!("/{text}"), &format!("/{raw}")] {
            let _ = normalize_path(text);
            let _ = normalize_host(text, Scheme::Https);
            for sort in [false, true] {
                let rule = QueryRule { mode: QueryMode::Deny(vec!["@tracking".into()]), sort };
                let _ = filter_query(text, &rule);
            }
        }
    }

    #[test]
    fn normalising_a_host_is_idempotent(host in "[a-cA-C0-9.:_-]{0,12}|\\[[0-9a-f:]{0,8}\\](:[0-9]{0,5})?") {
        for scheme in [Scheme::Http, Scheme::Https] {
            if let Ok(once) = normalize_host(&host, scheme) {
                prop_assert!(matches!(normalize_host(&once, scheme), Ok(Cow::Borrowed(same)) if same == once));
            }
        }
    }

    #[test]
    fn filtering_a_query_is_idempotent(query in "([a-c@]{0,2}=?[&=%5f1]{0,3}&?){0,6}", sort: bool, mode in 0..4) {
        let names = vec!["a".to_owned(), "@tracking".to_owned()];
        let mode = match mode {
            0 => QueryMode::All,
            1 => QueryMode::None,
            2 => QueryMode::Allow(names),
            _ => QueryMode::Deny(names),
        };
        let rule = QueryRule { mode, sort };
        let once = filter_query(&query, &rule).map(Cow::into_owned);
        let twice = once.as_deref().and_then(|once| filter_query(once, &rule)).map(Cow::into_owned);
        prop_assert_eq!(once, twice);
    }
}
