//! Partial content: what of a stored 206 may be served, completed and combined (RFC 9111 §3.3, §3.4; RFC 9110 §15.3.7).

use std::ops::Range;

use http::{HeaderMap, HeaderValue, header};

use super::{
    conditional::Validators,
    etag,
    range::{self, ContentRange, Spec},
    time::Millis,
};

/// The part of a representation that is really there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Positions in the whole.
    pub range: Range<u64>,
    /// The length of the whole, where the origin said it.
    pub complete: Option<u64>,
}

impl Partial {
    /// In bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// What a 206's Content-Range promises; `None` for multipart/byteranges and for nonsense, which aren't stored.
#[must_use]
pub fn of_headers(response: &HeaderMap) -> Option<Partial> {
    let ContentRange { first, last, complete } = range::content_range_of(response)?;
    Some(Partial { range: first..last.saturating_add(1), complete })
}

/// The range to store when `received` bytes came: never more than was promised and never more than there is.
#[must_use]
pub fn stored_range(response: &HeaderMap, received: u64) -> Option<Partial> {
    let mut partial = of_headers(response)?;
    partial.range.end = partial.range.end.min(partial.range.start.saturating_add(received));
    (!partial.range.is_empty()).then_some(partial)
}

/// The range of a request that the stored part can answer in full. Only single ranges; a suffix needs the whole's length.
#[must_use]
pub fn subset(partial: &Partial, request: &HeaderMap) -> Option<Range<u64>> {
    let specs = range::specs(request)?;
    let [spec] = specs[..] else { return None };
    let wanted = match (spec, partial.complete) {
        (Spec::Closed(first, last), complete) => {
            first..last.saturating_add(1).min(complete.unwrap_or(u64::MAX))
        }
        (spec, Some(complete)) => spec.within(complete)?,
        (_, None) => return None,
    };
    let there = wanted.start >= partial.range.start && wanted.end <= partial.range.end && !wanted.is_empty();
    there.then_some(wanted)
}

/// What there is of an open range (`first-`) whose end was promised and did not come: a server may send less than all of
/// what was asked for (RFC 9110 §15.3.7).
#[must_use]
pub fn open_end(promised: &Partial, there: &Partial, request: &HeaderMap) -> Option<Range<u64>> {
    let specs = range::specs(request)?;
    let [Spec::From(first)] = specs[..] else { return None };
    let is_the_end = promised.complete == Some(promised.range.end);
    (is_the_end && there.range.contains(&first)).then_some(first..there.range.end)
}

/// The Range and If-Range with which the rest of a partial object is asked for; `None` without a strong validator, because
/// two halves of different representations must never meet.
#[must_use]
pub fn completion(
    response: &HeaderMap,
    partial: &Partial,
    now: Millis,
) -> Option<(HeaderValue, HeaderValue)> {
    let validator = strong_validator(response, now)?;
    // What is missing in front can only be asked for together with the rest: one request, one range.
    let first = if partial.range.start == 0 { partial.range.end } else { 0 };
    if partial.complete.is_some_and(|complete| first >= complete) {
        return None;
    }
    let range = HeaderValue::try_from(format!("bytes={first}-")).ok()?;
    Some((range, validator.clone()))
}

/// The length of a representation of which `received` bytes are there and `rest` comes now; `None`: that is not what is
/// missing, or it leaves open how long the whole is. A server may send less than all of the rest (RFC 9110 §15.3.7).
#[must_use]
pub fn length_with_rest(known: Option<u64>, received: u64, rest: &Partial) -> Option<u64> {
    let length = known.or(rest.complete)?;
    let fits = rest.range.start == received
        && rest.range.end <= length
        && rest.complete.is_none_or(|complete| complete == length);
    fits.then_some(length)
}

/// Whether two responses are parts of one representation: they share a strong validator (RFC 9111 §3.4).
#[must_use]
pub fn may_combine(a: &HeaderMap, b: &HeaderMap, now: Millis) -> bool {
    let (a_etag, b_etag) = (a.get(header::ETAG), b.get(header::ETAG));
    let same_length = match (of_headers(a).and_then(|p| p.complete), of_headers(b).and_then(|p| p.complete)) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    same_length
        && match (a_etag, b_etag) {
            (Some(a), Some(b)) => etag::strong_eq(a.as_bytes(), b.as_bytes()),
            (None, None) => {
                let modified = Validators::of(a, now).strong_last_modified();
                modified.is_some() && modified == Validators::of(b, now).strong_last_modified()
            }
            _ => false,
        }
}

/// The value for If-Range: a strong entity tag, else a strong Last-Modified (RFC 9110 §13.1.5).
#[must_use]
pub fn strong_validator(response: &HeaderMap, now: Millis) -> Option<&HeaderValue> {
    if let Some(tag) = response.get(header::ETAG) {
        return etag::is_strong(tag.as_bytes()).then_some(tag);
    }
    Validators::of(response, now).strong_last_modified()?;
    response.get(header::LAST_MODIFIED)
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_RANGE, DATE, ETAG, LAST_MODIFIED, RANGE};

    use super::*;

    const NOW: Millis = Millis::from_secs(1_780_000_000);

