//! `/v1/warmups`: jobs are made, listed, shown and cancelled.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::auth::TokenConfig;
use super::super::page::{self, AskedId, AskedQuery};
use super::super::problem::Problem;
use super::super::{CLI_AGENT, Control, body};
use super::job::Job;
use super::order::{self, Checked, Sites, bad};
use super::record::Spec;
use super::run::fields_of;
use super::show::{self, Wanted};
use super::sitemap::{self, Tree};
use super::{Full, Warmups};
use crate::net::ConnInfo;

/// Of a request's body.
const MAX_BODY_BYTES: usize = 1 << 20;
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// For a sitemap and all that it names.
const SITEMAP_TIMEOUT: Duration = Duration::from_secs(25);
/// URLs of a sitemap that are no site's, of which one answer tells.
const MAX_ERRORS: usize = 20;

/// `POST /v1/warmups`
pub(in super::super) async fn create(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let token = control.tokens.authorize(&headers, &conn, "warm", control.parts.clock.now())?;
    let warmups = &control.parts.warmups;
    let body = body::read(&headers, body, MAX_BODY_BYTES).await?;
    let order = order::parse(&body)?;
    let mut checked = order.check(&token, &warmups.edge.current())?;
    if let Some(sitemap) = &order.sitemap {
        let reading = read_sitemap(warmups, &token, sitemap, &mut checked);
        tokio::time::timeout(SITEMAP_TIMEOUT, reading).await.map_err(|_| {
            let detail = format!("the sitemap took more than {} s to read", SITEMAP_TIMEOUT.as_secs());
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "sitemap-timeout", &detail).at("#/sitemap", detail)
        })??;
    }
    let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
    let Checked { site, urls, sites, encodings, headers, rate, concurrency, hold_secs } = checked;
    let spec = Spec {
        seq: 0,
        id: String::new(),
        site,
        sites,
        sitemap: order.sitemap,
        encodings,
        headers,
        rate,
        concurrency,
        refresh: order.refresh,
        hold_secs,
        who: token.name.clone(),
        from: Some(conn.peer.ip().to_canonical()),
        source: if agent == Some(CLI_AGENT.as_bytes()) { "cli" } else { "api" }.into(),
        created_ms: control.parts.clock.now().0,
        urls,
    };
    let job = warmups.add(spec).await.map_err(|full: Full| {
        if let Full::Leaving = full {
            return leaving();
        }
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-warmups", full.to_string());
        problem.with(header::RETRY_AFTER, HeaderValue::from_static("60"))
    })?;
    let location = HeaderValue::try_from(format!("/v1/warmups/{}", job.spec.id)).ok();
    let location = location.map(|location| [(header::LOCATION, location)]);
    Ok((StatusCode::ACCEPTED, location, Json(warmups.shown(&job))).into_response())
}

/// Adds what a sitemap, and those it names, have. Each is asked for as a client of the site would, so that it is a
/// site's origin that answers, and no other host.
async fn read_sitemap(
    warmups: &Arc<Warmups>,
    token: &TokenConfig,
    root: &str,
    checked: &mut Checked,
) -> Result<(), Problem> {
    let no = |why: String| bad(&format!("the sitemap can't be used: {why}")).at("#/sitemap", why);
    let _turn = warmups.sitemaps.acquire().await.map_err(|_| no("the node ends".into()))?;
    let edge = warmups.edge.current();
    let mut tree = Tree::new(root);
    while let Some((url, depth)) = tree.left.pop() {
        let why = |why: String| no(format!("{url}: {why}"));
        let site = checked.site.as_deref();
        Sites::new(site, token, &edge).check(&url).map_err(why)?;
        let warming = edge.warming(&url, fields_of("identity", &[]));
        let warming = warming.map_err(|error| why(error.to_string()))?;
        let file = edge.read_whole(&warming, sitemap::MAX_FILE_BYTES).await.map_err(why)?;
        let parsed = tokio::task::spawn_blocking(move || sitemap::parse(&file)).await;
        let found = parsed.unwrap_or_else(|error| Err(error.to_string())).map_err(why)?;
        tree.add(found, depth).map_err(no)?;
    }
    let mut sites = Sites::new(checked.site.as_deref(), token, &edge);
    sites.found = std::mem::take(&mut checked.sites);
    let mut wrong = Vec::new();
    for (index, url) in tree.urls.iter().enumerate() {
        wrong.extend(sites.check(url).err());
        // Other work of this thread goes on.
        if index % 500 == 0 {
            tokio::task::yield_now().await;
        }
    }
    checked.sites = sites.found;
    if !wrong.is_empty() {
        let detail = format!("{} URLs of the sitemap can't be warmed; nothing is warmed", wrong.len());
        let first = wrong.into_iter().take(MAX_ERRORS);
        return Err(first.fold(bad(&detail), |problem, why| problem.at("#/sitemap", why)));
    }
    if tree.urls.is_empty() && checked.urls.is_empty() {
        return Err(no("it names no URL".into()));
    }
    checked.urls.append(&mut tree.urls);
    checked.check_size()
}

