//! Selectors and objects as 64-bit hashes.
//!
//! Two selectors that collide purge each other's objects too: too much, never too little, and with a million selectors
//! once in some 10¹³ lookups. The hash has a secret, so that nobody can look for collisions.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

use super::selector::Selector;

/// What a key was made of; a table has keys of all classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    All,
    Host,
    Url,
    Prefix,
    Tag,
    /// URLs and prefixes of every host: their keys are those of URLs and prefixes without a host.
    AnyHost,
}

impl Class {
    pub(super) const COUNT: usize = 6;
}

/// The secret.
#[derive(Debug, Default)]
pub(super) struct Keys(RandomState);

/// A selector as the matcher keeps it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelectorKey {
    pub(super) class: Class,
    pub(super) key: u64,
    /// Of a prefix, in segments.
    pub(super) depth: usize,
}

impl Keys {
    pub(super) fn selector<S: AsRef<str>>(&self, selector: &Selector<S>, site: Option<&str>) -> SelectorKey {
        let mut depth = 0;
        let (class, hash) = match selector {
            Selector::All => (Class::All, self.all()),
            Selector::Tag(tag) => (Class::Tag, self.text(tag.as_ref())),
            Selector::Host(host) => (Class::Host, self.target(host.as_ref()).hash()),
            Selector::Url { host, path, query } => {
                let mut target = self.target(host.as_ref());
                segments(path.as_ref()).for_each(|segment| target.push(segment));
                (Class::Url, target.with_query(query.as_ref().map(AsRef::as_ref)))
            }
            Selector::Prefix { host, path } => {
                let (mut target, path) = (self.target(host.as_ref()), path.as_ref());
                for segment in segments(path.strip_suffix('/').unwrap_or(path)) {
                    target.push(segment);
                    depth += 1;
                }
                match depth {
                    0 if host.as_ref().is_empty() => (Class::All, self.all()),
                    0 => (Class::Host, target.hash()),
                    _ => (Class::Prefix, target.hash()),
                }
            }
        };
        let key = key(class, hash, site.map(|site| self.text(site)));
        // A prefix that is everything is behind the gate of everything.
        let is_any_host = class != Class::All && selector.is_of_every_host();
        SelectorKey { class: if is_any_host { Class::AnyHost } else { class }, key, depth }
    }

    pub(super) fn all(&self) -> u64 {
        self.0.build_hasher().finish()
    }

    /// Of a tag or a site.
    pub(super) fn text(&self, text: &str) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(text.as_bytes());
        hasher.finish()
    }

    /// A URL, which goes on with its path's [`segments`].
    pub(super) fn target(&self, host: &str) -> Target {
        let mut hasher = self.0.build_hasher();
        hasher.write(host.as_bytes());
        Target(hasher)
    }
}

/// What a table has a selector under.
#[inline]
pub(super) fn key(class: Class, hash: u64, site: Option<u64>) -> u64 {
    let key = mix(hash ^ (class as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    site.map_or(key, |site| mix(key.rotate_left(32) ^ site))
}

/// The last step of `MurmurHash3`: one to one, so it adds no collisions.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// The hash of a URL while it is read from the left.
pub(super) struct Target(DefaultHasher);

impl Target {
    pub(super) fn push(&mut self, segment: &[u8]) {
        // A host has no slash, a segment begins with one: they can't run into one another.
        self.0.write(segment);
    }

    /// Of what was read so far.
    pub(super) fn hash(&self) -> u64 {
        self.0.finish()
    }

    /// Of the whole URL.
    pub(super) fn with_query(mut self, query: Option<&str>) -> u64 {
        if let Some(query) = query {
            self.0.write(b"?");
            self.0.write(query.as_bytes());
        }
        self.0.finish()
    }
}

/// `/a//b` is `/a`, `/`, `/b`.
pub(super) fn segments(path: &str) -> impl Iterator<Item = &[u8]> {
    let mut rest = path.as_bytes();
    std::iter::from_fn(move || {
        let inner = rest.get(1..)?;
        let end = inner.iter().position(|byte| *byte == b'/').map_or(rest.len(), |at| at + 1);
        let (segment, after) = rest.split_at(end);
        rest = after;
        Some(segment)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fall_into_segments() {
        let list = |path| segments(path).map(|s| str::from_utf8(s).unwrap()).collect::<Vec<_>>();
        assert_eq!(list("/a//b"), ["/a", "/", "/b"]);
        assert_eq!(list("/a/"), ["/a", "/"]);
        assert_eq!(list("/"), ["/"]);
        assert_eq!(list("é/é"), ["é", "/é"]);
        assert!(list("").is_empty());
    }

    #[test]
    fn what_means_the_same_has_one_key_and_nothing_else() {
        let keys = Keys::default();
        let prefix = |path| Selector::Prefix { host: "h", path };
        let of = |selector: Selector<&str>, site| keys.selector(&selector, site).key;
        assert_eq!(of(prefix("/a"), None), of(prefix("/a/"), None));
        assert_eq!(of(prefix(""), None), of(Selector::Host("h"), None));
        assert_eq!(of(prefix("/"), None), of(Selector::Host("h"), None));
        let url = |path, query| Selector::Url { host: "h", path, query };
        let different = [
            of(prefix("/a"), None),
            of(prefix("/a"), Some("s")),
            of(prefix("/a"), Some("t")),
            of(prefix("/a//"), None),
            of(Selector::Host("h"), None),
            of(Selector::Host("h"), Some("s")),
            of(Selector::Tag("h"), None),
            of(Selector::Tag(""), None),
            of(Selector::All, None),
            of(Selector::All, Some("s")),
            of(url("/a", None), None),
            of(url("/a", Some("")), None),
            of(url("/a", Some("x")), None),
            of(url("/a/", None), None),
        ];
        let distinct: std::collections::HashSet<_> = different.iter().collect();
        assert_eq!(distinct.len(), different.len());
    }
}
