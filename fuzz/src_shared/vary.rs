//! A variant key depends on the listed fields only, and a star matches nothing.

use http::header::VARY;
use larder::rules::{
    encoding, language,
    vary::{self, VariantKey, Vary},
};

/// The Vary lines, an empty line, the request's fields.
pub(crate) fn run(data: &[u8]) {
    let (lines, request) = super::two_parts(data);
    let (response, mut request) = (super::field(&VARY, lines), super::head(request));
    let _ = (encoding::normalize(&request), language::selects(&request, &response));
    let Vary::Fields(rule) = vary::parse(&response) else {
        return;
    };
    assert!(rule.names().windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
    assert!(response.get_all(VARY).iter().all(|line| line.as_bytes().trim_ascii() != b"*"));
    let key = rule.key(&request);
    assert_eq!(VariantKey::from_bytes(key.as_bytes()), key);
    request.insert("x-unlisted-by-anyone", http::HeaderValue::from_static("1"));
    if !rule.names().iter().any(|name| name == "x-unlisted-by-anyone") {
        assert_eq!(rule.key(&request), key);
    }
}
