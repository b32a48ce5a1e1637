//! Entity tags (RFC 9110 §8.8.3).
//!
//! Lists are parsed strictly. Origins that send sloppy tags (`abcdef`, `w/"x"`, `W"x"`) are met half-way: a value that is
//! byte for byte the stored one matches in the weak comparison, and nothing is ever rewritten or unquoted.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::fields;

/// A well-formed tag without `W/`: it names bytes.
#[must_use]
pub fn is_strong(tag: &[u8]) -> bool {
    tag_length(tag) == Some(tag.len()) && tag.first() == Some(&b'"')
}

/// RFC 9110 §8.8.3.2: both strong and equal.
#[must_use]
pub fn strong_eq(a: &[u8], b: &[u8]) -> bool {
    a == b && is_strong(a)
}

/// RFC 9110 §8.8.3.2: equal but for `W/`. Byte-identical values are equal, whatever they are.
#[must_use]
pub fn weak_eq(a: &[u8], b: &[u8]) -> bool {
    a == b || (is_tag(a) && is_tag(b) && opaque(a) == opaque(b))
}

/// Whether a list field (If-None-Match) has a member that equals one of `tags` weakly.
///
/// What is no entity tag is skipped up to the next comma. `*` is the caller's business: see [`is_any`].
#[must_use]
pub fn list_matches_weak(headers: &HeaderMap, name: &HeaderName, tags: &[&[u8]]) -> bool {
    list_matches(headers, name, |member| tags.iter().any(|tag| weak_eq(member, tag)))
        || fields::single(headers, name.as_str()).is_some_and(|whole| tags.contains(&whole.as_bytes()))
}

/// Whether a list field (If-Match) has a member that equals `tag` strongly.
#[must_use]
pub fn list_matches_strong(headers: &HeaderMap, name: &HeaderName, tag: &[u8]) -> bool {
    list_matches(headers, name, |member| strong_eq(member, tag))
}

/// Whether the field is `*`.
#[must_use]
pub fn is_any(headers: &HeaderMap, name: &HeaderName) -> bool {
    fields::single(headers, name.as_str()).is_some_and(|value| fields::trim(value.as_bytes()) == b"*")
}

/// The weak form of a tag; `None` for what is no entity tag.
#[must_use]
pub fn weaken(tag: &HeaderValue) -> Option<HeaderValue> {
    let bytes = tag.as_bytes();
    if !is_strong(bytes) {
        return is_tag(bytes).then(|| tag.clone());
    }
    HeaderValue::from_bytes(&[&b"W/"[..], bytes].concat()).ok()
}

/// The tag of an encoding of the same content: `"abc"` and `br-1f` make `"abc-br-1f"`. Only strong tags have one, and only
/// a suffix of letters, digits and `-` makes one.
#[must_use]
pub fn with_suffix(tag: &HeaderValue, suffix: &str) -> Option<HeaderValue> {
    let bytes = tag.as_bytes();
    if !is_strong(bytes) || !suffix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return None;
    }
    HeaderValue::from_bytes(&[&bytes[..bytes.len() - 1], &b"-"[..], suffix.as_bytes(), &b"\""[..]].concat())
        .ok()
}

/// Whether `tag` is one that [`with_suffix`] may have made of `base`, of whatever encoding: base, `-`, a coding, `-` and
/// eight hexadecimal digits.
#[must_use]
pub fn is_derived(tag: &[u8], base: &[u8]) -> bool {
    let stem = &base[..base.len().saturating_sub(1)];
    let suffix = is_strong(base)
        .then(|| opaque(tag).strip_prefix(stem)?.strip_prefix(b"-")?.strip_suffix(b"\""))
        .flatten();
    suffix.is_some_and(is_suffix)
}

/// The tag that `tag` was made of by [`with_suffix`] with the suffix of an encoding; `None`: by its looks, of none.
#[must_use]
pub fn without_suffix(tag: &[u8]) -> Option<Vec<u8>> {
    let inner = tag.strip_suffix(b"\"")?;
    // Two dashes from the end: the digits, then the coding.
    let mut dashes = inner.iter().enumerate().rev().filter(|(_, byte)| **byte == b'-').map(|(at, _)| at);
    let (_, at) = (dashes.next()?, dashes.next()?);
    is_suffix(&inner[at + 1..]).then(|| [&inner[..at], &b"\""[..]].concat())
}

