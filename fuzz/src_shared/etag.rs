//! Comparison is symmetric, strong implies weak, and a list finds its only member.

use http::{HeaderMap, HeaderValue, header::IF_NONE_MATCH};
use larder::rules::etag;

pub(crate) fn run(data: &[u8]) {
    let (list, tag) = super::two_parts(data);
    assert_eq!(etag::weak_eq(list, tag), etag::weak_eq(tag, list));
    assert!(!etag::strong_eq(list, tag) || etag::weak_eq(list, tag));
    let headers = super::field(&IF_NONE_MATCH, list);
    let _ = etag::list_matches_weak(&headers, &IF_NONE_MATCH, &[tag]);
    let _ = etag::list_matches_strong(&headers, &IF_NONE_MATCH, tag);
    let _ = etag::is_any(&headers, &IF_NONE_MATCH);
    if let Ok(value) = HeaderValue::from_bytes(tag) {
        let only = HeaderMap::from_iter([(IF_NONE_MATCH, value.clone())]);
        assert!(etag::list_matches_weak(&only, &IF_NONE_MATCH, &[tag]));
        if let Some(derived) = etag::with_suffix(&value, "br-0") {
            assert!(etag::is_strong(derived.as_bytes()) && !etag::weak_eq(derived.as_bytes(), tag));
        }
        if let Some(weak) = etag::weaken(&value) {
            assert!(!etag::is_strong(weak.as_bytes()) && etag::weak_eq(weak.as_bytes(), tag));
        }
    }
}
