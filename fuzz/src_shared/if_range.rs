//! If-Range holds only for what is strong: a tag byte for byte, or a date equal to Last-Modified.

use http::{Method, header};
use larder::rules::{conditional, time::Millis};

/// The request's fields, an empty line, the stored response's.
pub(crate) fn run(data: &[u8]) {
    let (request, response) = super::two_parts(data);
    let (request, response) = (super::head(request), super::head(response));
    let now = Millis::from_secs(1_780_000_000);
    let validators = conditional::Validators::of(&response, now);
    if conditional::if_range_holds(&request, &validators, now)
        && let Some(value) = request.get(header::IF_RANGE)
    {
        let value = value.as_bytes().trim_ascii();
        let same_tag = response.get(header::ETAG).is_some_and(|tag| tag.as_bytes() == value);
        assert!(same_tag || validators.strong_last_modified().is_some());
        assert!(!value.starts_with(b"W/"));
    }
    for method in [Method::GET, Method::PUT] {
        let _ = conditional::evaluate(&method, &request, &validators, now);
    }
}
