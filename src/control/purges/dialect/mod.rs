//! What clients of other caches send, as purges of this one.
//!
//! ```text
//!  data listener    PURGE, URIBAN  GET /purge/…   target.rs ┐
//!  (data.rs)        BAN, PURGEKEYS, PURGETAGS     varnish.rs ├─▶ Wanted ─▶ one purge for each site, or one for all
//!  admin listener   /service/…, /purge/…          fastly.rs ┤
//!                   /client/v4/zones/…        cloudflare.rs ┘
//! ```
//!
//! Everything of a request is understood before anything of it is purged. What can't be expressed is refused with the
//! reason: plugins believe in a 200.

mod cloudflare;
mod data;
mod fastly;
mod pattern;
mod target;
mod varnish;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;

use super::super::Control;
use super::super::auth::TokenConfig;
use super::super::problem::Problem;
use super::order::{self, MAX_ENTRIES};
use crate::edge::config::{Site, SitePurge};
use crate::edge::{BadUrl, Edge};
use crate::net::ConnInfo;
use crate::purge::{Purge, Request, Selector, Source};

const FASTLY_SOFT_PURGE: &str = "fastly-soft-purge";
/// Fields of the calls here that say what is purged and how, beside target and body. Who reads another one adds it.
pub(in super::super) const SELECTING_FIELDS: [&str; 3] =
    [fastly::SURROGATE_KEY, fastly::PURGE_ENVIRONMENT, FASTLY_SOFT_PURGE];

/// The calls of other purge APIs.
pub(in super::super) fn routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/purge/{*url}", post(fastly::url))
        .route("/service/{id}/purge", post(fastly::keys))
        .route("/service/{id}/purge/{*key}", post(fastly::key))
        .route("/service/{id}/purge_all", post(fastly::all))
        .route(
            "/client/v4/zones/{zone}/purge_cache",
            post(cloudflare::purge_cache).delete(cloudflare::purge_cache),
        )
}

/// Who purges: a token, or an address that a site lets purge on data listeners.
#[derive(Clone, Debug)]
struct Purger {
    token: Option<Arc<TokenConfig>>,
    address: Option<IpAddr>,
}

impl Purger {
    fn name(&self) -> &str {
        self.token.as_ref().map_or("cidr", |token| &token.name)
    }

    fn covers(&self, site: &Site) -> bool {
        match &self.token {
            Some(token) => token.covers(&site.name),
            None => self.address.is_some_and(|address| allows(site, address)),
        }
    }
}

/// `site.purge.allow`
fn allows(site: &Site, address: IpAddr) -> bool {
    site.purge.allow.iter().any(|net| net.contains(&address))
}

/// The sites that one request may purge.
#[derive(Debug)]
struct Reach {
    sites: Vec<Arc<Site>>,
    /// They are all that there are.
    is_everything: bool,
}

impl Reach {
    /// All sites of a purger.
    fn of(edge: &Edge, purger: &Purger) -> Self {
        let all = &edge.config().sites;
        let sites: Vec<_> = all.iter().filter(|site| purger.covers(site)).cloned().collect();
        Self { is_everything: sites.len() == all.len(), sites }
    }

    fn one(site: &Arc<Site>) -> Self {
        Self { sites: vec![site.clone()], is_everything: false }
    }

    /// Those of them that another API calls `id`; all, where the configuration has an id of that API for no site at all.
    /// Sites out of reach count: an id of theirs is nobody else's.
    fn named(mut self, edge: &Edge, id: &str, name: impl Fn(&SitePurge) -> &str) -> Option<Self> {
        if edge.config().sites.iter().any(|site| !name(&site.purge).is_empty()) {
            let before = self.sites.len();
            self.sites.retain(|site| name(&site.purge) == id);
            self.is_everything &= self.sites.len() == before;
        }
        (!self.sites.is_empty()).then_some(self)
    }

    /// What a host, a URL or a prefix belongs to has to be in reach.
    fn check<'e>(
        &self,
        found: Result<(&'e Arc<Site>, Selector), BadUrl>,
    ) -> Result<(&'e Arc<Site>, Selector), String> {
        let (site, selector) = found.map_err(|error| error.to_string())?;
        let is_in_reach = self.sites.iter().any(|own| own.index == site.index);
        is_in_reach.then_some((site, selector)).ok_or_else(|| "it belongs to another site".to_owned())
    }
}

/// What is to go.
#[derive(Debug, Default)]
struct Wanted {
    /// Of one site.
    bound: Vec<(Arc<str>, Selector)>,
    /// Of every site in reach.
    free: Vec<Selector>,
    errors: Vec<(String, String)>,
}

impl Wanted {
    fn bind(&mut self, (site, selector): (&Arc<Site>, Selector)) {
        self.bound.push((site.name.clone(), selector));
    }

