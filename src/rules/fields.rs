//! What the field parsers share: combined lines, list elements, tokens and digits (RFC 9110 §5).

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};

/// Optional whitespace: space and tab (RFC 9110 §5.6.3).
pub(super) const fn is_ows(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// `tchar` (RFC 9110 §5.6.2).
pub(super) const fn is_tchar(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || byte.is_ascii_alphanumeric()
}

pub(super) fn is_token(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|&b| is_tchar(b))
}

pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = value
        && is_ows(*first)
    {
        value = rest;
    }
    while let [rest @ .., last] = value
        && is_ows(*last)
    {
        value = rest;
    }
    value
}

/// All lines of a field joined with ", " (RFC 9110 §5.3); a single line is borrowed.
pub(super) fn combined<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?.as_bytes();
    let Some(second) = lines.next() else {
        return Some(Cow::Borrowed(first));
    };
    let mut all = first.to_vec();
    for line in std::iter::once(second).chain(lines) {
        all.extend_from_slice(b", ");
        all.extend_from_slice(line.as_bytes());
    }
    Some(Cow::Owned(all))
}

/// The field's value when it has exactly one line.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// `1*DIGIT`, saturating at `u64::MAX`.
pub(super) fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

/// The non-empty elements of a comma-separated list, trimmed.
///
/// A comma inside a quoted string does not separate. A quote opens a string only after `=`, and only when it is closed
/// again: otherwise one stray quote could hide a `no-store` that follows it.
pub(super) fn elements(value: &[u8]) -> Elements<'_> {
    Elements { rest: value, strings: true }
}

pub(super) struct Elements<'a> {
    rest: &'a [u8],
    /// False once a quote was found that nothing closes: no later one can be closed either.
    strings: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = self.element_end();
            let element = trim(&self.rest[..end]);
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !element.is_empty() {
                return Some(element);
            }
        }
        None
    }
}

impl Elements<'_> {
    fn element_end(&mut self) -> usize {
        let mut previous = 0;
        let mut at = 0;
        while let Some(&byte) = self.rest.get(at) {
            match byte {
                b',' => return at,
                b'"' if previous == b'=' && self.strings => {
                    if let Some(length) = quoted_length(&self.rest[at..]) {
                        at += length;
                        previous = b'"';
                        continue;
                    }
                    self.strings = false;
                }
                _ => {}
            }
            if !is_ows(byte) {
                previous = byte;
            }
            at += 1;
        }
        at
    }
}

/// The length, with both quotes, of the quoted-string that `value` begins with (RFC 9110 §5.6.4).
pub(super) fn quoted_length(value: &[u8]) -> Option<usize> {
    if value.first() != Some(&b'"') {
        return None;
    }
    let mut at = 1;
    loop {
        match value.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The content of a quoted-string that is the whole of `value`, without escapes.
pub(super) fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    if quoted_length(value)? != value.len() {
        return None;
    }
    let mut content = Vec::with_capacity(value.len());
    let mut bytes = value[1..value.len() - 1].iter();
    while let Some(&byte) = bytes.next() {
        let byte = if byte == b'\\' { *bytes.next()? } else { byte };
        content.push(byte);
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(value: &str) -> Vec<&str> {
        elements(value.as_bytes()).map(|e| std::str::from_utf8(e).unwrap()).collect()
    }

    #[test]
    fn empty_elements_and_whitespace_are_dropped() {
        assert_eq!(split(" , a ,,\tb\t, "), ["a", "b"]);
    }

    #[test]
    fn commas_in_a_closed_string_do_not_separate() {
        assert_eq!(split(r#"x="a, \", b", c"#), [r#"x="a, \", b""#, "c"]);
    }

    #[test]
    fn a_stray_quote_hides_nothing() {
        assert_eq!(split(r#"x="a, no-store"#), [r#"x="a"#, "no-store"]);
        assert_eq!(split(r#"x"a, no-store, b""#), [r#"x"a"#, "no-store", r#"b""#]);
    }

    #[test]
    fn numbers_saturate() {
        assert_eq!(digits(b"003600"), Some(3600));
        assert_eq!(digits(b"99999999999999999999999"), Some(u64::MAX));
        assert_eq!(digits(b""), None);
        assert_eq!(digits(b"-1"), None);
    }

    #[test]
    fn strings_lose_their_escapes() {
        assert_eq!(unquote(br#""a\"b""#).as_deref(), Some(&br#"a"b"#[..]));
        assert_eq!(unquote(br#""a"b"#), None);
        assert_eq!(unquote(br#""a\"#), None);
    }
}
