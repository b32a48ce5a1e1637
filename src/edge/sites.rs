//! From a Host to its site: exact names, then wildcards (the longest first), then `*`.

use std::collections::HashMap;
use std::sync::Arc;

use super::config::Site;

/// The sites of a node by host.
#[derive(Debug, Default)]
pub(super) struct Sites {
    exact: HashMap<String, Arc<Site>>,
    /// By the part behind `*.`.
    wildcard: HashMap<String, Arc<Site>>,
    any: Option<Arc<Site>>,
}

impl Sites {
    pub(super) fn new(sites: &[Arc<Site>]) -> Self {
        let mut by_host = Self::default();
        for site in sites {
            for host in &site.hosts {
                if host == "*" {
                    by_host.any.get_or_insert_with(|| site.clone());
                } else if let Some(parent) = host.strip_prefix("*.") {
                    by_host.wildcard.entry(parent.to_owned()).or_insert_with(|| site.clone());
                } else {
                    by_host.exact.entry(host.clone()).or_insert_with(|| site.clone());
                }
            }
        }
        by_host
    }

    /// The site of a normalised host, with or without its port.
    #[inline]
    pub(super) fn find(&self, host: &str) -> Option<&Arc<Site>> {
        let name = without_port(host);
        if let Some(site) = self.exact.get(name) {
            return Some(site);
        }
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(site) = self.wildcard.get(parent) {
                return Some(site);
            }
            rest = parent;
        }
        self.any.as_ref()
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // An IPv6 literal has its colons in brackets.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    }
}
