//! Tags: the names under which an origin lets its responses be purged together. They stand in fields of the origins' and
//! vendors' choice, and in Cache-Groups (RFC 9875 §2).

use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, ListEntry, Parser};

/// Tags of one response.
pub const MAX_TAGS: usize = 1000;
/// Their bytes together.
pub const MAX_TAG_BYTES: usize = 16 * 1024;

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// What stands between two tags of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// Spaces.
    Space,
    /// Commas; spaces around a tag do not count.
    Comma,
}

impl Separator {
    fn is(self, byte: u8) -> bool {
        match self {
            Separator::Space => byte.is_ascii_whitespace(),
            Separator::Comma => byte == b',',
        }
    }
}

/// Where a site's tags stand, `site.purge.tag_headers`, and whether clients see them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TagRule {
    /// Fields and their separators.
    pub fields: Vec<(HeaderName, Separator)>,
    /// Towards clients the fields are removed. Cache-Groups stays.
    pub strip: bool,
}

impl TagRule {
    /// The tags of a response, sorted, each once; as many as fit into [`MAX_TAGS`] and [`MAX_TAG_BYTES`].
    #[must_use]
    pub fn tags(&self, response: &HeaderMap) -> Box<[Box<str>]> {
        let mut tags = Vec::new();
        let mut bytes = 0;
        let mut add = |tag: &str| {
            let fits = tags.len() < MAX_TAGS && bytes + tag.len() <= MAX_TAG_BYTES;
            if fits && !tag.is_empty() {
                bytes += tag.len();
                tags.push(Box::from(tag));
            }
        };
        for (name, separator) in &self.fields {
            for line in response.get_all(name) {
                // A tag that is no text can't be named by any purge; those beside it can.
                let words = line.as_bytes().split(|byte| separator.is(*byte));
                words.filter_map(|tag| std::str::from_utf8(tag).ok()).map(str::trim).for_each(&mut add);
            }
        }
        for group in groups(response, &CACHE_GROUPS) {
            add(&group);
        }
        tags.sort_unstable();
        tags.dedup();
        tags.into_boxed_slice()
    }

    /// Whether a response says anything about tags.
    #[must_use]
    pub fn speaks(&self, response: &HeaderMap) -> bool {
        self.fields.iter().any(|(name, _)| response.contains_key(name))
            || response.contains_key(&CACHE_GROUPS)
    }

    /// Takes the fields out, if clients are not to see them.
    pub fn strip(&self, response: &mut HeaderMap) {
        if self.strip {
            for (name, _) in &self.fields {
                response.remove(name);
            }
        }
    }
}

/// The groups that the answer to an unsafe request invalidates (RFC 9875 §3).
#[must_use]
pub fn invalidated_groups(response: &HeaderMap) -> Vec<String> {
    groups(response, &CACHE_GROUP_INVALIDATION)
}

/// A List of Strings; anything else in it makes all of it void (RFC 9651 §4.2), other members are ignored.
fn groups(response: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines: Vec<&[u8]> = response.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let joined = lines.join(&b", "[..]);
    let Ok(list) = Parser::new(&joined).parse::<sfv::List>() else { return Vec::new() };
    let string = |entry: ListEntry| match entry {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(string) => Some(string.as_str().to_owned()),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    };
    list.into_iter().filter_map(string).take(MAX_TAGS).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule() -> TagRule {
        let fields = vec![
            (HeaderName::from_static("surrogate-key"), Separator::Space),
            (HeaderName::from_static("cache-tag"), Separator::Comma),
        ];
        TagRule { fields, strip: true }
    }

    fn response(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn each_field_has_its_separator_and_groups_are_strings() {
        let headers = response(&[
            ("surrogate-key", "b  a"),
            ("surrogate-key", "c,d"),
            ("cache-tag", " two words ,a,, "),
            ("cache-groups", "\"g 1\", \"g2\";x=1, token, (\"inner\")"),
        ]);
        let tags = rule().tags(&headers);
        assert_eq!(&*tags, ["a", "b", "c,d", "g 1", "g2", "two words"].map(Box::from));
        assert!(rule().speaks(&headers));
        assert!(!rule().speaks(&HeaderMap::new()));
    }

    #[test]
    fn a_tag_that_is_no_text_takes_no_other_along() {
        let mut headers = HeaderMap::new();
        headers.append("surrogate-key", HeaderValue::from_bytes(b"aa ab\tb c\xfc \xc3\xbc").unwrap());
        headers.append("cache-tag", HeaderValue::from_bytes(b"two words, \xff ,d").unwrap());
        assert_eq!(&*rule().tags(&headers), ["aa", "ab", "b", "d", "two words", "\u{fc}"].map(Box::from));
    }

    #[test]
    fn only_the_fields_are_hidden() {
        let mut headers = response(&[("surrogate-key", "a"), ("cache-groups", "\"g\""), ("etag", "\"1\"")]);
        rule().strip(&mut headers);
        assert_eq!(headers.len(), 2);
        TagRule { strip: false, ..rule() }.strip(&mut headers);
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn many_and_long_tags_are_bounded() {
        let many: Vec<String> = (0..3000).map(|n| n.to_string()).collect();
        assert_eq!(rule().tags(&response(&[("surrogate-key", &many.join(" "))])).len(), MAX_TAGS);
        let long = format!("{} short", "x".repeat(MAX_TAG_BYTES + 1));
        assert_eq!(&*rule().tags(&response(&[("surrogate-key", &long)])), ["short".into()]);
    }

    #[test]
    fn a_malformed_list_invalidates_nothing() {
        let of = |value| invalidated_groups(&response(&[("cache-group-invalidation", value)]));
        assert_eq!(of("\"a\", \"b\""), ["a", "b"]);
        assert!(of("\"a\", \"b").is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_values_never_panic(value in "[ -~]{0,80}") {
            for name in ["surrogate-key", "cache-tag", "cache-groups", "cache-group-invalidation"] {
                let headers = response(&[(name, &value)]);
                let tags = rule().tags(&headers);
                prop_assert!(tags.iter().all(|tag| !tag.is_empty()));
                let _ = invalidated_groups(&headers);
            }
        }
    }
}