    fn headers(lines: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn only_what_came_is_stored() {
        let response = headers(&[(CONTENT_RANGE, "bytes 5-9/20")]);
        assert_eq!(stored_range(&response, 5), Some(Partial { range: 5..10, complete: Some(20) }));
        assert_eq!(stored_range(&response, 3).unwrap().range, 5..8);
        assert_eq!(stored_range(&response, 99).unwrap().range, 5..10);
        assert_eq!(stored_range(&response, 0), None);
        assert_eq!(stored_range(&headers(&[(CONTENT_RANGE, "bytes */20")]), 5), None);
        assert_eq!(stored_range(&HeaderMap::new(), 5), None);
    }

    #[test]
    fn subsets_are_answered_and_nothing_else() {
        let partial = Partial { range: 5..10, complete: Some(20) };
        let subset = |value| subset(&partial, &headers(&[(RANGE, value)]));
        assert_eq!(subset("bytes=5-9"), Some(5..10));
        assert_eq!(subset("bytes=6-7"), Some(6..8));
        for value in
            ["bytes=4-9", "bytes=5-10", "bytes=5-", "bytes=-1", "bytes=6-6,8-8", "bytes=x", "bytes=30-40"]
        {
            assert_eq!(subset(value), None, "{value}");
        }
        let tail = Partial { range: 15..20, complete: Some(20) };
        let of_tail = |value| super::subset(&tail, &headers(&[(RANGE, value)]));
        assert_eq!(of_tail("bytes=-2"), Some(18..20));
        assert_eq!(of_tail("bytes=16-"), Some(16..20));
        assert_eq!(of_tail("bytes=16-99"), Some(16..20));
        let unknown = Partial { range: 15..20, complete: None };
        assert_eq!(super::subset(&unknown, &headers(&[(RANGE, "bytes=-2")])), None);
        assert_eq!(super::subset(&unknown, &headers(&[(RANGE, "bytes=15-19")])), Some(15..20));
        assert_eq!(super::subset(&unknown, &headers(&[(RANGE, "bytes=15-20")])), None);
    }

    #[test]
    fn a_rest_fits_or_is_none() {
        let rest = |range, complete| Partial { range, complete };
        for (known, rest, length) in [
            (Some(10), rest(5..10, Some(10)), Some(10)),
            (Some(10), rest(5..8, Some(10)), Some(10)),
            (Some(10), rest(5..8, None), Some(10)),
            (None, rest(5..8, Some(10)), Some(10)),
            (None, rest(5..8, None), None),
            (Some(10), rest(4..10, Some(10)), None),
            (Some(10), rest(6..10, Some(10)), None),
            (Some(10), rest(5..11, None), None),
            (Some(10), rest(5..11, Some(11)), None),
            (Some(10), rest(5..9, Some(9)), None),
        ] {
            assert_eq!(length_with_rest(known, 5, &rest), length, "{known:?} {rest:?}");
        }
    }

    #[test]
    fn completing_needs_a_strong_validator() {
        let partial = Partial { range: 0..10, complete: Some(20) };
        let ask = |lines: &[_]| completion(&headers(lines), &partial, NOW);
        let (range, if_range) = ask(&[(ETAG, "\"a\"")]).unwrap();
        assert_eq!((range.to_str().unwrap(), if_range.to_str().unwrap()), ("bytes=10-", "\"a\""));
        assert!(ask(&[(ETAG, "W/\"a\"")]).is_none());
        assert!(ask(&[]).is_none());
        let old = (LAST_MODIFIED, "Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(ask(std::slice::from_ref(&old)).is_none());
        assert!(ask(&[old.clone(), (DATE, "Sun, 06 Nov 1994 08:50:37 GMT")]).is_some());
        assert!(ask(&[old.clone(), (DATE, "Sun, 06 Nov 1994 08:50:36 GMT")]).is_none());
        assert!(ask(&[old, (DATE, "Sun, 06 Nov 1994 08:50:37 GMT"), (ETAG, "W/\"a\"")]).is_none());
        let whole = Partial { range: 0..20, complete: Some(20) };
        assert!(completion(&headers(&[(ETAG, "\"a\"")]), &whole, NOW).is_none());
    }

    #[test]
    fn parts_combine_only_under_one_strong_validator() {
        let part = |tag, range| headers(&[(ETAG, tag), (CONTENT_RANGE, range)]);
        let first = part("\"a\"", "bytes 0-4/10");
        assert!(may_combine(&first, &part("\"a\"", "bytes 5-9/10"), NOW));
        assert!(!may_combine(&first, &part("\"b\"", "bytes 5-9/10"), NOW));
        assert!(!may_combine(&first, &part("\"a\"", "bytes 5-9/11"), NOW));
        assert!(!may_combine(&part("W/\"a\"", "bytes 0-4/10"), &part("W/\"a\"", "bytes 5-9/10"), NOW));
        assert!(!may_combine(&first, &headers(&[(CONTENT_RANGE, "bytes 5-9/10")]), NOW));
        assert!(!may_combine(&HeaderMap::new(), &HeaderMap::new(), NOW));
    }
}
