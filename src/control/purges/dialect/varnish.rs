//! Fields by which Varnish's clients say what is to go: tags, or expressions for tags, hosts and URLs.

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, StatusCode};

use super::super::super::problem::Problem;
use super::super::order;
use super::pattern::{self, HostName, Matched, Target};
use super::{Reach, Wanted, bad};
use crate::edge::Edge;
use crate::edge::config::Site;
use crate::purge::Selector;
use crate::rules::tags::Separator;

const XKEY_PURGE: &str = "xkey-purge";
const XKEY_SOFTPURGE: &str = "xkey-softpurge";
const CLEAR_CACHE: &str = "clear-cache";
/// Of Magento, `FOSHttpCache` and Drupal, beside those in which a site's tags stand.
const TAG_FIELDS: [(&str, Separator); 3] = [
    ("x-magento-tags-pattern", Separator::Comma),
    ("x-cache-tags", Separator::Comma),
    ("cache-tags", Separator::Space),
];
/// A ban's conditions beside tags.
const X_HOST: &str = "x-host";
const X_URL: &str = "x-url";
const X_CONTENT_TYPE: &str = "x-content-type";
/// By them other caches' clients say that something else than the URL is meant. To purge the URL and say "Purged" would
/// be a lie.
const OTHER_MEANINGS: [&str; 8] = [
    "surrogate-key",
    "xkey",
    "x-pool",
    "x-acquia-purge",
    "x-vc-purge-method",
    "x-vc-purge-host",
    "x-ban-query",
    "fastly-purge-environment",
];

/// What the fields of a request with a purge method name, and whether softly; `None`: nothing, so its target does.
pub(super) fn by_fields(
    edge: &Edge,
    reach: &Reach,
    method: &str,
    headers: &HeaderMap,
) -> Result<Option<(Wanted, bool)>, Problem> {
    let tags = tag_fields(reach, headers);
    let is_unknown =
        |name: &&&str| headers.contains_key(**name) && !tags.iter().any(|field| field.name == **name);
    if let Some(name) = OTHER_MEANINGS.iter().find(is_unknown) {
        return Err(bad(format!("{method} with {name} is not supported; nothing was purged")));
    }
    let has = |name: &&str| headers.contains_key(*name);
    let mut said: Vec<&str> = tags.iter().map(|field| field.name.as_str()).collect();
    said.extend([XKEY_PURGE, XKEY_SOFTPURGE, CLEAR_CACHE].into_iter().filter(has));
    let conditions: Vec<&str> = [X_HOST, X_URL, X_CONTENT_TYPE].into_iter().filter(has).collect();
    if let [first, second, ..] = said.as_slice() {
        return Err(bad(format!("{first} and {second} together are not supported; nothing was purged")));
    }
    if let (Some(name), true) = (conditions.first(), method != "BAN") {
        return Err(bad(format!("{name} is a condition of BAN, not of {method}; nothing was purged")));
    }
    let Some(said) = said.first().copied() else {
        if conditions.is_empty() {
            return Ok(None);
        }
        return banned(edge, reach, headers).map(|wanted| Some((wanted, false)));
    };
    check_unconditional(edge, reach, headers)?;
    let wanted = match tags.first() {
        Some(field) => tagged(method, field, headers)?,
        None if said == CLEAR_CACHE => cleared(headers)?,
        None => keys(reach, headers, said)?,
    };
    Ok(Some((wanted, said == XKEY_SOFTPURGE)))
}

/// A field with tags, and what separates them.
struct TagField {
    name: HeaderName,
    separator: Separator,
}

fn tag_fields(reach: &Reach, headers: &HeaderMap) -> Vec<TagField> {
    let own = reach.sites.iter().flat_map(|site| &site.purge.tags.fields);
    let own = own.map(|(name, separator)| (name.clone(), *separator));
    let known = TAG_FIELDS.map(|(name, separator)| (HeaderName::from_static(name), separator));
    let mut fields: Vec<TagField> = Vec::new();
    for (name, separator) in own.chain(known) {
        if headers.contains_key(&name) && !fields.iter().any(|field| field.name == name) {
            fields.push(TagField { name, separator });
        }
    }
    fields
}

