//! Range requests (RFC 9110 §14).

use std::ops::Range;

use http::{
    HeaderMap, HeaderValue,
    header::{CONTENT_RANGE, RANGE},
};

use super::{fields, structured::write_decimal};

/// More parts than this in one answer are abuse (RFC 9110 §17.15).
const MAX_RANGES: usize = 16;
/// More than this many in a request aren't even sorted.
const MAX_SPECS: usize = 256;

/// What a Range field asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requested {
    /// Absent, malformed, of another unit, or abusive: serve the whole.
    Ignored,
    /// 416.
    Unsatisfiable,
    /// One range.
    Single(Range<u64>),
    /// Ascending, disjoint and not adjacent; two or more.
    Multiple(Vec<Range<u64>>),
}

/// Ranges within `0..complete_length`, overlapping and adjacent ones coalesced.
///
/// Ignored as abuse: more than 16 after that, or more bytes in all, before that, than the representation has. A suffix of
/// an empty representation is ignored too, for a 206 could not express it.
#[must_use]
pub fn parse(request: &HeaderMap, complete_length: u64) -> Requested {
    let Some(specs) = specs(request) else {
        return Requested::Ignored;
    };
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut total: u64 = 0;
    for spec in &specs {
        if complete_length == 0 && matches!(spec, Spec::Suffix(1..)) {
            return Requested::Ignored;
        }
        if let Some(range) = spec.within(complete_length) {
            total = total.saturating_add(range.end - range.start);
            ranges.push(range);
        }
    }
    if ranges.is_empty() {
        return Requested::Unsatisfiable;
    }
    if total > complete_length {
        return Requested::Ignored;
    }
    coalesce(&mut ranges);
    match ranges.len() {
        1 => Requested::Single(ranges.swap_remove(0)),
        2..=MAX_RANGES => Requested::Multiple(ranges),
        _ => Requested::Ignored,
    }
}

/// `bytes a-b/N` (RFC 9110 §14.4). An empty range has no such form and becomes `bytes */N`.
#[must_use]
pub fn content_range(range: &Range<u64>, complete_length: u64) -> HeaderValue {
    if range.is_empty() {
        return unsatisfied(complete_length);
    }
    let mut text = Vec::with_capacity(48);
    text.extend_from_slice(b"bytes ");
    write_decimal(range.start, &mut text);
    text.push(b'-');
    write_decimal(range.end - 1, &mut text);
    text.push(b'/');
    write_decimal(complete_length, &mut text);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("bytes */0"))
}

/// `bytes */N`, for a 416.
#[must_use]
pub fn unsatisfied(complete_length: u64) -> HeaderValue {
    let mut text = b"bytes */".to_vec();
    write_decimal(complete_length, &mut text);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("bytes */0"))
}

/// A Content-Range of a 206: positions are inclusive, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte.
    pub first: u64,
    /// The last byte, inclusive.
    pub last: u64,
    /// `None` for `*`.
    pub complete: Option<u64>,
}

/// `bytes first-last/complete` with first <= last < complete; anything else, also `bytes */N`, is `None`.
#[must_use]
pub fn parse_content_range(value: &HeaderValue) -> Option<ContentRange> {
    let (unit, rest) = split_once(fields::trim(value.as_bytes()), b' ')?;
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let (range, complete) = split_once(fields::trim(rest), b'/')?;
    let (first, last) = split_once(range, b'-')?;
    let (first, last) = (exact(first)?, exact(last)?);
    let complete = if complete == b"*" { None } else { Some(exact(complete)?) };
    let fits = first <= last && last < complete.unwrap_or(u64::MAX);
    fits.then_some(ContentRange { first, last, complete })
}

/// The one Content-Range of a response.
#[must_use]
pub fn content_range_of(response: &HeaderMap) -> Option<ContentRange> {
    parse_content_range(fields::single(response, CONTENT_RANGE.as_str())?)
}

/// One `range-spec` (RFC 9110 §14.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spec {
    From(u64),
    /// First and last, inclusive.
    Closed(u64, u64),
    Suffix(u64),
}

impl Spec {
    /// The part of `0..length` that it selects, if it is satisfiable (RFC 9110 §14.1.2).
    pub(super) fn within(self, length: u64) -> Option<Range<u64>> {
        let range = match self {
            Spec::From(first) => first..length,
            Spec::Closed(first, last) => first..last.saturating_add(1).min(length),
            Spec::Suffix(suffix) => length.saturating_sub(suffix)..length,
        };
        (!range.is_empty()).then_some(range)
    }
}

/// The specs of a well-formed Range of bytes. One malformed spec makes the whole field ignored.
pub(super) fn specs(request: &HeaderMap) -> Option<Vec<Spec>> {
    let value = fields::single(request, RANGE.as_str())?.as_bytes();
    let (unit, set) = split_once(value, b'=')?;
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut specs = Vec::new();
    for element in fields::elements(set) {
        if specs.len() == MAX_SPECS {
            return None;
        }
        specs.push(spec(element)?);
    }
    (!specs.is_empty()).then_some(specs)
}

fn spec(element: &[u8]) -> Option<Spec> {
    let (first, last) = split_once(element, b'-')?;
    // A position beyond u64 is beyond any representation, so saturating keeps its meaning.
    match (first, last) {
        (b"", suffix) => fields::digits(suffix).map(Spec::Suffix),
        (first, b"") => fields::digits(first).map(Spec::From),
        (first, last) => {
            let (first, last) = (fields::digits(first)?, fields::digits(last)?);
            (first <= last).then_some(Spec::Closed(first, last))
        }
    }
}

fn coalesce(ranges: &mut Vec<Range<u64>>) {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, kept| {
        let joins = next.start <= kept.end;
        if joins {
            kept.end = kept.end.max(next.end);
        }
        joins
    });
}

/// A number that is really meant: a saturated one isn't.
fn exact(digits: &[u8]) -> Option<u64> {
    fields::digits(digits).filter(|&number| number < u64::MAX)
}

fn split_once(value: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = value.iter().position(|&b| b == separator)?;
    Some((&value[..at], &value[at + 1..]))
}

#[cfg(test)]
mod tests;
