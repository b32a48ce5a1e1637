//! Vary and the secondary cache key (RFC 9111 §4.1, RFC 9110 §12.5.5).

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{encoding, fields};

/// The names of a Vary field: lower-case, sorted, each once; may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct VaryRule(Box<[HeaderName]>);

/// The canonical values of the listed request fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VariantKey(Box<[u8]>);

/// What a Vary field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vary {
    /// `*` among the members, or one that can't be a field name: matches no request.
    Any,
    /// The request fields that select among variants.
    Fields(VaryRule),
}

/// Reads all Vary lines of a response.
#[must_use]
pub fn parse(headers: &HeaderMap) -> Vary {
    let mut names = Vec::new();
    for line in headers.get_all(header::VARY) {
        for element in fields::elements(line.as_bytes()) {
            match HeaderName::from_bytes(element) {
                Ok(name) if element != b"*" => names.push(name),
                _ => return Vary::Any,
            }
        }
    }
    Vary::Fields(VaryRule::new(names))
}

impl VaryRule {
    /// Sorts the names and drops duplicates.
    #[must_use]
    pub fn new(mut names: Vec<HeaderName>) -> Self {
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        VaryRule(names.into_boxed_slice())
    }

    /// No field selects: there is one variant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, sorted.
    #[must_use]
    pub fn names(&self) -> &[HeaderName] {
        &self.0
    }

    /// The request's variant. Absent differs from empty; whitespace around commas and the split into lines do not count.
    #[must_use]
    pub fn key(&self, request: &HeaderMap) -> VariantKey {
        let mut key = Vec::new();
        self.write_key(request, &mut key);
        VariantKey(key.into_boxed_slice())
    }

    /// Appends the bytes of [`VaryRule::key`]; a hit compares them in a buffer that it keeps.
    ///
    /// For each name: `0` when the field is absent, else `1`, the length as four bytes, and the canonical value. So no value
    /// can imitate another field's.
    pub fn write_key(&self, request: &HeaderMap, out: &mut Vec<u8>) {
        for name in &self.0 {
            write_field(name, request, out);
        }
    }

    /// Whether a request has the values of a variant in all listed fields but this one, which is listed too.
    #[must_use]
    pub fn matches_but_for(&self, ignored: &HeaderName, request: &HeaderMap, variant: &VariantKey) -> bool {
        let mut stored = variant.as_bytes();
        let mut value = Vec::new();
        for name in &self.0 {
            let Some((field, rest)) = split_frame(stored) else { return false };
            stored = rest;
            value.clear();
            write_field(name, request, &mut value);
            if name != ignored && value != field {
                return false;
            }
        }
        stored.is_empty() && self.0.contains(ignored)
    }
}

impl VariantKey {
    /// The encoding that [`VaryRule::write_key`] describes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From bytes that [`VariantKey::as_bytes`] gave, for a store that reads them back.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        VariantKey(bytes.into())
    }
}

fn write_field(name: &HeaderName, request: &HeaderMap, out: &mut Vec<u8>) {
    if name == header::ACCEPT_ENCODING {
        match encoding::normalize(request) {
            Some(codings) => frame(out, |out| out.extend_from_slice(codings.as_bytes())),
            None => out.push(0),
        }
        return;
    }
    let lines = request.get_all(name);
    if lines.iter().next().is_none() {
        out.push(0);
        return;
    }
    let lower_case = name == header::ACCEPT_LANGUAGE;
    frame(out, |out| {
        let start = out.len();
        write_canonical(lines.iter(), out);
        if lower_case {
            out[start..].make_ascii_lowercase();
        }
    });
}

/// The first field of a key, with its frame, and the others.
fn split_frame(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = match key {
        [0, ..] => 1,
        [1, a, b, c, d, ..] => 5 + u32::from_le_bytes([*a, *b, *c, *d]) as usize,
        _ => return None,
    };
    key.split_at_checked(length)
}

fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(1);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Lines joined by commas, without whitespace around commas. Strings stay as they are; empty elements too, since the field
/// need not be a list.
fn write_canonical<'a>(lines: impl Iterator<Item = &'a HeaderValue>, out: &mut Vec<u8>) {
    for (index, line) in lines.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_line(line.as_bytes(), out);
    }
}

