//! What the data path is configured with: sites, and how each treats a path.
//!
//! Rules are resolved when the configuration is read: a [`Treatment`] is complete, a request only
//! picks one.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

pub use super::compress::Compress;
pub use super::fills::Fills;
pub use super::signed::{BadSecret, BadSignature, Signed};
use crate::origin::Origin;
use crate::rules::key::{self, QueryRule};
use crate::rules::policy::SitePolicy;
use crate::rules::tags::TagRule;

/// The data path of a node.
#[derive(Debug)]
pub struct Config {
    /// Public name: in `Via`, `Cache-Status` and `Proxy-Status`.
    pub node: String,
    /// This node's CDN-Loop identifier (RFC 8586).
    pub loop_id: String,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bytes of a request's target.
    pub uri_bytes: usize,
    /// Fields of a request's head.
    pub header_count: usize,
    /// Fetches for the cache under way.
    pub fills: Fills,
    /// The sites; a request's Host picks one.
    pub sites: Vec<Arc<Site>>,
    /// All origins, those that no site names too.
    pub origins: Vec<Arc<Origin>>,
}

/// One `[[site]]`.
#[derive(Debug)]
pub struct Site {
    /// Its name; a label of metrics.
    pub name: Arc<str>,
    /// Its place in the metrics.
    pub index: usize,
    /// Lower-case names, `*.name` for every name below, `*` for any.
    pub hosts: Vec<String>,
    /// Whether plain requests are sent to https (308).
    pub redirect_to_https: bool,
    /// `Strict-Transport-Security` on https answers.
    pub hsts: Option<HeaderValue>,
    /// Methods let in; `None`: all.
    pub methods: Option<Vec<Method>>,
    /// Who may purge without a token, and where tags stand.
    pub purge: SitePurge,
    /// First match wins.
    pub rules: Vec<Rule>,
    /// When no rule matches.
    pub default: Arc<Treatment>,
}

/// `[site.purge]`, and `[site.ids]`.
#[derive(Clone, Debug, Default)]
pub struct SitePurge {
    /// Networks that may purge on data listeners without a token.
    pub allow: Vec<IpNet>,
    /// Where tags stand.
    pub tags: TagRule,
    /// What clients of Cloudflare's API call it; empty: nothing.
    pub cloudflare_zone: String,
    /// What clients of Fastly's API call it; empty: nothing.
    pub fastly_service: String,
}

/// One `[[site.rule]]`.
#[derive(Debug)]
pub struct Rule {
    /// Patterns of paths; empty: all.
    pub paths: Vec<PathPattern>,
    /// Methods; empty: all.
    pub methods: Vec<Method>,
    /// What it does.
    pub treatment: Arc<Treatment>,
}

/// How a request is treated.
#[derive(Debug)]
pub struct Treatment {
    /// Which rule it is, for `explain` and debugging: `default` or `rule 2`.
    pub name: String,
    /// Never from or to the cache.
    pub pass: bool,
    /// Where responses come from.
    pub origin: Arc<Origin>,
    /// What may be stored and for how long.
    pub policy: SitePolicy,
    /// What of the query counts.
    pub query: QueryRule,
    /// Fetches for the cache under way.
    pub fills: Fills,
    /// Misses that a client may cause; `None`: any number.
    pub misses_per_client: Option<MissRate>,
    /// What to do with a range of what is not there.
    pub range_miss: RangeMiss,
    /// Larger responses are fetched in slices of this size for who asks for a range; 0: never.
    pub range_slices: u64,
    /// Whether an unknown transfer coding of an origin is refused or stripped.
    pub reject_unknown_transfer_coding: bool,
    /// Variants kept for a URL.
    pub max_variants: usize,
    /// Whether `CDN-Cache-Control` is kept from clients.
    pub strip_targeted: bool,
    /// Changes to requests on their way to the origin.
    pub request_headers: HeaderChanges,
    /// Changes to responses on their way to the client.
    pub response_headers: HeaderChanges,
    /// Who may ask.
    pub access: Access,
    /// What is encoded.
    pub compress: Arc<Compress>,
}