    /// Adds a list of JSON, entry by entry.
    fn add_urls<'e>(
        &mut self,
        (list, entries): (&str, &[Value]),
        reach: &Reach,
        select: impl Fn(&str) -> Result<(&'e Arc<Site>, Selector), BadUrl>,
    ) {
        for (index, entry) in entries.iter().enumerate() {
            let text = entry.as_str().ok_or_else(|| "a string is needed".to_owned());
            match text.and_then(|text| reach.check(select(text))) {
                Ok(found) => self.bind(found),
                Err(why) => self.errors.push((format!("#/{list}/{index}"), why)),
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.bound.is_empty() && self.free.is_empty() && self.errors.is_empty()
    }

    fn add_tags<'t>(&mut self, list: &str, tags: impl Iterator<Item = Option<&'t str>>) {
        for (index, tag) in tags.enumerate() {
            let tag = tag.ok_or_else(|| "a string is needed".to_owned());
            match tag.and_then(order::tag) {
                Ok(selector) => self.free.push(selector),
                Err(why) => self.errors.push((format!("#/{list}/{index}"), why)),
            }
        }
    }

    /// One purge if it can be: of one site, or of all. Otherwise one of each site, so that everybody sees in the log
    /// what concerns them and nobody what does not.
    fn requests(self, reach: &Reach, request: &Request) -> Vec<Request> {
        let of_site = |site: Option<&Arc<str>>, selectors| Request {
            site: site.map(|site| (&**site).into()),
            selectors,
            ..request.clone()
        };
        let mut names: Vec<_> = reach.sites.iter().map(|site| site.name.clone()).collect();
        if self.free.is_empty() {
            names.retain(|name| self.bound.iter().any(|(own, _)| own == name));
        }
        if reach.is_everything && names.len() > 1 {
            let bound = self.bound.into_iter().map(|(_, selector)| selector);
            return vec![of_site(None, bound.chain(self.free).collect())];
        }
        let selectors = |name: &Arc<str>| {
            let bound = self.bound.iter().filter(|(own, _)| own == name).map(|(_, selector)| selector);
            bound.chain(&self.free).cloned().collect()
        };
        names.iter().map(|name| of_site(Some(name), selectors(name))).collect()
    }
}

/// A purge in another API's words, understood.
#[derive(Debug)]
struct Order {
    wanted: Wanted,
    reach: Reach,
    soft: bool,
    source: Source,
}

impl Control {
    /// Who purges on the admin listener.
    fn purger(&self, headers: &HeaderMap, conn: &ConnInfo) -> Result<Purger, Problem> {
        let token = self.tokens.authenticate_key(headers, conn, self.parts.clock.now())?;
        token.check_scope("purge")?;
        let purger = Purger { token: Some(token), address: Some(conn.peer.ip().to_canonical()) };
        Ok(purger)
    }

    /// All of it, or an error; several purges wait for the disk together.
    async fn carry_out(self: &Arc<Self>, order: Order, purger: &Purger) -> Result<Arc<Purge>, Problem> {
        let Order { wanted, reach, soft, source } = order;
        if !wanted.errors.is_empty() {
            let detail = format!("{} entries are wrong; nothing was purged", wanted.errors.len());
            return Err(order::wrong(&detail, wanted.errors));
        }
        let entries = wanted.bound.len() + wanted.free.len();
        if entries > MAX_ENTRIES {
            let detail = format!("a purge has at most {MAX_ENTRIES} entries, and this one has {entries}");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail));
        }
        if entries == 0 {
            return Err(bad("the purge names nothing"));
        }
        if wanted.free.contains(&Selector::All)
            && let Some(token) = &purger.token
        {
            token.check_scope("purge:all")?;
        }
        let request = Request {
            site: None,
            selectors: Vec::new(),
            soft,
            note: None,
            who: purger.name().into(),
            from: purger.address,
            source,
        };
        let mut purging = JoinSet::new();
        for request in wanted.requests(&reach, &request) {
            let control = self.clone();
            purging.spawn(async move { control.purge(request).await });
        }
        let mut first = None;
        while let Some(purged) = purging.join_next().await {
            let purge = purged.unwrap_or_else(|error| {
                let detail = format!("the purge broke off: {error}");
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "broken", detail))
            })?;
            first.get_or_insert(purge);
        }
        first.ok_or_else(|| bad("the purge names nothing"))
    }
}

/// Fastly's word for a purge that leaves what is stale.
fn is_soft(headers: &HeaderMap) -> Result<bool, Problem> {
    match headers.get(FASTLY_SOFT_PURGE).map(|value| value.as_bytes().trim_ascii()) {
        None | Some(b"" | b"0") => Ok(false),
        Some(b"1") => Ok(true),
        Some(_) => Err(bad("Fastly-Soft-Purge is 1 or 0; nothing was purged")),
    }
}

/// What is percent-encoded in a path and no UTF-8.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreadable(path: PathRejection) -> Problem {
    bad(format!("{}; nothing was purged", path.body_text()))
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-purge", detail)
}