fn write_line(line: &[u8], out: &mut Vec<u8>) {
    let mut rest = fields::trim(line);
    while let Some(&byte) = rest.first() {
        match byte {
            b'"' => {
                // Without an end the string is the whole rest: nothing in it is touched.
                let length = fields::quoted_length(rest).unwrap_or(rest.len()).min(rest.len());
                out.extend_from_slice(&rest[..length]);
                rest = &rest[length..];
            }
            b' ' | b'\t' => {
                let after = fields::trim(rest);
                let skipped = rest.len() - after.len();
                // `rest` was trimmed at its end, so what trim removed stood in front.
                if after.first() != Some(&b',') {
                    out.extend_from_slice(&rest[..skipped]);
                }
                rest = after;
            }
            b',' => {
                out.push(b',');
                rest = fields::trim(&rest[1..]);
            }
            _ => {
                out.push(byte);
                rest = &rest[1..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name.clone(), HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn rule(lines: &[&str]) -> VaryRule {
        match parse(&map(&header::VARY, lines)) {
            Vary::Fields(rule) => rule,
            Vary::Any => panic!("a star"),
        }
    }

    #[test]
    fn a_star_anywhere_matches_nothing() {
        for lines in [
            &["*"][..],
            &["*, *"],
            &["*", "*"],
            &[", *"],
            &["", "*"],
            &["*, Foo"],
            &["Foo, *"],
            &["Foo", "*"],
            &["a b"],
        ] {
            assert_eq!(parse(&map(&header::VARY, lines)), Vary::Any, "{lines:?}");
        }
    }

    #[test]
    fn names_are_a_set() {
        assert_eq!(rule(&["Foo, BAR", "foo", ","]).names(), ["bar", "foo"]);
        assert!(rule(&[]).is_empty());
        assert!(rule(&["", ", ,"]).is_empty());
        assert_eq!(rule(&["a, b"]), rule(&["B", "A"]));
    }

    #[test]
    fn absent_is_not_empty() {
        let rule = rule(&["foo"]);
        let foo = HeaderName::from_static("foo");
        assert_eq!(rule.key(&HeaderMap::new()), rule.key(&HeaderMap::new()));
        assert_ne!(rule.key(&HeaderMap::new()), rule.key(&map(&foo, &[""])));
        assert_ne!(rule.key(&map(&foo, &["1"])), rule.key(&map(&foo, &["2"])));
    }

    #[test]
    fn whitespace_around_commas_and_lines_do_not_count() {
        let rule = rule(&["foo"]);
        let key = |lines: &[&str]| rule.key(&map(&HeaderName::from_static("foo"), lines));
        assert_eq!(key(&["1,2"]), key(&[" 1 ,\t2 "]));
        assert_eq!(key(&["1", "2"]), key(&["1, 2"]));
        assert_ne!(key(&["1 2"]), key(&["12"]));
        assert_ne!(key(&["1,,2"]), key(&["1,2"]));
        assert_ne!(key(&[r#""a, b""#]), key(&[r#""a,b""#]));
        assert_ne!(key(&["A"]), key(&["a"]));
    }

    #[test]
    fn languages_ignore_case_but_keep_their_order() {
        let rule = rule(&["Accept-Language"]);
        let key = |value: &str| rule.key(&map(&header::ACCEPT_LANGUAGE, &[value]));
        assert_eq!(key("EN, de"), key("en,DE"));
        assert_ne!(key("en, de"), key("de, en"));
    }

    #[test]
    fn encodings_are_what_the_client_can_take() {
        let rule = rule(&["Accept-Encoding"]);
        let key = |value: &str| rule.key(&map(&header::ACCEPT_ENCODING, &[value]));
        assert_eq!(key("gzip, deflate, br"), key("br;q=0.9, gzip"));
        assert_eq!(key("deflate"), rule.key(&HeaderMap::new()));
        assert_ne!(key("gzip"), key("br"));
    }

    #[test]
    fn a_variant_matches_but_for_one_field() {
        let rule = rule(&["Accept-Language, Foo, Zoo"]);
        let request = |language: &'static str, foo: &'static str| -> HeaderMap {
            [(header::ACCEPT_LANGUAGE, language), (HeaderName::from_static("foo"), foo)]
                .map(|(name, value)| (name, HeaderValue::from_static(value)))
                .into_iter()
                .collect()
        };
        let stored = rule.key(&request("en, de", "1"));
        let matches = |request: &HeaderMap, variant: &VariantKey| {
            rule.matches_but_for(&header::ACCEPT_LANGUAGE, request, variant)
        };
        assert!(matches(&request("fr", "1"), &stored));
        assert!(!matches(&request("en, de", "2"), &stored));
        assert!(!matches(&HeaderMap::new(), &stored));
        assert!(!rule.matches_but_for(&header::ACCEPT, &request("en, de", "1"), &stored), "it is not listed");
        for broken in [&b""[..], &[0], &[1, 9, 0, 0, 0], &[2], &[0, 0, 0, 0]] {
            assert!(!matches(&HeaderMap::new(), &VariantKey::from_bytes(broken)), "{broken:?}");
        }
        assert!(matches(&HeaderMap::new(), &VariantKey::from_bytes(&[0, 0, 0])));
    }

    #[test]
    fn unlisted_fields_do_not_count_and_values_stay_in_their_field() {
        let two = rule(&["a, b"]);
        let request = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
        };
        assert_eq!(two.key(&request(&[("a", "1"), ("c", "2")])), two.key(&request(&[("a", "1")])));
        assert_ne!(two.key(&request(&[("a", "1")])), two.key(&request(&[("b", "1")])));
    }

    proptest! {
        #[test]
        fn canonical_values_are_stable(value in "[ -~\t]{0,40}") {
            let foo = HeaderName::from_static("foo");
            let mut once = Vec::new();
            write_canonical([&HeaderValue::from_str(&value).unwrap()].into_iter(), &mut once);
            let mut twice = Vec::new();
            write_canonical([&HeaderValue::from_bytes(&once).unwrap()].into_iter(), &mut twice);
            prop_assert_eq!(&once, &twice);
            let rule = VaryRule::new(vec![foo.clone()]);
            let key = rule.key(&map(&foo, &[&value]));
            prop_assert_eq!(VariantKey::from_bytes(key.as_bytes()), key);
        }
    }
}
