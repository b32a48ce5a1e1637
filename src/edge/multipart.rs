//! Several ranges of what is stored in one answer: `multipart/byteranges` (RFC 9110 §14.6).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use super::body::{Body, Part};
use crate::object;
use crate::rules::range;

/// The body, and the fields that belong to it.
pub(super) fn multipart(headers: &mut HeaderMap, body: &Arc<object::Body>, ranges: &[Range<u64>]) -> Body {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let seed = (NEXT.fetch_add(1, Relaxed), Arc::as_ptr(body) as usize, std::process::id());
    let boundary = blake3::hash(format!("{seed:?}").as_bytes()).to_hex();
    let boundary = &boundary[..24];
    let content_type = headers.get(header::CONTENT_TYPE).cloned();
    let mut parts = VecDeque::with_capacity(2 * ranges.len() + 1);
    let mut length = 0;
    for range in ranges {
        let mut text = format!("\r\n--{boundary}\r\n").into_bytes();
        if let Some(content_type) = &content_type {
            text.extend_from_slice(b"Content-Type: ");
            text.extend_from_slice(content_type.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"Content-Range: ");
        text.extend_from_slice(range::content_range(range, body.len()).as_bytes());
        text.extend_from_slice(b"\r\n\r\n");
        length += text.len() as u64 + (range.end - range.start);
        parts.push_back(Part::Bytes(Bytes::from(text)));
        parts.push_back(Part::Stored(object::Reader::new(body.clone(), range.clone())));
    }
    let end = format!("\r\n--{boundary}--\r\n");
    length += end.len() as u64;
    parts.push_back(Part::Bytes(Bytes::from(end)));
    headers.remove(header::CONTENT_RANGE);
    headers.insert(header::CONTENT_LENGTH, length.into());
    if let Ok(value) = HeaderValue::try_from(format!("multipart/byteranges; boundary={boundary}")) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    Body::parts(parts)
}
