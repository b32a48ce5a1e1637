//! The split into lines does not matter, and no field makes a parser panic.

use http::{HeaderMap, HeaderValue, header::CACHE_CONTROL};
use larder::rules::{directives::Directives, targeted};

pub(crate) fn run(data: &[u8]) {
    let lines = super::field(&CACHE_CONTROL, data);
    let values: Vec<&[u8]> = lines.get_all(CACHE_CONTROL).iter().map(HeaderValue::as_bytes).collect();
    let parsed = Directives::parse(&lines);
    if let Ok(list) = HeaderValue::from_bytes(&values.join(&b", "[..])) {
        let list = HeaderMap::from_iter([(CACHE_CONTROL, list)]);
        assert_eq!(parsed, Directives::parse(&list));
    }
    for name in ["cdn-cache-control", "larder-cdn-cache-control", "surrogate-control"] {
        let _ = targeted::decide(&super::field(&name.parse().expect("a name"), data), "larder");
    }
}
