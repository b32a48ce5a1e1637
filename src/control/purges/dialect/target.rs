//! A URL or a prefix, in the target of a request: `/a`, `/a/*` as nginx has it, `/a/.*` as Varnish does.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::super::super::problem::Problem;
use super::{Reach, Wanted, bad};
use crate::edge::Edge;
use crate::edge::config::Site;
use crate::purge::{Selector, Source};
use crate::rules::key::Scheme;

/// What nginx plugins ask for to purge everything.
const PURGE_ALL: &str = "/purgeall";
/// The location under which nginx purges what follows.
pub(super) const PURGE_LOCATION: &str = "/purge";

/// Whom a request addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) edge: &'a Edge,
    pub(super) reach: &'a Reach,
    pub(super) site: Option<&'a Arc<Site>>,
    pub(super) host: &'a str,
}

impl Place<'_> {
    fn url(&self, path: &str, query: Option<&str>) -> Result<Selector, Problem> {
        self.edge.select_target(self.host, path, query).map_err(|error| bad(error.to_string()))
    }

    fn prefix(&self, path: &str) -> Result<Selector, Problem> {
        // The host is normalised: a port 80 that is still there is one of https.
        let scheme = if self.host.ends_with(":80") { Scheme::Https } else { Scheme::Http };
        Selector::prefix(scheme, self.host, path).map_err(|error| bad(error.to_string()))
    }

    fn site(&self) -> Result<&Arc<Site>, Problem> {
        let unknown = || {
            let detail = format!("this node serves no host {:?}; nothing was purged", self.host);
            Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown-host", detail)
        };
        let site = self.site.ok_or_else(unknown)?;
        if self.reach.sites.iter().any(|own| own.index == site.index) {
            return Ok(site);
        }
        let detail = format!("no right to purge URLs of {:?}; nothing was purged", self.host);
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }
}

/// What `PURGE target` means, and whose way of saying it that is.
pub(super) fn purge(
    place: Place<'_>,
    (path, query): (&str, Option<&str>),
    headers: &HeaderMap,
) -> Result<(Wanted, Source), Problem> {
    let site = place.site()?;
    let mut wanted = Wanted::default();
    let is_regex = is_regex(headers)?;
    if path == PURGE_ALL {
        wanted.bind((site, place.prefix("/")?));
        return Ok((wanted, Source::Nginx));
    }
    let (selector, source) = selector(place, (path, query), is_regex)?;
    wanted.bind((site, selector));
    if let Some(path) = path.strip_prefix(PURGE_LOCATION).filter(|path| path.starts_with('/')) {
        // With nginx, `PURGE /purge/a` is a way to purge `/a`.
        wanted.bind((site, self::selector(place, (path, query), is_regex)?.0));
    }
    Ok((wanted, source))
}

/// What `GET /purge/PATH` means.
pub(super) fn location(place: Place<'_>, path: &str, query: Option<&str>) -> Result<Wanted, Problem> {
    let mut wanted = Wanted::default();
    wanted.bind((place.site()?, selector(place, (path, query), false)?.0));
    Ok(wanted)
}

fn selector(
    place: Place<'_>,
    (path, query): (&str, Option<&str>),
    is_regex: bool,
) -> Result<(Selector, Source), Problem> {
    let (before, source) = match (path.strip_suffix(".*"), path.strip_suffix('*')) {
        (Some(before), _) => (before, Source::Varnish),
        (None, Some(before)) => (before, Source::Nginx),
        // An expression that is not anchored at its end: `/a/` is `/a/.*`.
        (None, None) if is_regex => (path, Source::Varnish),
        (None, None) => {
            check_plain(path)?;
            return Ok((place.url(path, query)?, Source::Varnish));
        }
    };
    check_plain(before)?;
    if let Some(character) = before.chars().find(|character| is_regex && "+?(){}$".contains(*character)) {
        let detail = "is for expressions, of which only paths that end in / or /.* can be purged";
        return Err(bad(format!("{path}: {character:?} {detail}; nothing was purged")));
    }
    // `/asset*` would mean `/assets` too, and so does `/asset` as an expression; a prefix is whole segments.
    if !before.ends_with('/') || query.is_some() {
        let detail = if is_regex {
            "the only regular expressions are paths that end in / or /.*, without a query"
        } else {
            "a prefix is whole segments, without a query: what is before the * has to end in /"
        };
        return Err(bad(format!("{path}: {detail}; nothing was purged")));
    }
    Ok((place.prefix(before)?, source))
}

/// In a path they are not to be, and whoever sends them means an expression.
fn check_plain(path: &str) -> Result<(), Problem> {
    match path.chars().find(|character| "*^\\|[]".contains(*character)) {
        None => Ok(()),
        Some(character) => {
            let detail = "is for expressions, of which only a * at the end can be purged; in a URL it is percent-encoded";
            Err(bad(format!("{path}: {character:?} {detail}; nothing was purged")))
        }
    }
}

/// What Proxy Cache Purge says of its path.
fn is_regex(headers: &HeaderMap) -> Result<bool, Problem> {
    let Some(method) = headers.get("x-purge-method") else { return Ok(false) };
    match method.as_bytes().to_ascii_lowercase().as_slice() {
        b"default" | b"exact" => Ok(false),
        b"regex" => Ok(true),
        _ => Err(bad("X-Purge-Method is default, exact or regex; nothing was purged")),
    }
}
