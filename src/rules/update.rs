//! What a 304 or the answer to a HEAD changes in a stored response (RFC 9111 §3.2, §4.3.4, §4.3.5).

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{conditional::Validators, etag, fields, hop, policy::SetCookie, time::Millis, vary};

/// Whether a 304 speaks of this stored response. If not, the response is dropped and fetched again without a condition.
///
/// A strong tag has to be the stored one exactly, a weak one has to match weakly. Without a tag, a Last-Modified that is
/// newer than the stored one contradicts itself, unless the stored response was asked for by its tag.
#[must_use]
pub fn matches_304(stored: &HeaderMap, not_modified: &HeaderMap) -> bool {
    let stored_tag = stored.get(header::ETAG);
    if let Some(new) = not_modified.get(header::ETAG) {
        let new = new.as_bytes();
        return stored_tag.is_some_and(|old| {
            let old = old.as_bytes();
            old == new || (!etag::is_strong(new) && etag::weak_eq(old, new))
        });
    }
    if stored_tag.is_some() {
        return true;
    }
    // The century of a two-digit year matters little here; both are read alike.
    let (old, new) = (Validators::of(stored, Millis(0)), Validators::of(not_modified, Millis(0)));
    match (old.last_modified, new.last_modified) {
        (Some(old), Some(new)) => new <= old,
        _ => true,
    }
}

/// Replaces every field that the 304 carries and keeps the others (RFC 9111 §3.2).
///
/// Never touched: Content-Length, Content-Encoding and Content-Range, which describe the stored bytes, and hop-by-hop
/// fields. Set-Cookie is taken over only where it is stored. Age and Date restart: where the 304 has none, the stored ones
/// go, for they would count time before this validation. A caller gives a 304 without Date one first (RFC 9110 §6.6.1).
pub fn merge_304(stored: &mut HeaderMap, not_modified: &HeaderMap, set_cookie: SetCookie) {
    let mut update = not_modified.clone();
    hop::strip_response(&mut update);
    stored.remove(header::AGE);
    stored.remove(header::DATE);
    for name in update.keys() {
        if !is_updated(name, set_cookie) {
            continue;
        }
        stored.remove(name);
        for value in update.get_all(name) {
            stored.append(name.clone(), value.clone());
        }
    }
}

/// What the answer to a HEAD means for the stored answer to GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadUpdate {
    /// The same representation: merge the fields as those of a 304.
    Merge,
    /// The representation has changed: mark the stored one stale.
    Invalidate,
    /// It says nothing about the stored one.
    Ignore,
}

/// RFC 9111 §4.3.5, on the careful side: without a validator on both sides nothing follows from a HEAD.
///
/// Where Vary changes, the same body may be for other requests than before: for which, the answer to a GET has to tell.
#[must_use]
pub fn head_update(
    stored: &HeaderMap,
    stored_length: Option<u64>,
    status: StatusCode,
    head: &HeaderMap,
) -> HeadUpdate {
    if status != StatusCode::OK {
        return HeadUpdate::Ignore;
    }
    let equal = match (stored.get(header::ETAG), head.get(header::ETAG)) {
        (Some(old), Some(new)) => Some(old == new),
        (None, None) => match (stored.get(header::LAST_MODIFIED), head.get(header::LAST_MODIFIED)) {
            (Some(old), Some(new)) => Some(old == new),
            _ => None,
        },
        _ => None,
    };
    let length =
        fields::single(head, header::CONTENT_LENGTH.as_str()).map(|value| fields::digits(value.as_bytes()));
    let same_length = length.is_none_or(|length| length == stored_length);
    let same_vary = !head.contains_key(header::VARY) || vary::parse(head) == vary::parse(stored);
    match equal {
        None => HeadUpdate::Ignore,
        Some(true) if same_length && same_vary => HeadUpdate::Merge,
        Some(_) => HeadUpdate::Invalidate,
    }
}

fn is_updated(name: &HeaderName, set_cookie: SetCookie) -> bool {
    let describes_bytes =
        [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_RANGE].contains(name);
    let cookie = name == header::SET_COOKIE && set_cookie != SetCookie::Store;
    !describes_bytes && !cookie && !hop::is_response_hop(name)
}

#[cfg(test)]
mod tests;
