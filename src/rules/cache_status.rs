//! Cache-Status (RFC 9211).
//!
//! Written by hand, not with a serializer, because every hit carries one; a property test reads it back with `sfv`.

use super::structured::{write_decimal, write_integer, write_string, write_token_or_string};

/// Why a request went forward (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fwd {
    /// Configured not to handle this request.
    Bypass,
    /// The method asks for it.
    Method,
    /// Nothing stored for the URL.
    UriMiss,
    /// Stored for the URL, but no variant fits.
    VaryMiss,
    /// A miss, and which kind is not known.
    Miss,
    /// The request's directives ask for it.
    Request,
    /// Stored, and stale.
    Stale,
    /// Stored, but not all of the range.
    Partial,
}

impl Fwd {
    /// As in RFC 9211.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Fwd::Bypass => "bypass",
            Fwd::Method => "method",
            Fwd::UriMiss => "uri-miss",
            Fwd::VaryMiss => "vary-miss",
            Fwd::Miss => "miss",
            Fwd::Request => "request",
            Fwd::Stale => "stale",
            Fwd::Partial => "partial",
        }
    }
}

/// What only those see who may: the parameters of a member, to be appended to it.
pub fn write_debug(key: &str, rule: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"; key=");
    write_string(key, out);
    out.extend_from_slice(b"; rule=");
    write_string(rule, out);
}

/// One cache's handling of one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheStatus<'a> {
    /// Excludes `fwd` (RFC 9211 §2.2), which is then not written.
    pub hit: bool,
    /// Why it went forward.
    pub fwd: Option<Fwd>,
    /// What the origin answered.
    pub fwd_status: Option<u16>,
    /// Seconds of freshness left; negative when stale.
    pub ttl: Option<i64>,
    /// The answer was stored.
    pub stored: bool,
    /// It waited for another request's answer.
    pub collapsed: bool,
    /// Of the stored response; for those who may see it.
    pub key: Option<&'a str>,
    /// A word or two of our own.
    pub detail: Option<&'a str>,
}

impl CacheStatus<'_> {
    /// Appends a list member of valid structured-field syntax.
    pub fn write(&self, node: &str, out: &mut Vec<u8>) {
        write_token_or_string(node, out);
        if self.hit {
            out.extend_from_slice(b"; hit");
        } else if let Some(fwd) = self.fwd {
            out.extend_from_slice(b"; fwd=");
            out.extend_from_slice(fwd.as_str().as_bytes());
        }
        if let Some(status) = self.fwd_status {
            out.extend_from_slice(b"; fwd-status=");
            write_decimal(u64::from(status), out);
        }
        if let Some(ttl) = self.ttl {
            out.extend_from_slice(b"; ttl=");
            write_integer(ttl, out);
        }
        if self.stored {
            out.extend_from_slice(b"; stored");
        }
        if self.collapsed {
            out.extend_from_slice(b"; collapsed");
        }
        if let Some(key) = self.key {
            out.extend_from_slice(b"; key=");
            write_string(key, out);
        }
        if let Some(detail) = self.detail {
            out.extend_from_slice(b"; detail=");
            write_token_or_string(detail, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sfv::{FieldType, List, ListEntry, Parser};

    use super::*;

    fn text(status: &CacheStatus<'_>, node: &str) -> String {
        let mut out = Vec::new();
        status.write(node, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_examples_of_the_contract() {
        let hit =
            CacheStatus { hit: true, ttl: Some(3541), detail: Some("memory"), ..CacheStatus::default() };
        assert_eq!(text(&hit, "larder"), "larder; hit; ttl=3541; detail=memory");
        let miss = CacheStatus {
            fwd: Some(Fwd::UriMiss),
            fwd_status: Some(200),
            stored: true,
            collapsed: true,
            ..CacheStatus::default()
        };
        assert_eq!(text(&miss, "larder"), "larder; fwd=uri-miss; fwd-status=200; stored; collapsed");
    }

    #[test]
    fn what_is_no_token_becomes_a_string() {
        let status = CacheStatus { detail: Some("a \"b\""), ..CacheStatus::default() };
        assert_eq!(text(&status, "1 node"), r#""1 node"; detail="a \"b\"""#);
    }

    proptest! {
        #[test]
        fn sfv_reads_it_back(node: String, ttl: i64, hit: bool, status: u16, key: String, detail: String) {
            let written = text(&CacheStatus {
                hit, fwd: Some(Fwd::Stale), fwd_status: Some(status), ttl: Some(ttl),
                stored: true, collapsed: true, key: Some(&key), detail: Some(&detail),
            }, &node);
            let list: List = Parser::new(&written).parse().unwrap();
            prop_assert_eq!(list.len(), 1);
            let ListEntry::Item(item) = &list[0] else { panic!("an item") };
            prop_assert_eq!(item.params.contains_key("hit"), hit);
            prop_assert_eq!(item.params.contains_key("fwd"), !hit);
            prop_assert!(item.params["key"].as_string().is_some());
            prop_assert!(list.serialize().is_some());
        }
    }
}
