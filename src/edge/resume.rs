//! A fill that broke off goes on where it was, when the origin can tell that it is still the same
//! representation (RFC 9110 §13.1.5).

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::fill::Fill;
use crate::object::Head;
use crate::origin::OriginBody;
use crate::rules::partial;
use crate::rules::range;
use crate::rules::time::Millis;

/// Times in a row that a fill is resumed without a byte gained.
const ATTEMPTS: u32 = 2;

/// What a broken fill may be resumed by.
#[derive(Clone, Debug)]
pub(super) struct Resumable {
    validator: HeaderValue,
    /// Where it broke off last, and how often there.
    at: u64,
    attempts: u32,
}

/// The strong validator of an answer whose origin takes ranges.
pub(super) fn validator(status: StatusCode, headers: &HeaderMap, now: Millis) -> Option<Resumable> {
    let takes_ranges = headers.get(header::ACCEPT_RANGES).is_some_and(|value| value == "bytes");
    if status != StatusCode::OK || !takes_ranges {
        return None;
    }
    let validator = partial::strong_validator(headers, now)?.clone();
    Some(Resumable { validator, at: 0, attempts: 0 })
}

impl Fill {
    /// The rest of a body of which `received` bytes came; `None`: it can't be had. Rare: who waits for it boxes it, or every
    /// fill would have room for it.
    pub(super) async fn resume(&mut self, head: &Head, received: u64) -> Option<OriginBody> {
        let resumable = self.resumable.as_mut()?;
        if received == 0 || std::mem::replace(&mut resumable.at, received) != received {
            resumable.attempts = 0;
        }
        resumable.attempts += 1;
        if received == 0 || resumable.attempts > ATTEMPTS {
            return None;
        }
        let validator = resumable.validator.clone();
        let mut request = self.edge.to_origin(
            &self.admitted,
            &http::Method::GET,
            &self.request,
            super::forward::Purpose::Fill(None),
        );
        let headers = request.headers_mut();
        headers.insert(header::RANGE, HeaderValue::try_from(format!("bytes={received}-")).ok()?);
        headers.insert(header::IF_RANGE, validator);
        let response = self.admitted.treatment.origin.send(request).await.ok()?;
        let length = super::respond::content_length(&head.headers);
        let content_range = range::content_range_of(response.headers())?;
        let is_the_rest = response.status() == StatusCode::PARTIAL_CONTENT
            && content_range.first == received
            && content_range.complete.is_none_or(|complete| {
                content_range.last + 1 == complete && length.is_none_or(|length| length == complete)
            })
            && response.headers().get(header::ETAG) == head.headers.get(header::ETAG);
        if !is_the_rest {
            return None;
        }
        tracing::debug!(url = head.key.canonical(), received, "a fill that broke off goes on");
        Some(response.into_body())
    }
}
