//! Conditional requests (RFC 9110 §13), answered from a stored response (RFC 9111 §4.3.2).

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{
        CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG,
        HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    },
};

use super::{date, etag, fields, time::Millis};

/// A Last-Modified this much older than Date names one state of the resource: nothing can have changed in between without
/// being seen (RFC 9110 §8.8.2.2; Larder keeps to the minute of RFC 7232 there, the safer reading).
const STRONG_DATE_SECS: i64 = 60;

/// What a stored response can be compared by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// Byte for byte.
    pub etag: Option<&'a HeaderValue>,
    /// Unix seconds.
    pub last_modified: Option<i64>,
    /// Unix seconds; Date, or when the response was received.
    pub date: Option<i64>,
}

impl<'a> Validators<'a> {
    /// Reads them from a response; for a store that does not keep them parsed.
    #[must_use]
    pub fn of(response: &'a HeaderMap, now: Millis) -> Self {
        let read = |name: HeaderName| response.get(name).and_then(|value| date::parse(value.as_bytes(), now));
        Validators { etag: response.get(ETAG), last_modified: read(LAST_MODIFIED), date: read(DATE) }
    }

    /// Last-Modified, where it can serve as a strong validator (RFC 9110 §8.8.2.2).
    #[must_use]
    pub fn strong_last_modified(&self) -> Option<i64> {
        let (modified, date) = (self.last_modified?, self.date?);
        (date.saturating_sub(modified) >= STRONG_DATE_SECS).then_some(modified)
    }
}

/// What the preconditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Whether a 304 can confirm a stored response of this status. A 304 takes the place of a 200 (RFC 9110 §15.4.5), and an
/// origin looks at conditions only where its answer would be a 2xx (§13.2.1): what now has a 200 after a 404 or a 302 may
/// well be older than that answer, and a 304 would then keep it alive. So the origin is asked without a condition about
/// all but a 200, what a proxy made of one, and a part of one.
#[must_use]
pub fn can_be_confirmed(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION | StatusCode::PARTIAL_CONTENT)
}

/// Whether any of the five conditional fields is there at all.
#[must_use]
pub fn has_conditions(headers: &HeaderMap) -> bool {
    [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE]
        .iter()
        .any(|name| headers.contains_key(name))
}

/// Evaluates the preconditions in the order of RFC 9110 §13.2.2 against a stored response of status 200 (for other
/// statuses there is nothing to evaluate: RFC 9110 §13.2.1). If-Range is apart: [`if_range_holds`].
#[must_use]
pub fn evaluate(method: &Method, request: &HeaderMap, v: &Validators<'_>, now: Millis) -> Outcome {
    evaluate_derived(method, request, v, None, now)
}

/// As [`evaluate`], for a representation of an object that is kept in several encodings: `object` is the tag that all of
/// theirs are derived from. It and they count for If-None-Match, which asks for the content, and not for If-Match, which
/// asks for bytes.
#[must_use]
pub fn evaluate_derived(
    method: &Method,
    request: &HeaderMap,
    v: &Validators<'_>,
    object: Option<&HeaderValue>,
    now: Millis,
) -> Outcome {
    if request.contains_key(IF_MATCH) {
        let tag = v.etag.map_or(&[][..], HeaderValue::as_bytes);
        if !etag::is_any(request, &IF_MATCH) && !etag::list_matches_strong(request, &IF_MATCH, tag) {
            return Outcome::PreconditionFailed;
        }
    } else if let (Some(limit), Some(modified)) =
        (request_date(request, &IF_UNMODIFIED_SINCE, now), v.last_modified)
        && modified > limit
    {
        return Outcome::PreconditionFailed;
    }
    let safe = method == Method::GET || method == Method::HEAD;
    if request.contains_key(IF_NONE_MATCH) {
        return match (none_match(request, v, object), safe) {
            (true, _) => Outcome::Proceed,
            (false, true) => Outcome::NotModified,
            (false, false) => Outcome::PreconditionFailed,
        };
    }
    if safe && !modified_since(request, v, now) { Outcome::NotModified } else { Outcome::Proceed }
}

/// Whether a Range may be served: also when there is no If-Range. Strong comparison only (RFC 9110 §13.1.5); a date has to
/// equal Last-Modified exactly.
#[must_use]
pub fn if_range_holds(request: &HeaderMap, v: &Validators<'_>, now: Millis) -> bool {
    if !request.contains_key(IF_RANGE) {
        return true;
    }
    let Some(value) = fields::single(request, IF_RANGE.as_str()) else {
        return false;
    };
    let value = fields::trim(value.as_bytes());
    if let Some(tag) = v.etag
        && etag::strong_eq(value, tag.as_bytes())
    {
        return true;
    }
    let date = date::parse(value, now);
    date.is_some() && date == v.strong_last_modified()
}

/// Removes the five conditional fields, for a fetch that fills the cache: the condition is answered from what comes.
pub fn strip_conditions(request: &mut HeaderMap) {
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_MATCH, IF_UNMODIFIED_SINCE, IF_RANGE] {
        request.remove(name);
    }
}

/// Makes a request validate a stored response (RFC 9111 §4.3.1): the client's conditions give way to If-None-Match with the
/// stored tag, byte for byte, and If-Modified-Since with the stored Last-Modified. False when there is neither.
pub fn make_conditional(request: &mut HeaderMap, stored: &HeaderMap) -> bool {
    strip_conditions(request);
    if let Some(tag) = stored.get(ETAG) {
        request.insert(IF_NONE_MATCH, tag.clone());
    }
    // Which century a two-digit year means does not matter for whether it is a date.
    if let Some(modified) = stored.get(LAST_MODIFIED)
        && date::parse(modified.as_bytes(), Millis(0)).is_some()
    {
        request.insert(IF_MODIFIED_SINCE, modified.clone());
    }
    request.contains_key(IF_NONE_MATCH) || request.contains_key(IF_MODIFIED_SINCE)
}

/// Makes the fields of a 304 from those of the 200 it stands for: what only describes the content goes, everything that a
/// 304 must repeat stays (RFC 9110 §15.4.5).
pub fn strip_for_304(response: &mut HeaderMap) {
    for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_RANGE] {
        response.remove(name);
    }
}

/// RFC 9110 §13.1.2: true when no stored tag is listed.
fn none_match(request: &HeaderMap, v: &Validators<'_>, object: Option<&HeaderValue>) -> bool {
    if etag::is_any(request, &IF_NONE_MATCH) {
        return false;
    }
    let lists = |tag: &HeaderValue| etag::list_matches_weak(request, &IF_NONE_MATCH, &[tag.as_bytes()]);
    let lists_derived =
        |tag: &HeaderValue| etag::list_matches_derived(request, &IF_NONE_MATCH, tag.as_bytes());
    !v.etag.is_some_and(lists) && !object.is_some_and(|tag| lists(tag) || lists_derived(tag))
}

/// RFC 9110 §13.1.3; without Last-Modified the stored Date takes its place (RFC 9111 §4.3.2).
fn modified_since(request: &HeaderMap, v: &Validators<'_>, now: Millis) -> bool {
    match (request_date(request, &IF_MODIFIED_SINCE, now), v.last_modified.or(v.date)) {
        (Some(since), Some(modified)) => modified > since,
        _ => true,
    }
}

/// A condition that is no single valid date is ignored.
fn request_date(request: &HeaderMap, name: &HeaderName, now: Millis) -> Option<i64> {
    date::parse(fields::trim(fields::single(request, name.as_str())?.as_bytes()), now)
}

#[cfg(test)]
mod tests;
