//! A fill that broke off goes on where it was, when the origin can tell that it is still the same
//! representation (RFC 9110 §13.1.5).

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::accept::ensure_date;
use super::fill::Fill;
use super::stream::Coming;
use crate::object::Head;
use crate::rules::partial;
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
    /// The rest of a body that broke off, or came to its end too early; `None`: it can't be had.
    pub(super) async fn resume(&mut self, head: &Head, coming: &mut Coming) -> Option<()> {
        let received = coming.received;
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
        let mut response = self.admitted.treatment.origin.send(request).await.ok()?;
        let now = self.edge.clock.now();
        ensure_date(response.headers_mut(), now);
        let is_of_the_same = response.status() == StatusCode::PARTIAL_CONTENT
            && partial::may_combine(&head.headers, response.headers(), now);
        let rest = partial::of_headers(response.headers()).filter(|_| is_of_the_same)?;
        coming.length = Some(partial::length_with_rest(coming.length, received, &rest)?);
        coming.until = Some(rest.range.end);
        coming.body = response.into_body();
        tracing::debug!(url = head.key.canonical(), received, "a fill that broke off goes on");
        Some(())
    }
}
