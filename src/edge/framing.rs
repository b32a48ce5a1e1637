//! Where does an origin's answer end? Refuse what two readers could answer differently (RFC 9112 §6.3).

use bytes::Bytes;
use http::{Response, header};

use crate::origin::{OriginBody, OriginError};

/// A transfer coding other than `chunked` is either refused or read to the connection's end and
/// stripped; one that might hide the message's end is always refused.
pub(super) fn check(response: &mut Response<OriginBody>, reject_unknown: bool) -> Result<(), OriginError> {
    if response.status().is_informational() {
        // 101: nobody asked for another protocol.
        return Err(OriginError::Malformed("its answer is not final".into()));
    }
    let headers = response.headers_mut();
    let codings: Vec<Bytes> = headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .map(|value| Bytes::from(value.as_bytes().to_ascii_lowercase()))
        .collect();
    let is_harmless = match codings.as_slice() {
        [] => true,
        [one] if &**one == b"chunked" => true,
        [one] => {
            let known = [&b"chunked"[..], b"gzip", b"deflate", b"compress"];
            !reject_unknown && !known.iter().any(|k| one.windows(k.len()).any(|w| w == *k))
        }
        _ => false,
    };
    if !is_harmless {
        return Err(OriginError::Malformed("its transfer coding is not understood".into()));
    }
    let is_chunked = headers.remove(header::TRANSFER_ENCODING).is_some();
    if is_chunked && headers.remove(header::CONTENT_LENGTH).is_some() {
        // Two ends are one too many (RFC 9112 §6.3): the chunks count, the connection is done.
        response.body_mut().close_connection();
    }
    Ok(())
}
