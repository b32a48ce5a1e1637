//! Compression Dictionary Transport (RFC 9842): what the fields say.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

use super::fields;

/// RFC 9842 §2.1: a response may be used as a dictionary.
pub const USE_AS_DICTIONARY: HeaderName = HeaderName::from_static("use-as-dictionary");
/// RFC 9842 §2.2: the dictionary that a client has.
pub const AVAILABLE_DICTIONARY: HeaderName = HeaderName::from_static("available-dictionary");
/// RFC 9842 §2.3.
pub const DICTIONARY_ID: HeaderName = HeaderName::from_static("dictionary-id");

/// The SHA-256 of a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DictionaryHash(pub [u8; 32]);

impl DictionaryHash {
    /// In hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// The dictionary that a client says it has; `None`: none, several, or something else.
#[must_use]
pub fn available(request: &HeaderMap) -> Option<DictionaryHash> {
    let value = fields::single(request, AVAILABLE_DICTIONARY.as_str())?;
    let item = Parser::new(value.as_bytes()).parse::<Item>().ok()?;
    let BareItem::ByteSequence(bytes) = item.bare_item else { return None };
    bytes.try_into().ok().map(DictionaryHash)
}

/// Which URLs a response is a dictionary for, as a URL pattern; `None`: it is none, or of a type that nobody knows.
#[must_use]
pub fn matched(response: &HeaderMap) -> Option<String> {
    let value = fields::single(response, USE_AS_DICTIONARY.as_str())?;
    let members = Parser::new(value.as_bytes()).parse::<Dictionary>().ok()?;
    let item = |name: &str| match members.get(name) {
        Some(ListEntry::Item(item)) => Some(&item.bare_item),
        _ => None,
    };
    if members.contains_key("type")
        && !matches!(item("type"), Some(BareItem::Token(kind)) if kind.as_str() == "raw")
    {
        return None;
    }
    match item("match")? {
        BareItem::String(pattern) => Some(pattern.as_str().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn what_a_client_has() {
        let of = |value: &str| available(&with(AVAILABLE_DICTIONARY, value));
        // The example of RFC 9842 §2.2.
        let hash = of(":pZGm1Av0IEBKARczz7exkNYsZb8LzaMrV7J32a2fFG4=:").unwrap();
        assert_eq!(hash.to_hex(), "a591a6d40bf420404a011733cfb7b190d62c65bf0bcda32b57b277d9ad9f146e");
        for bad in ["", "::", ":pZGm:", "pZGm1Av0IEBKARczz7exkNYsZb8LzaMrV7J32a2fFG4=", "\"a\"", ":a", "1"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        let mut twice = with(AVAILABLE_DICTIONARY, ":pZGm1Av0IEBKARczz7exkNYsZb8LzaMrV7J32a2fFG4=:");
        twice.append(AVAILABLE_DICTIONARY, HeaderValue::from_static(":AAAA:"));
        assert_eq!(available(&twice), None);
        assert_eq!(available(&HeaderMap::new()), None);
    }

    #[test]
    fn what_may_be_a_dictionary() {
        let of = |value: &str| matched(&with(USE_AS_DICTIONARY, value));
        assert_eq!(of("match=\"/app/*/main.js\"").as_deref(), Some("/app/*/main.js"));
        let full = "id=\"d-1\", match=\"/a*\", match-dest=(\"script\" \"style\"), type=raw, x=?0";
        assert_eq!(of(full).as_deref(), Some("/a*"));
        for bad in [
            "",
            "match",
            "match=/a",
            "match=\"/a\", type=other",
            "match=\"/a\", type=\"raw\"",
            "&&",
            "id=\"a\"",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
