//! What the cache holds for a URL, for people.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;
use serde::Serialize;

use super::Edge;
use super::config::Site;
use super::sliced::Slices;
use crate::object::{Head, Object};
use crate::rules::freshness::{Freshness, State};
use crate::rules::key::{self, CacheKey, Scheme};
use crate::rules::time::Millis;

/// One stored variant.
#[derive(Debug, Serialize)]
pub struct Variant {
    /// The cache key.
    pub key: String,
    /// Where its body is served from: `memory` or `disk`.
    pub tier: &'static str,
    /// The numbers of the disk tier's segments that hold it; none: it is in memory only.
    pub segments: Vec<u32>,
    /// The stored status.
    pub status: u16,
    /// `fresh`, `stale-while-revalidate`, or `must-revalidate`.
    pub state: &'static str,
    /// Seconds; RFC 9111 §4.2.3.
    pub age: u64,
    /// Seconds of freshness left; negative when stale.
    pub ttl: i64,
    /// The field that decided the lifetime.
    pub freshness: &'static str,
    /// Bytes of the body.
    pub size: u64,
    /// Content-Type as stored.
    pub content_type: Option<String>,
    /// Content-Encoding as stored.
    pub content_encoding: Option<String>,
    /// `ETag` as stored.
    pub etag: Option<String>,
    /// Last-Modified as stored.
    pub last_modified: Option<String>,
    /// What is kept of it in other codings: coding and bytes.
    pub encodings: Vec<(&'static str, u64)>,
    /// Fields that select it.
    pub vary: Vec<String>,
    /// Names under which it may be purged.
    pub tags: Vec<String>,
    /// How much of it there is, where it is kept in slices; `size` is what they have together then.
    pub slices: Option<Slices>,
}

/// Why a URL can't be looked up.
#[derive(Debug, thiserror::Error)]
pub enum BadUrl {
    /// It is no URL.
    #[error("{0}: an absolute URL is needed, such as https://shop.example/a.css")]
    Malformed(String),
    /// No site has its host.
    #[error("{0}: no site has this host")]
    UnknownHost(String),
    /// A prefix with a scheme.
    #[error("{0}: a prefix is a host and a path without a scheme, such as shop.example/assets")]
    Prefix(String),
    /// It is no host.
    #[error("{0}; a host such as shop.example is needed")]
    BadHost(String),
}

/// A URL in its parts, as the cache key has them.
pub(super) struct Found<'e> {
    pub(super) site: &'e Arc<Site>,
    pub(super) scheme: Scheme,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
}

/// A URL as requests for it are seen.
#[derive(Debug)]
pub struct Located {
    /// The site's name.
    pub site: Arc<str>,
    /// Its keys, the URL's own scheme first.
    pub keys: [CacheKey; 2],
}

impl Edge {
    /// The site and the keys of a URL, of both schemes.
    pub fn locate(&self, url: &str) -> Result<Located, BadUrl> {
        let Found { site, scheme, host, path, query } = self.find_url(url)?;
        let other = if scheme == Scheme::Http { Scheme::Https } else { Scheme::Http };
        let key = |scheme| CacheKey::new(scheme, &host, &path, query.as_deref());
        Ok(Located { site: site.name.clone(), keys: [key(scheme), key(other)] })
    }

    /// The site of a URL, and its parts after normalisation and the site's query rule.
    pub(super) fn find_url(&self, url: &str) -> Result<Found<'_>, BadUrl> {
        let malformed = |why: String| BadUrl::Malformed(format!("{url}: {why}"));
        let uri: http::Uri = url.parse().map_err(|e: http::uri::InvalidUri| malformed(e.to_string()))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(malformed("its scheme is neither http nor https".into())),
        };
        let authority = uri.authority().ok_or_else(|| malformed("it has no host".into()))?;
        let host = key::normalize_host(authority.as_str(), scheme).map_err(|e| malformed(e.to_string()))?;
        let path = key::normalize_path(uri.path()).map_err(|e| malformed(e.to_string()))?;
        let site = self.sites.find(&host).ok_or_else(|| BadUrl::UnknownHost(url.to_owned()))?;
        let query = site.treatment(&http::Method::GET, &path).query_of(uri.query());
        let (query, host, path) = (query.map(Cow::into_owned), host.into_owned(), path.into_owned());
        Ok(Found { site, scheme, host, path, query })
    }

    /// The variants stored under a key. What a purge has hit is not there, though nobody has come upon it yet.
    pub async fn inspect(&self, key: &CacheKey) -> Vec<Variant> {
        let entry = self.store.load(key).await;
        let now = self.clock.now();
        let objects = entry.iter().flat_map(|entry| entry.variants());
        let kept = objects.filter(|object| self.survives(object));
        let mut held: Vec<Variant> = kept.map(|object| describe(object, now)).collect();
        if held.is_empty()
            && let Some(sliced) = self.collapse.sliced(key.hash())
        {
            held.extend(self.in_slices(key, &sliced, None).await.described(key, now));
        }
        held
    }
}

fn segments_of(object: &Object) -> Vec<u32> {
    let parts = object.parts().filter(|part| !part.pages().is_resident());
    let mut segments: Vec<u32> = parts.map(|part| part.place().0).collect();
    segments.extend(object.inline().map(|(segment, _)| segment));
    segments.dedup();
    segments
}

pub(super) fn describe(object: &Object, now: Millis) -> Variant {
    let encodings = object.encodings.iter().flat_map(|encodings| encodings.all());
    let place = Place {
        tier: object.tier(),
        segments: segments_of(object),
        size: object.body.len(),
        encodings: encodings.map(|encoded| (encoded.coding.as_str(), encoded.body.len())).collect(),
    };
    describe_head(&object.head, &object.freshness(), (object.state(now), now), place)
}

/// Where a body is.
pub(super) struct Place {
    pub(super) tier: &'static str,
    pub(super) segments: Vec<u32>,
    pub(super) size: u64,
    pub(super) encodings: Vec<(&'static str, u64)>,
}

/// A variant by its head, which need not be in memory.
pub(super) fn describe_head(
    head: &Head,
    freshness: &Freshness,
    (state, now): (State, Millis),
    Place { tier, segments, size, encodings }: Place,
) -> Variant {
    let field = |name: http::HeaderName| {
        head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let state = match state {
        State::Fresh => "fresh",
        State::StaleWhileRevalidate => "stale-while-revalidate",
        State::MustRevalidate => "must-revalidate",
    };
    Variant {
        key: head.key.canonical().to_owned(),
        tier,
        segments,
        status: StatusCode::as_u16(&head.status),
        state,
        age: freshness.age_secs(now),
        ttl: freshness.ttl_secs(now),
        freshness: freshness.source,
        size,
        content_type: field(http::header::CONTENT_TYPE),
        content_encoding: field(http::header::CONTENT_ENCODING),
        etag: field(http::header::ETAG),
        last_modified: field(http::header::LAST_MODIFIED),
        encodings,
        vary: head.vary.names().iter().map(ToString::to_string).collect(),
        tags: head.tags.iter().map(ToString::to_string).collect(),
        slices: None,
    }
}
