//! The body of `POST /v1/purges`: read, checked entry by entry, and resolved. Nothing is applied before all of it is good.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::super::auth::TokenConfig;
use super::super::body;
use super::super::problem::Problem;
use crate::edge::{BadUrl, Edge};
use crate::purge::Selector;

/// Entries of all lists together.
pub(super) const MAX_ENTRIES: usize = 10_000;
/// Errors that one answer names.
const MAX_ERRORS: usize = 100;
const MAX_NOTE_BYTES: usize = 1024;

/// What is to be purged. Entries are any JSON, so that each wrong one can be named.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Order {
    site: Option<String>,
    urls: Vec<Value>,
    prefixes: Vec<Value>,
    tags: Vec<Value>,
    hosts: Vec<Value>,
    all: bool,
    pub(super) soft: bool,
    pub(super) note: Option<String>,
    pub(super) dry_run: bool,
}

pub(super) fn parse(body: &[u8]) -> Result<Order, Problem> {
    let order: Order = body::parse(body).map_err(|why| bad("the body is no purge").at("#", why))?;
    let entries = order.entries();
    if entries > MAX_ENTRIES {
        let detail = format!("a purge has at most {MAX_ENTRIES} entries, and this one has {entries}");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail));
    }
    if entries == 0 && !order.all {
        let detail = "the purge names nothing: urls, prefixes, tags, hosts or all are needed";
        return Err(bad(detail).at("#", detail));
    }
    if order.all && entries > 0 {
        let detail = "all stands alone: leave the lists out";
        return Err(bad(detail).at("#/all", detail));
    }
    if order.note.as_ref().is_some_and(|note| note.len() > MAX_NOTE_BYTES) {
        let detail = format!("a note has at most {MAX_NOTE_BYTES} bytes");
        return Err(bad(&detail).at("#/note", detail.clone()));
    }
    Ok(order)
}

impl Order {
    fn entries(&self) -> usize {
        self.urls.len() + self.prefixes.len() + self.tags.len() + self.hosts.len()
    }

    /// The site that restricts it, and what it selects.
    pub(super) fn resolve(
        &self,
        token: &TokenConfig,
        edge: &Edge,
    ) -> Result<(Option<String>, Vec<Selector>), Problem> {
        if self.all {
            token.check_scope("purge:all")?;
        }
        let site = self.site(token, edge)?;
        if self.all {
            return Ok((site, vec![Selector::All]));
        }
        let of_site = |found: Result<(&_, Selector), BadUrl>| {
            let (own, selector): (&std::sync::Arc<crate::edge::config::Site>, _) =
                found.map_err(|error| error.to_string())?;
            match &site {
                Some(site) if **site != *own.name => {
                    Err(format!("it belongs to the site {:?}, not to {site:?}", own.name))
                }
                _ => Ok(selector),
            }
        };
        let mut checked = Checked::default();
        checked.add("urls", &self.urls, |url| of_site(edge.select_url(url)));
        checked.add("prefixes", &self.prefixes, |prefix| of_site(edge.select_prefix(prefix)));
        checked.add("tags", &self.tags, tag);
        checked.add("hosts", &self.hosts, |host| of_site(edge.select_host(host)));
        Ok((site.clone(), checked.done()?))
    }

    /// The site: named, or the only one that the token covers. Everything of the node is for who may purge
    /// all of it.
    fn site(&self, token: &TokenConfig, edge: &Edge) -> Result<Option<String>, Problem> {
        let sites = edge.config().sites.iter().map(|site| &*site.name);
        let covered: Vec<&str> = sites.filter(|site| token.covers(site)).collect();
        if let Some(site) = &self.site {
            if covered.contains(&site.as_str()) {
                return Ok(Some(site.clone()));
            }
            // Which sites there are is not for everybody.
            let detail = format!("the token {:?} is not for a site {site:?}", token.name);
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail.clone()).at("#/site", detail));
        }
        match covered.as_slice() {
            _ if self.all && token.sites.is_empty() => Ok(None),
            [only] => Ok(Some((*only).to_owned())),
            [] => {
                let detail = format!("this node has no site that the token {:?} is for", token.name);
                Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
            }
            several => {
                let detail = format!("the token covers several sites, name one of: {}", several.join(", "));
                Err(bad(&detail).at("#/site", detail.clone()))
            }
        }
    }
}

#[derive(Default)]
struct Checked {
    selectors: Vec<Selector>,
    errors: Vec<(String, String)>,
}

impl Checked {
    fn add(&mut self, list: &str, entries: &[Value], check: impl Fn(&str) -> Result<Selector, String>) {
        for (index, entry) in entries.iter().enumerate() {
            let text = entry.as_str().ok_or_else(|| "a string is needed".to_owned());
            match text.and_then(&check) {
                Ok(selector) => self.selectors.push(selector),
                Err(why) => self.errors.push((format!("#/{list}/{index}"), why)),
            }
        }
    }

    fn done(self) -> Result<Vec<Selector>, Problem> {
        if self.errors.is_empty() {
            return Ok(self.selectors);
        }
        let detail = format!("{} entries are wrong; nothing was purged", self.errors.len());
        Err(wrong(&detail, self.errors))
    }
}

/// What is wrong, entry by entry.
pub(super) fn wrong(detail: &str, errors: Vec<(String, String)>) -> Problem {
    let errors = errors.into_iter().take(MAX_ERRORS);
    errors.fold(bad(detail), |problem, (pointer, why)| problem.at(&pointer, why))
}

/// Tags are compared byte by byte, so what no response can have is a mistake.
pub(super) fn tag(tag: &str) -> Result<Selector, String> {
    if tag.trim() != tag || tag.contains(char::is_control) {
        return Err("a tag has no control characters, and no space around it".into());
    }
    Selector::tag(tag).map_err(|error| error.to_string())
}

fn bad(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-purge", detail)
}
