//! The primary cache key: scheme, host, path and query, normalised once (RFC 9111 §2; RFC 3986 §6; RFC 9110 §4.2.3).
//!
//! What is normalised away is what the origin never gets to see, because it is sent the normalised URL. So two URLs that an
//! origin may answer differently have different keys, and equivalent ones share one.

use std::fmt;

pub use super::{
    host::normalize_host,
    path::normalize_path,
    query::{QueryMode, QueryRule, filter_query},
};

/// The scheme of a target; part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// In lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that a URL need not name.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// Why a request's target has no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Of a path.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// Control characters, spaces, `?` and `#`.
    #[error("the path has a character that no path may have")]
    PathCharacter,
    /// Nothing, or nothing but a dot or a port.
    #[error("the host is empty")]
    EmptyHost,
    /// RFC 9110 §4.2.4 has recipients treat it as an error.
    #[error("the host has a user name or password")]
    UserInfo,
    /// A character, a label or an address.
    #[error("the host is no host name or address")]
    Host,
    /// Not 1 to 65535.
    #[error("the port is no port number")]
    Port,
}

/// 128 bits of the BLAKE3 of a canonical URL.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyHash(pub u128);

impl KeyHash {
    /// Of what [`CacheKey::canonical`] gives.
    #[must_use]
    pub fn of(canonical: &str) -> Self {
        let hash = blake3::hash(canonical.as_bytes());
        let mut half = [0_u8; 16];
        half.copy_from_slice(&hash.as_bytes()[..16]);
        KeyHash(u128::from_le_bytes(half))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The canonical URL and its hash. Objects are found by the hash and compared by the URL, so that a collision can never
/// serve another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheKey {
    hash: KeyHash,
    canonical: Box<str>,
}

impl CacheKey {
    /// From parts that [`normalize_host`], [`normalize_path`] and [`filter_query`] gave: such a host has no slash and such a
    /// path has no question mark, so the parts can't run into one another.
    #[must_use]
    pub fn new(scheme: Scheme, host: &str, path: &str, query: Option<&str>) -> Self {
        let length = scheme.as_str().len() + host.len() + path.len() + query.map_or(0, str::len) + 4;
        let mut canonical = String::with_capacity(length);
        for part in [scheme.as_str(), "://", host, path] {
            canonical.push_str(part);
        }
        if let Some(query) = query {
            canonical.push('?');
            canonical.push_str(query);
        }
        CacheKey::from_canonical(canonical.into_boxed_str())
    }

    /// From what [`CacheKey::canonical`] gave, for a store that reads it back.
    #[must_use]
    pub fn from_canonical(canonical: Box<str>) -> Self {
        CacheKey { hash: KeyHash::of(&canonical), canonical }
    }

    /// The key of a part of the response: a URL with a fragment, which no request has.
    #[must_use]
    pub fn part(&self, name: &str) -> Self {
        Self::from_canonical(format!("{}#{name}", self.canonical).into_boxed_str())
    }

    /// By which objects are found.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        self.hash
    }

    /// `https://host/path?query`
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

#[cfg(test)]
mod tests;