impl Treatment {
    /// What of a query is part of the cache key: without a signature, and filtered.
    pub(super) fn query_of<'q>(&self, query: Option<&'q str>) -> Option<Cow<'q, str>> {
        let signed = self.access.signed.as_ref().and_then(|signed| signed.split(query).ok());
        match signed {
            Some((_, rest)) => {
                key::filter_query(&rest?, &self.query).map(|query| Cow::Owned(query.into_owned()))
            }
            None => key::filter_query(query?, &self.query),
        }
    }
}

/// `site.cache.misses_per_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissRate {
    /// This many, at least one …
    pub count: u32,
    /// … in this time.
    pub period: Duration,
}

impl MissRate {
    pub(super) fn period_us(self) -> i64 {
        i64::try_from(self.period.as_micros()).unwrap_or(i64::MAX)
    }

    /// What one miss takes of a period.
    pub(super) fn interval_us(self) -> i64 {
        self.period_us() / i64::from(self.count.max(1))
    }
}

/// `site.cache.range_miss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeMiss {
    /// Fetch the whole, serve the range while it comes.
    Full,
    /// Ask the origin for the range; nothing is stored.
    Forward,
}

/// `set` and `remove` of `site.headers`.
#[derive(Clone, Debug, Default)]
pub struct HeaderChanges {
    /// Fields that get this one value.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Fields taken out.
    pub remove: Vec<HeaderName>,
}

impl HeaderChanges {
    /// Applies the removals, then the settings.
    #[inline]
    pub fn apply(&self, headers: &mut http::HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// `site.access`: deny wins; an empty allow list lets everybody in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Networks let in; empty: all.
    pub allow: Vec<IpNet>,
    /// Networks kept out.
    pub deny: Vec<IpNet>,
    /// Whether URLs have to be signed, and how.
    pub signed: Option<Signed>,
}

impl Access {
    /// Whether a verified address may ask.
    #[inline]
    pub fn admits(&self, client: IpAddr) -> bool {
        let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

/// A path with `*` for any run of characters, slashes included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    parts: Vec<String>,
}

impl PathPattern {
    /// Every string is a pattern.
    pub fn new(pattern: &str) -> Self {
        Self { parts: pattern.split('*').map(str::to_owned).collect() }
    }

    /// Whether the whole path matches.
    pub fn matches(&self, path: &str) -> bool {
        let Some((first, rest)) = self.parts.split_first() else { return false };
        let Some(mut left) = path.strip_prefix(first.as_str()) else { return false };
        let Some((last, middle)) = rest.split_last() else { return left.is_empty() };
        for part in middle {
            match left.find(part.as_str()) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        left.ends_with(last.as_str())
    }
}

impl Site {
    /// The first rule that matches, else the site's default.
    #[inline]
    pub fn treatment(&self, method: &Method, path: &str) -> &Arc<Treatment> {
        let matching = self.rules.iter().find(|rule| {
            (rule.methods.is_empty() || rule.methods.contains(method))
                && (rule.paths.is_empty() || rule.paths.iter().any(|p| p.matches(path)))
        });
        matching.map_or(&self.default, |rule| &rule.treatment)
    }

    /// `Strict-Transport-Security` for a lifetime.
    pub fn hsts_value(lifetime: Duration) -> Option<HeaderValue> {
        if lifetime.is_zero() {
            return None;
        }
        HeaderValue::try_from(format!("max-age={}", lifetime.as_secs())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let rows = [
            ("/api/*", "/api/x", true),
            ("/api/*", "/api", false),
            ("/cart*", "/cart/1", true),
            ("*.css", "/a/b.css", true),
            ("*.css", "/a/b.css.map", false),
            ("/a*c*e", "/abcde", true),
            ("/a*c*e", "/abde", false),
            ("/exact", "/exact", true),
            ("/exact", "/exact/", false),
            ("*", "/", true),
            ("/a*a", "/a", false),
        ];
        for (pattern, path, expected) in rows {
            assert_eq!(PathPattern::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn deny_beats_allow() {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect::<Vec<IpNet>>();
        let access = Access { allow: nets(&["10.0.0.0/8"]), deny: nets(&["10.1.0.0/16"]), signed: None };
        assert!(access.admits("10.2.0.1".parse().unwrap()));
        assert!(!access.admits("10.1.0.1".parse().unwrap()));
        assert!(!access.admits("192.0.2.1".parse().unwrap()));
        assert!(Access::default().admits("192.0.2.1".parse().unwrap()));
    }
}