#[derive(Debug, Deserialize)]
pub(in super::super) struct Page {
    limit: Option<String>,
    after: Option<String>,
    outcome: Option<String>,
}

impl Page {
    fn limit(&self) -> Result<usize, Problem> {
        let limit = self.limit.as_ref().map_or(Ok(DEFAULT_LIMIT), |text| text.parse());
        let limit = limit.ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
        limit.ok_or_else(|| bad_page("limit", &format!("a number from 1 to {MAX_LIMIT} is needed")))
    }

    fn after(&self) -> Result<Option<u64>, Problem> {
        let after = self.after.as_ref().map(|text| text.parse()).transpose();
        after.map_err(|_| bad_page("after", "take it from `next` of the page before"))
    }
}

fn bad_page(name: &str, detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-page", format!("{name}: {detail}")).at(name, detail)
}

/// `GET /v1/warmups`, the newest first.
pub(in super::super) async fn list(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    page: AskedQuery<Page>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let token = control.warmer(&headers, &conn)?;
    let page = page::query(page)?;
    let (limit, after) = (page.limit()?, page.after()?);
    let warmups = &control.parts.warmups;
    let seen: Vec<_> = warmups.list(after).into_iter().filter(|job| may_see(&token, job)).collect();
    let next = (seen.len() > limit).then(|| seen[limit - 1].spec.seq.to_string());
    let items: Vec<Value> = seen.iter().take(limit).map(|job| warmups.shown(job)).collect();
    Ok(Json(json!({ "items": items, "next": next })))
}

/// `GET /v1/warmups/{id}`
pub(in super::super) async fn show(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    id: AskedId,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let token = control.warmer(&headers, &conn)?;
    let id = page::id(id)?;
    let warmups = &control.parts.warmups;
    Ok(Json(warmups.shown(&*find(warmups, &token, &id)?)))
}

/// `GET /v1/warmups/{id}/urls?outcome=`
pub(in super::super) async fn urls(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    id: AskedId,
    page: AskedQuery<Page>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let token = control.warmer(&headers, &conn)?;
    let (id, page) = (page::id(id)?, page::query(page)?);
    let job = find(&control.parts.warmups, &token, &id)?;
    let wanted = Wanted::parse(page.outcome.as_deref());
    let wanted = wanted
        .ok_or_else(|| bad_page("outcome", "stored, fresh, uncacheable, failed or waiting is needed"))?;
    let from = usize::try_from(page.after()?.unwrap_or(0)).unwrap_or(usize::MAX);
    let rows = show::urls(&job, wanted, from, page.limit()?);
    Ok(Json(json!({ "items": rows.items, "next": rows.next.map(|next| next.to_string()) })))
}

/// `DELETE /v1/warmups/{id}`: cancels it. What is stored by then stays, and is held no longer; that is all it does to a job
/// that is done.
pub(in super::super) async fn cancel(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    id: AskedId,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let token = control.tokens.authorize(&headers, &conn, "warm", control.parts.clock.now())?;
    let id = page::id(id)?;
    let warmups = &control.parts.warmups;
    let job = find(warmups, &token, &id)?;
    if *warmups.is_paused.borrow() {
        return Err(leaving());
    }
    let by = (token.name.clone(), Some(conn.peer.ip().to_canonical()));
    let is_cancelled = warmups.end(&job, Some(by.clone())).await || warmups.release(&job, Some(by)).await;
    if !is_cancelled && job.state() == super::State::Done {
        let detail = format!("the warm job {id:?} is done already, and holds nothing");
        return Err(Problem::new(StatusCode::CONFLICT, "warmup-done", detail));
    }
    Ok(Json(warmups.shown(&job)))
}

fn leaving() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", Full::Leaving.to_string())
}

impl Control {
    /// Who warms may look at jobs too.
    fn warmer(&self, headers: &HeaderMap, conn: &ConnInfo) -> Result<Arc<TokenConfig>, Problem> {
        let token = self.tokens.authenticate(headers, conn, self.parts.clock.now())?;
        if !token.allows("warm") {
            token.check_scope("read")?;
        }
        Ok(token)
    }
}

impl Warmups {
    fn shown(&self, job: &Job) -> Value {
        show::job(job, self.files.is_some())
    }

    /// Jobs that are not over, in short.
    pub(in super::super) fn status(&self) -> Value {
        let (queued, running) = self.unfinished();
        let jobs = self.list(None).into_iter().filter(|job| !job.state().is_over());
        let jobs: Vec<Value> = jobs.map(|job| show::in_short(&job)).collect();
        json!({ "queued": queued, "running": running, "jobs": jobs })
    }
}

fn find(warmups: &Warmups, token: &TokenConfig, id: &str) -> Result<Arc<Job>, Problem> {
    warmups.get(id).filter(|job| may_see(token, job)).ok_or_else(|| {
        let detail = format!("there is no warm job {id:?}, or it is too long ago");
        Problem::new(StatusCode::NOT_FOUND, "no-such-warmup", detail)
    })
}

fn may_see(token: &TokenConfig, job: &Job) -> bool {
    job.spec.sites.iter().all(|site| token.covers(site))
}