/// A list of tags, each of which [`with_suffix`] may have made is what it was made of; `None`: none is.
#[must_use]
pub fn without_suffixes(list: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut rest, mut is_changed) = (Vec::with_capacity(list.len()), list, false);
    while let Some(byte) = rest.first() {
        let length = tag_length(rest).unwrap_or(1);
        match without_suffix(&rest[..length]).filter(|_| length > 1) {
            Some(tag) => {
                out.extend_from_slice(&tag);
                is_changed = true;
            }
            None if length > 1 => out.extend_from_slice(&rest[..length]),
            None => out.push(*byte),
        }
        rest = &rest[length..];
    }
    is_changed.then_some(out)
}

/// A coding, `-`, and eight lower-case hexadecimal digits.
fn is_suffix(suffix: &[u8]) -> bool {
    const CODINGS: [&[u8]; 6] = [b"identity", b"br", b"zstd", b"gzip", b"dcb", b"dcz"];
    let Some(at) = suffix.iter().position(|byte| *byte == b'-') else { return false };
    let (coding, digits) = (&suffix[..at], &suffix[at + 1..]);
    CODINGS.contains(&coding)
        && digits.len() == 8
        && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether If-None-Match (or another list) has a member that an encoding of what `base` names may have.
#[must_use]
pub fn list_matches_derived(headers: &HeaderMap, name: &HeaderName, base: &[u8]) -> bool {
    list_matches(headers, name, |member| is_derived(member, base))
}

fn is_tag(value: &[u8]) -> bool {
    tag_length(value) == Some(value.len())
}

fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The length of the entity tag at the beginning of `value`: `[ "W/" ] DQUOTE *etagc DQUOTE`.
fn tag_length(value: &[u8]) -> Option<usize> {
    let quoted = opaque(value);
    let [b'"', rest @ ..] = quoted else {
        return None;
    };
    let end = rest.iter().position(|&b| !matches!(b, 0x21 | 0x23..=0x7E | 0x80..))?;
    (rest[end] == b'"').then(|| value.len() - quoted.len() + end + 2)
}

fn list_matches(headers: &HeaderMap, name: &HeaderName, mut matches: impl FnMut(&[u8]) -> bool) -> bool {
    headers.get_all(name).iter().any(|line| {
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            rest = fields::trim(rest);
            let end = match tag_length(rest) {
                Some(length) => {
                    let after = fields::trim(&rest[length..]);
                    // A tag with something stuck to it is no member.
                    if after.first().is_none_or(|&b| b == b',') && matches(&rest[..length]) {
                        return true;
                    }
                    length
                }
                None => 0,
            };
            let comma = rest[end..].iter().position(|&b| b == b',');
            rest = comma.map_or(&[][..], |comma| &rest[end + comma + 1..]);
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use http::header::{IF_MATCH, IF_NONE_MATCH};
    use proptest::prelude::*;

    use super::*;

    fn none_match(lines: &[&str], tag: &str) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_NONE_MATCH, HeaderValue::from_str(line).unwrap());
        }
        list_matches_weak(&headers, &IF_NONE_MATCH, &[tag.as_bytes()])
    }

    #[test]
    fn comparison_as_in_the_table_of_rfc_9110() {
        for (a, b, strong, weak) in [
            (r#"W/"1""#, r#"W/"1""#, false, true),
            (r#"W/"1""#, r#"W/"2""#, false, false),
            (r#"W/"1""#, r#""1""#, false, true),
            (r#""1""#, r#""1""#, true, true),
        ] {
            assert_eq!(strong_eq(a.as_bytes(), b.as_bytes()), strong, "{a} {b}");
            assert_eq!(weak_eq(a.as_bytes(), b.as_bytes()), weak, "{a} {b}");
        }
    }

    #[test]
    fn any_position_of_a_list_matches() {
        for list in
            [r#""x""#, r#""a", "x""#, r#""a" ,"b",W/"x""#, r#" "x" , "z""#, r#""a,b", "x""#, r#"junk, "x""#]
        {
            assert!(none_match(&[list], r#""x""#), "{list}");
        }
        assert!(none_match(&[r#""a""#, r#""x""#], r#""x""#));
        assert!(none_match(&[r#""a,b""#], r#""a,b""#));
    }

    #[test]
    fn what_is_no_member_does_not_match() {
        for list in ["", "x", r#""x"#, r#""x"y"#, r#""a, "x"b"#, r#"w/"x""#, "*"] {
            assert!(!none_match(&[list], r#""x""#), "{list}");
        }
    }

    #[test]
    fn sloppy_tags_match_themselves_only() {
        for tag in ["abcdef", r#"w/"x""#, r#"W\"x""#, r#"W"x""#] {
            assert!(none_match(&[tag], tag), "{tag}");
            assert!(!none_match(&["other"], tag));
        }
        assert!(!none_match(&["abcdef"], r#""abcdef""#));
        assert!(!none_match(&[r#""abcdef""#], "abcdef"));
        let headers = HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_static("abcdef"))]);
        assert!(!list_matches_strong(&headers, &IF_MATCH, b"abcdef"));
    }

    #[test]
    fn derived_tags() {
        let strong = HeaderValue::from_static(r#""a""#);
        let weak = HeaderValue::from_static(r#"W/"a""#);
        assert_eq!(weaken(&strong).unwrap(), weak);
        assert_eq!(weaken(&weak).unwrap(), weak);
        assert_eq!(weaken(&HeaderValue::from_static("a")), None);
        assert_eq!(with_suffix(&strong, "br-0a1b").unwrap(), r#""a-br-0a1b""#);
        assert_eq!(with_suffix(&weak, "br"), None);
        assert_eq!(with_suffix(&strong, "b\"r"), None);
        let of = |suffix: &str| with_suffix(&strong, suffix).unwrap();
        for suffix in ["br-0123abcd", "zstd-ffffffff", "gzip-00000000", "identity-0a0a0a0a", "dcz-12345678"] {
            assert!(is_derived(of(suffix).as_bytes(), strong.as_bytes()), "{suffix}");
            assert_eq!(without_suffix(of(suffix).as_bytes()).unwrap(), strong.as_bytes());
            assert!(is_derived(&[b"W/", of(suffix).as_bytes()].concat(), strong.as_bytes()));
            assert!(!is_derived(of(suffix).as_bytes(), b"\"b\""));
            assert!(!is_derived(of(suffix).as_bytes(), weak.as_bytes()), "its encodings have its own tag");
        }
        for suffix in
            ["br-0123abc", "br-0123ABCD", "lz-0123abcd", "br", "br-0123abcd-br-0123abcd", "-0123abcd"]
        {
            assert!(!is_derived(of(suffix).as_bytes(), strong.as_bytes()), "{suffix}");
        }
        assert!(!is_derived(strong.as_bytes(), strong.as_bytes()));
        assert_eq!(without_suffix(strong.as_bytes()), None);
        let list = br#""a-br-0123abcd", W/"b-zstd-00000000" ,"c", "d,e-gzip-11111111",x"#;
        assert_eq!(without_suffixes(list).unwrap(), br#""a", W/"b" ,"c", "d,e",x"#);
        assert_eq!(without_suffixes(br#""a", *, "b-br""#), None);
    }

    proptest! {
        #[test]
        fn never_panics(a: Vec<u8>, b: Vec<u8>) {
            let _ = (strong_eq(&a, &b), is_strong(&a));
            prop_assert_eq!(weak_eq(&a, &b), weak_eq(&b, &a));
            prop_assert!(weak_eq(&a, &a));
            if let Ok(value) = HeaderValue::from_bytes(&a) {
                let headers = HeaderMap::from_iter([(IF_NONE_MATCH, value)]);
                let _ = list_matches_weak(&headers, &IF_NONE_MATCH, &[&b]);
            }
        }

        #[test]
        fn a_tag_is_found_among_others(tag in "[!#-~]{0,8}", before in "(\"[!#-~]{0,8}\" ?, ?){0,3}", after in "( ?, ?\"[!#-~]{0,8}\"){0,3}") {
            let tag = format!("\"{tag}\"");
            let list = format!("{before}{tag}{after}");
            prop_assert!(none_match(&[&list], &tag));
        }
    }
}
