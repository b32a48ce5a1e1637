//! What a purge names, and the whole request.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::rules::key::{BadTarget, Scheme, normalize_host, normalize_path};

/// Tags are compared byte by byte; longer ones are refused.
pub const MAX_TAG_BYTES: usize = 1024;
/// Selectors of one purge.
pub const MAX_SELECTORS: usize = 100_000;
/// All strings of one purge.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;

/// What one entry of a purge names. Hosts and paths are those of the cache key (the constructors normalise them), so a URL
/// means all its variants; the scheme does not count. A URL or a prefix with an empty host is meant on every host.
///
/// `S` is the kind of string: owned everywhere but where the log is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selector<S = Box<str>> {
    /// One URL. `query: None` is the URL without one, not the URL with any.
    Url {
        /// As the cache key has it.
        host: S,
        /// As the cache key has it.
        path: S,
        /// After the site's query rule.
        query: Option<S>,
    },
    /// Whole segments: `/a` covers `/a`, `/a?x` and `/a/b`, not `/ab`. One slash at the end does not count: `/a/` is `/a`,
    /// `/` and nothing are the whole host.
    Prefix {
        /// As the cache key has it.
        host: S,
        /// As the cache key has it.
        path: S,
    },
    /// Everything with this tag.
    Tag(S),
    /// Everything of a host.
    Host(S),
    /// Everything; with a [`Request::site`] everything of that site.
    All,
}

/// Why something can't be purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSelector {
    /// Of a URL, a prefix or a host.
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// A tag of nothing.
    #[error("the tag is empty")]
    EmptyTag,
    /// More than [`MAX_TAG_BYTES`].
    #[error("the tag has more than {MAX_TAG_BYTES} bytes")]
    LongTag,
}

impl Selector {
    /// A URL, from its parts as they were written; the query is what the site's rule left of it.
    pub fn url(
        scheme: Scheme,
        authority: &str,
        path: &str,
        query: Option<&str>,
    ) -> Result<Self, BadSelector> {
        let (host, path) = (normalize_host(authority, scheme)?.into(), normalize_path(path)?.into());
        Ok(Self::Url { host, path, query: query.map(Into::into) })
    }

    /// A prefix, from its parts as they were written. The scheme says which port need not be named.
    pub fn prefix(scheme: Scheme, authority: &str, path: &str) -> Result<Self, BadSelector> {
        let (host, path) = (normalize_host(authority, scheme)?.into(), normalize_path(path)?.into());
        Ok(Self::Prefix { host, path })
    }

    /// The same path, and query after the site's rule, on every host.
    pub fn url_of_every_host(path: &str, query: Option<&str>) -> Result<Self, BadSelector> {
        Ok(Self::Url { host: "".into(), path: normalize_path(path)?.into(), query: query.map(Into::into) })
    }

    /// A prefix of the path on every host.
    pub fn prefix_of_every_host(path: &str) -> Result<Self, BadSelector> {
        Ok(Self::Prefix { host: "".into(), path: normalize_path(path)?.into() })
    }

    /// A host, as it was written.
    pub fn host(scheme: Scheme, authority: &str) -> Result<Self, BadSelector> {
        Ok(Self::Host(normalize_host(authority, scheme)?.into()))
    }

    /// A tag.
    pub fn tag(tag: &str) -> Result<Self, BadSelector> {
        match tag.len() {
            0 => Err(BadSelector::EmptyTag),
            1..=MAX_TAG_BYTES => Ok(Self::Tag(tag.into())),
            _ => Err(BadSelector::LongTag),
        }
    }
}

impl<S: AsRef<str>> Selector<S> {
    /// How metrics and people call it; `All` of a site is `site`.
    pub fn kind(&self, is_of_site: bool) -> &'static str {
        match self {
            Self::Url { .. } => "url",
            Self::Prefix { .. } => "prefix",
            Self::Tag(_) => "tag",
            Self::Host(_) => "host",
            Self::All if is_of_site => "site",
            Self::All => "all",
        }
    }

    /// Whether it is a URL or a prefix on whatever host.
    pub(super) fn is_of_every_host(&self) -> bool {
        matches!(self, Self::Url { host, .. } | Self::Prefix { host, .. } if host.as_ref().is_empty())
    }

    fn bytes(&self) -> usize {
        let length = |text: &S| text.as_ref().len();
        match self {
            Self::Url { host, path, query } => length(host) + length(path) + query.as_ref().map_or(0, length),
            Self::Prefix { host, path } => length(host) + length(path),
            Self::Tag(text) | Self::Host(text) => length(text),
            Self::All => 0,
        }
    }
}