fn tagged(method: &str, field: &TagField, headers: &HeaderMap) -> Result<Wanted, Problem> {
    let name = &field.name;
    if method == "PURGETAGS" {
        return list(headers, name, field.separator);
    }
    let tags = pattern::tags(one(headers, name.as_str())?.unwrap_or_default(), field.separator);
    match tags.map_err(|why| unexpressed(name.as_str(), &why))? {
        Matched::Everything => Ok(everything()),
        Matched::These(tags) => all_of(name.as_str(), tags.iter().map(String::as_str)),
    }
}

fn keys(reach: &Reach, headers: &HeaderMap, name: &str) -> Result<Wanted, Problem> {
    let fields = reach.sites.iter().flat_map(|site| &site.purge.tags.fields);
    let xkey = fields.filter(|(name, _)| name == "xkey").map(|(_, separator)| *separator).next();
    list(
        headers,
        &HeaderName::try_from(name).map_err(|_| bad("no such field"))?,
        xkey.unwrap_or(Separator::Space),
    )
}

fn list(headers: &HeaderMap, name: &HeaderName, separator: Separator) -> Result<Wanted, Problem> {
    let lines: Result<Vec<&str>, _> =
        headers.get_all(name).iter().map(|line| text(name.as_str(), line)).collect();
    let tags: Vec<&str> = lines?.into_iter().flat_map(|line| pattern::split(line, separator)).collect();
    if tags.is_empty() {
        return Err(bad(format!("{name} names no tag; nothing was purged")));
    }
    if let Some(tag) = tags.iter().find(|tag| pattern::is_everything(tag)) {
        return Err(bad(format!("{name} has names of tags, and {tag} is an expression; nothing was purged")));
    }
    all_of(name.as_str(), tags.into_iter())
}

fn all_of<'t>(name: &str, tags: impl Iterator<Item = &'t str>) -> Result<Wanted, Problem> {
    let selector =
        |tag| order::tag(tag).map_err(|why| bad(format!("{name}: {tag:?}: {why}; nothing was purged")));
    Ok(Wanted { free: tags.map(selector).collect::<Result<_, _>>()?, ..Wanted::default() })
}

/// Symfony's word for everything.
fn cleared(headers: &HeaderMap) -> Result<Wanted, Problem> {
    match one(headers, CLEAR_CACHE)? {
        Some("true" | "1") => Ok(everything()),
        _ => Err(bad("Clear-Cache is true, or not there; nothing was purged")),
    }
}

fn everything() -> Wanted {
    Wanted { free: vec![Selector::All], ..Wanted::default() }
}

/// Tags and a host, a URL or a type can't be asked for together.
fn check_unconditional(edge: &Edge, reach: &Reach, headers: &HeaderMap) -> Result<(), Problem> {
    check_types(headers)?;
    let is_any_host = one(headers, X_HOST)?.is_none_or(|host| is_all_hosts(edge, reach, host));
    let is_any_url = one(headers, X_URL)?.is_none_or(|url| pattern::targets(url) == Ok(Matched::Everything));
    if is_any_host && is_any_url {
        return Ok(());
    }
    Err(bad(
        "tags of some hosts or URLs only can't be purged: X-Host and X-Url have to be .*; nothing was purged",
    ))
}

fn check_types(headers: &HeaderMap) -> Result<(), Problem> {
    if one(headers, X_CONTENT_TYPE)?.is_none_or(pattern::is_everything) {
        return Ok(());
    }
    Err(bad("what has one Content-Type can't be purged: X-Content-Type has to be .*; nothing was purged"))
}

/// Whether an expression names each host that the sites have; of names with wildcards that can't be said.
fn is_all_hosts(edge: &Edge, reach: &Reach, pattern: &str) -> bool {
    let named = match pattern::hosts(pattern) {
        Ok(Matched::Everything) => return true,
        Ok(Matched::These(names)) => named(edge, reach, &names).unwrap_or_default(),
        Err(_) => return false,
    };
    let named: HashSet<&str> = named.iter().map(|(_, host)| host.as_str()).collect();
    reach.sites.iter().flat_map(|site| &site.hosts).all(|host| named.contains(host.as_str()))
}

