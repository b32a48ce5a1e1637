//! Ranges stay within the representation, are few, ascending and apart.

use http::{HeaderMap, HeaderValue, header::RANGE};
use larder::rules::{
    partial::{self, Partial},
    range::{self, Requested},
};

pub(crate) fn run(data: &[u8]) {
    let (length, value) = super::number(data);
    let Ok(value) = HeaderValue::from_bytes(value) else {
        return;
    };
    let _ = range::parse_content_range(&value);
    let headers = HeaderMap::from_iter([(RANGE, value)]);
    let ranges = match range::parse(&headers, length) {
        Requested::Ignored | Requested::Unsatisfiable => Vec::new(),
        Requested::Single(range) => vec![range],
        Requested::Multiple(ranges) => ranges,
    };
    assert!(ranges.len() <= 16);
    for range in &ranges {
        assert!(range.start < range.end && range.end <= length);
        assert!(
            range::parse_content_range(&range::content_range(range, length)).is_some() || length == u64::MAX
        );
    }
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
    let part = Partial { range: 5..length, complete: Some(length) };
    if let Some(subset) = partial::subset(&part, &headers) {
        assert!(subset.start >= 5 && subset.end <= length);
    }
}