/// How a purge came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Source {
    /// `POST /v1/purges`.
    Api,
    /// What Fastly's clients send.
    Fastly,
    /// What Cloudflare's clients send.
    Cloudflare,
    /// What Varnish's clients send.
    Varnish,
    /// What nginx's clients send.
    Nginx,
    /// `larder purge`.
    Cli,
    /// An origin's Cache-Group-Invalidation (RFC 9875).
    Origin,
}

impl Source {
    pub(super) const ALL: [Self; 7] =
        [Self::Api, Self::Fastly, Self::Cloudflare, Self::Varnish, Self::Nginx, Self::Cli, Self::Origin];

    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Fastly => "fastly",
            Self::Cloudflare => "cloudflare",
            Self::Varnish => "varnish",
            Self::Nginx => "nginx",
            Self::Cli => "cli",
            Self::Origin => "origin",
        }
    }
}

/// A purge as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<S = Box<str>> {
    /// Restricts every selector to objects of this site.
    pub site: Option<S>,
    /// What goes: their union.
    pub selectors: Vec<Selector<S>>,
    /// Stale, not gone.
    pub soft: bool,
    /// Why, for people.
    pub note: Option<S>,
    /// The token's name, or `cidr`.
    pub who: S,
    /// The client's address.
    pub from: Option<IpAddr>,
    /// How it came in.
    pub source: Source,
}

/// Why a request is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Nothing to purge.
    #[error("the purge names nothing")]
    NoSelector,
    /// More than [`MAX_SELECTORS`].
    #[error("the purge has more than {MAX_SELECTORS} entries")]
    ManySelectors,
    /// More than [`MAX_REQUEST_BYTES`].
    #[error("the purge has more than {MAX_REQUEST_BYTES} bytes")]
    Long,
    /// A tag of more than [`MAX_TAG_BYTES`].
    #[error(transparent)]
    Selector(#[from] BadSelector),
}

impl Request {
    /// What it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
        let selectors: usize =
            self.selectors.iter().map(|selector| size_of::<Selector>() + selector.bytes()).sum();
        size_of::<Self>() + text(&self.site) + text(&self.note) + self.who.len() + selectors
    }

    /// Whether it can be logged, and what it takes in memory.
    pub(super) fn check(&self) -> Result<usize, BadRequest> {
        if self.selectors.is_empty() {
            return Err(BadRequest::NoSelector);
        }
        if self.selectors.len() > MAX_SELECTORS {
            return Err(BadRequest::ManySelectors);
        }
        if self.selectors.iter().any(|s| matches!(s, Selector::Tag(tag) if tag.len() > MAX_TAG_BYTES)) {
            return Err(BadSelector::LongTag.into());
        }
        let bytes = self.bytes();
        if bytes > MAX_REQUEST_BYTES { Err(BadRequest::Long) } else { Ok(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_normalised_as_the_cache_key_is() {
        let url = Selector::url(Scheme::Https, "A.Example.:443", "/x/../%7ea", Some("b=1")).unwrap();
        let wanted =
            Selector::Url { host: "a.example".into(), path: "/~a".into(), query: Some("b=1".into()) };
        assert_eq!(url, wanted);
        let prefix = Selector::prefix(Scheme::Http, "A:80", "").unwrap();
        assert_eq!(prefix, Selector::Prefix { host: "a".into(), path: "/".into() });
        assert_eq!(Selector::host(Scheme::Https, "A:8443").unwrap(), Selector::Host("a:8443".into()));
    }

    #[test]
    fn what_names_nothing_is_refused() {
        assert_eq!(Selector::host(Scheme::Https, "a/b"), Err(BadSelector::Target(BadTarget::Host)));
        assert_eq!(
            Selector::prefix(Scheme::Https, "a", "/b?c"),
            Err(BadSelector::Target(BadTarget::PathCharacter))
        );
        assert_eq!(Selector::tag(""), Err(BadSelector::EmptyTag));
        assert_eq!(Selector::tag(&"t".repeat(MAX_TAG_BYTES + 1)), Err(BadSelector::LongTag));
        assert!(Selector::tag(&"t".repeat(MAX_TAG_BYTES)).is_ok());
    }

    #[test]
    fn requests_are_bounded() {
        let request = |selectors: Vec<Selector>| Request {
            site: None,
            selectors,
            soft: false,
            note: None,
            who: "test".into(),
            from: None,
            source: Source::Api,
        };
        assert_eq!(request(vec![]).check(), Err(BadRequest::NoSelector));
        assert_eq!(request(vec![Selector::All; MAX_SELECTORS + 1]).check(), Err(BadRequest::ManySelectors));
        let tag = |bytes| Selector::Tag("t".repeat(bytes).into());
        assert!(request(vec![tag(10); 10_000]).check().is_ok());
        assert_eq!(request(vec![tag(2000)]).check(), Err(BadSelector::LongTag.into()));
        assert_eq!(request(vec![tag(1000); 20_000]).check(), Err(BadRequest::Long));
    }
}