/// Hosts and URLs.
fn banned(edge: &Edge, reach: &Reach, headers: &HeaderMap) -> Result<Wanted, Problem> {
    check_types(headers)?;
    let hosts = one(headers, X_HOST)?.map_or(Ok(Matched::Everything), pattern::hosts);
    let hosts = hosts.map_err(|why| unexpressed("X-Host", &why))?;
    let targets = one(headers, X_URL)?.map_or(Ok(Matched::Everything), pattern::targets);
    let targets = targets.map_err(|why| unexpressed("X-Url", &why))?;
    let mut wanted = Wanted::default();
    match (hosts, targets) {
        (Matched::Everything, Matched::Everything) => return Ok(everything()),
        (Matched::Everything, Matched::These(targets)) => {
            check_entries(reach.sites.len(), targets.len())?;
            for site in &reach.sites {
                for target in &targets {
                    wanted.bind((site, on_every_host(edge, site, target)?));
                }
            }
        }
        (Matched::These(names), Matched::Everything) => {
            for (site, host) in named(edge, reach, &names)? {
                let selector = edge.select_host(&host).map_err(|error| bad(error.to_string()))?.1;
                wanted.bind((&site, selector));
            }
        }
        (Matched::These(names), Matched::These(targets)) => {
            let hosts = named(edge, reach, &names)?;
            check_entries(hosts.len(), targets.len())?;
            for (site, host) in hosts {
                for target in &targets {
                    wanted.bind((&site, on_host(edge, &host, target)?));
                }
            }
        }
    }
    Ok(wanted)
}

/// Every host with every URL.
fn check_entries(hosts: usize, targets: usize) -> Result<(), Problem> {
    let entries = hosts.saturating_mul(targets);
    if entries <= order::MAX_ENTRIES {
        return Ok(());
    }
    let detail = format!(
        "{hosts} hosts with {targets} URLs each are {entries} entries, and {} may be",
        order::MAX_ENTRIES
    );
    Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail))
}

/// Hosts by their names, and those of the sites' own that contain a name which is not anchored.
fn named(edge: &Edge, reach: &Reach, names: &[HostName]) -> Result<Vec<(Arc<Site>, String)>, Problem> {
    let mut hosts: Vec<(Arc<Site>, String)> = Vec::new();
    for HostName { name, is_whole } in names {
        let (site, selector) = reach
            .check(edge.select_host(name))
            .map_err(|why| bad(format!("X-Host: {name:?}: {why}; nothing was purged")))?;
        let Selector::Host(host) = selector else { continue };
        hosts.push((site.clone(), host.into()));
        if *is_whole {
            continue;
        }
        for site in &reach.sites {
            let longer = site
                .hosts
                .iter()
                .filter(|host| !host.contains('*') && *host != name && host.contains(name.as_str()));
            hosts.extend(longer.map(|host| (site.clone(), host.clone())));
        }
    }
    Ok(hosts)
}

fn on_host(edge: &Edge, host: &str, target: &Target) -> Result<Selector, Problem> {
    let selected = match target {
        Target::Exactly(target) => {
            let (path, query) = in_parts(target);
            edge.select_target(host, path, query)
        }
        Target::Below(path) => edge.select_prefix(&format!("{host}{path}")).map(|(_, selector)| selector),
    };
    selected.map_err(|error| bad(format!("X-Url: {error}; nothing was purged")))
}

fn on_every_host(edge: &Edge, site: &Site, target: &Target) -> Result<Selector, Problem> {
    let selected = match target {
        Target::Exactly(target) => {
            let (path, query) = in_parts(target);
            edge.select_on_every_host(site, path, query)
        }
        Target::Below(path) => Selector::prefix_of_every_host(path),
    };
    selected.map_err(|error| bad(format!("X-Url: {error}; nothing was purged")))
}

fn in_parts(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

/// The one line of a field.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Problem> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next().map(|line| text(name, line)).transpose()?;
    if lines.next().is_some() {
        return Err(bad(format!("there is more than one {name}; nothing was purged")));
    }
    Ok(first)
}

fn text<'h>(name: &str, line: &'h http::HeaderValue) -> Result<&'h str, Problem> {
    std::str::from_utf8(line.as_bytes()).map_err(|_| bad(format!("{name} is not UTF-8; nothing was purged")))
}

fn unexpressed(name: &str, why: &str) -> Problem {
    bad(format!("{name} can't be purged: {why}; nothing was purged"))
}
