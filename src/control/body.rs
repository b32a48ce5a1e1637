//! Bodies of requests: no longer than may be, and JSON objects.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// A request's body, if it is not too long.
pub(super) async fn read(headers: &HeaderMap, body: Body, max_bytes: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("a request has at most {max_bytes} bytes; send several");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
    };
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large());
    }
    axum::body::to_bytes(body, max_bytes).await.map_err(|error| {
        let source = std::error::Error::source(&error);
        if source.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>) {
            return too_large();
        }
        Problem::new(StatusCode::BAD_REQUEST, "bad-body", "the request's body broke off")
    })
}

/// What a body asks for, or what is wrong with it. Anything but an object is refused: a list would be taken for the
/// fields in the order in which they are declared, and that is no contract.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|first| *first != b'{') {
        return Err("a JSON object is needed".into());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}
