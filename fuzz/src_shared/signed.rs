//! A query is taken apart without a loss, and no signature that we did not make is good.

use larder::edge::config::Signed;

/// A query, a line feed, a value.
pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (query, value) = text.split_once('\n').unwrap_or((&text, ""));
    let signed = Signed::new(b"a secret for fuzzing only", "sig").expect("a long secret");
    if let Ok((found, rest)) = signed.split(Some(query)) {
        let rest_bytes = rest.as_ref().map_or(0, |rest| rest.len() + 1);
        assert_eq!("sig=".len() + found.len() + rest_bytes, query.len());
        assert!(signed.split(rest.as_deref()).is_err(), "there was one");
        assert!(signed.verify(found, "a.example", "/", rest.as_deref(), 0).is_err());
    }
    assert!(signed.verify(value, "a.example", "/", None, 0).is_err());
}
