//! `GET /v1/objects` and `GET /v1/tags`: what the cache holds.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::TokenConfig;
use super::page::AskedQuery;
use super::problem::Problem;
use super::scans::WALK_TIME;
use super::{Control, page};
use crate::edge::Holding;
use crate::net::ConnInfo;
use crate::purge::{Probe, Selector};
use crate::store::Position;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    url: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    site: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

/// `GET /v1/objects?url=`, or by `prefix=`, `tag=`, `site=`.
pub(super) async fn objects(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    headers: HeaderMap,
    asked: AskedQuery<Asked>,
) -> Result<Json<Value>, Problem> {
    let token = control.tokens.authorize(&headers, &conn, "read", control.parts.clock.now())?;
    let asked = page::query(asked)?;
    if let Some(url) = &asked.url {
        if asked.prefix.is_some() || asked.tag.is_some() {
            return Err(bad("url", "it stands alone: leave prefix and tag out"));
        }
        return of_url(&control, &token, url, asked.site.as_deref()).await;
    }
    let (limit, after) = page::read::<Position>(asked.limit.as_deref(), asked.after.as_deref())?;
    let site = asked.site.as_deref();
    let selector = match (asked.prefix, asked.tag) {
        (Some(_), Some(_)) => return Err(bad("tag", "it goes not together with prefix")),
        (Some(prefix), None) => {
            let edge = control.parts.edge.current();
            let selected = edge.select_prefix(&prefix);
            let (own, selector) = selected.map_err(|error| bad("prefix", &error.to_string()))?;
            token.check_site(&own.name)?;
            selector
        }
        (None, Some(tag)) => Selector::tag(&tag).map_err(|error| bad("tag", &error.to_string()))?,
        (None, None) if site.is_some() => Selector::All,
        (None, None) => return Err(bad("url", "one of url, prefix, tag and site is needed")),
    };
    let sites = control.sites_of(&token, site)?;
    let (edge, is_of_all_sites) = (control.parts.edge.current(), sites.is_none());
    let probe = Probe::new(&[selector], site);
    let walked = control.scans.run(move || {
        let sites = sites.unwrap_or_default();
        let sites: Vec<&str> = sites.iter().map(String::as_str).collect();
        let asked = Holding { probe: &probe, sites: &sites, is_of_all_sites, time: WALK_TIME };
        edge.list_held(&asked, after, limit)
    });
    let (items, next) = walked.await?;
    Ok(Json(json!({ "items": items, "next": next.map(|next| next.to_string()) })))
}

async fn of_url(
    control: &Control,
    token: &TokenConfig,
    url: &str,
    site: Option<&str>,
) -> Result<Json<Value>, Problem> {
    let located = control.parts.edge.current().locate(url).map_err(|error| bad("url", &error.to_string()))?;
    token.check_site(&located.site)?;
    let mut items = Vec::new();
    if site.is_none_or(|site| *site == *located.site) {
        for key in &located.keys {
            items.extend(control.parts.edge.current().inspect(key).await);
        }
    }
    Ok(Json(json!({
        "url": url,
        "site": located.site,
        "key": located.keys[0].canonical(),
        "items": items,
        "next": null,
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedTags {
    site: Option<String>,
    #[serde(default)]
    prefix: String,
    limit: Option<String>,
    after: Option<String>,
}

/// `GET /v1/tags?site=&prefix=`, in order.
pub(super) async fn tags(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    headers: HeaderMap,
    asked: AskedQuery<AskedTags>,
) -> Result<Json<Value>, Problem> {
    let token = control.tokens.authorize(&headers, &conn, "read", control.parts.clock.now())?;
    let asked = page::query(asked)?;
    let (limit, after) = page::read::<String>(asked.limit.as_deref(), asked.after.as_deref())?;
    let sites = control.sites_of(&token, asked.site.as_deref())?;
    let (edge, is_of_all_sites) = (control.parts.edge.current(), sites.is_none());
    let probe = Probe::new(&[Selector::All], asked.site.as_deref());
    let walked = control.scans.run(move || {
        let sites = sites.unwrap_or_default();
        let sites: Vec<&str> = sites.iter().map(String::as_str).collect();
        let holding = Holding { probe: &probe, sites: &sites, is_of_all_sites, time: WALK_TIME };
        edge.list_tags(&holding, &asked.prefix, after.as_deref(), limit)
    });
    let (found, has_more, is_complete) = walked.await?;
    let next = found.last().filter(|_| has_more).map(|(tag, _)| tag.to_string());
    let item = |(tag, objects): &(Box<str>, u64)| json!({ "tag": tag, "objects": objects });
    let items: Vec<Value> = found.iter().map(item).collect();
    Ok(Json(json!({ "items": items, "next": next, "complete": is_complete })))
}

impl Control {
    /// The sites that an answer may speak of; `None`: all.
    fn sites_of(&self, token: &TokenConfig, site: Option<&str>) -> Result<Option<Vec<String>>, Problem> {
        if let Some(site) = site {
            let is_known = self.parts.edge.current().config().sites.iter().any(|known| *known.name == *site);
            token.check_site(site)?;
            if !is_known {
                return Err(bad("site", &format!("there is no site {site:?}")));
            }
            return Ok(Some(vec![site.to_owned()]));
        }
        Ok((!token.sites.is_empty()).then(|| token.sites.clone()))
    }
}

fn bad(name: &str, detail: &str) -> Problem {
    let word = if name == "url" { "bad-url" } else { "bad-query" };
    Problem::new(StatusCode::BAD_REQUEST, word, format!("{name}: {detail}")).at(name, detail)
}
