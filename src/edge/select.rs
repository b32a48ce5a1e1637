//! What a purge names, as requests are seen: the site of a host, and the selector that fits the cache key.

use std::sync::Arc;

use http::Method;

use super::config::Site;
use super::{BadUrl, Edge};
use crate::purge::{BadSelector, Selector};
use crate::rules::key::{self, Scheme};

impl Edge {
    /// A URL, after the site's query rule; the scheme does not count.
    pub fn select_url(&self, url: &str) -> Result<(&Arc<Site>, Selector), BadUrl> {
        let found = self.find_url(url)?;
        let host = found.host.into();
        Ok((found.site, Selector::Url { host, path: found.path.into(), query: found.query.map(Into::into) }))
    }

    /// The same from a request's parts: a host as it was normalised, a path and a query as they were sent.
    pub fn select_target(&self, host: &str, path: &str, query: Option<&str>) -> Result<Selector, BadUrl> {
        let malformed = |why: key::BadTarget| BadUrl::Malformed(format!("{host}{path}: {why}"));
        let site = self.sites.find(host).ok_or_else(|| BadUrl::UnknownHost(host.to_owned()))?;
        let path = key::normalize_path(path).map_err(malformed)?;
        let query = site.treatment(&Method::GET, &path).query_of(query);
        Ok(Selector::Url { host: host.into(), path: (&*path).into(), query: query.map(|q| (&*q).into()) })
    }

    /// A URL on every host of a site: the path and the query as they were sent.
    pub fn select_on_every_host(
        &self,
        site: &Site,
        path: &str,
        query: Option<&str>,
    ) -> Result<Selector, BadSelector> {
        let path = key::normalize_path(path)?;
        Selector::url_of_every_host(&path, site.treatment(&Method::GET, &path).query_of(query).as_deref())
    }

    /// A prefix, `host/path`.
    pub fn select_prefix(&self, prefix: &str) -> Result<(&Arc<Site>, Selector), BadUrl> {
        if prefix.contains("://") {
            return Err(BadUrl::Prefix(prefix.to_owned()));
        }
        let (authority, path) = prefix.split_at(prefix.find('/').unwrap_or(prefix.len()));
        let site = self.site_of(authority)?;
        let malformed = |why: BadSelector| BadUrl::Malformed(format!("{prefix}: {why}"));
        let path = if path.is_empty() { "/" } else { path };
        Ok((site, Selector::prefix(scheme_of(authority), authority, path).map_err(malformed)?))
    }

    /// A host.
    pub fn select_host(&self, host: &str) -> Result<(&Arc<Site>, Selector), BadUrl> {
        let site = self.site_of(host)?;
        let selector = Selector::host(scheme_of(host), host);
        Ok((site, selector.map_err(|why| BadUrl::BadHost(format!("{host}: {why}")))?))
    }

    fn site_of(&self, authority: &str) -> Result<&Arc<Site>, BadUrl> {
        let host = key::normalize_host(authority, scheme_of(authority))
            .map_err(|why| BadUrl::BadHost(format!("{authority:?}: {why}")))?;
        self.sites.find(&host).ok_or_else(|| BadUrl::UnknownHost(authority.to_owned()))
    }
}

/// The scheme whose port need not be named, where none is written.
fn scheme_of(authority: &str) -> Scheme {
    if authority.ends_with(":80") { Scheme::Http } else { Scheme::Https }
}
