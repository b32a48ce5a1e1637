//! `/v1/purges`: purging, and the log of purges.

pub(super) mod dialect;
mod order;
mod show;

pub(super) use show::selector as describe;

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::auth::TokenConfig;
use super::page::{AskedId, AskedQuery};
use super::problem::Problem;
use super::{Control, body, page, scans};
use crate::net::ConnInfo;
use crate::purge::{Probe, Purge, PurgeError, Request, Source};

/// Of a request's body.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Entries of a purge that a list shows.
const LISTED_SELECTORS: usize = 10;
/// How the command line of this program names itself.
pub(crate) const CLI_AGENT: &str = concat!("larder-cli/", env!("CARGO_PKG_VERSION"));

/// `POST /v1/purges`
pub(super) async fn create(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let token = control.tokens.authorize(&headers, &conn, "purge", control.parts.clock.now())?;
    let body = body::read(&headers, body, MAX_BODY_BYTES).await?;
    let order = order::parse(&body)?;
    let (site, selectors) = order.resolve(&token, &control.parts.edge.current())?;
    if order.dry_run {
        let (edge, probe) = (control.parts.edge.current(), Probe::new(&selectors, site.as_deref()));
        let count = control.scans.run(move || scans::count(&edge, &probe)).await?;
        return Ok(Json(show::dry_run(&count)).into_response());
    }
    let is_cli =
        headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes() == CLI_AGENT.as_bytes());
    let request = Request {
        site: site.as_deref().map(Into::into),
        selectors,
        soft: order.soft,
        note: order.note.map(Into::into),
        who: token.name.as_str().into(),
        from: Some(conn.peer.ip().to_canonical()),
        source: if is_cli { Source::Cli } else { Source::Api },
    };
    let purge = control.purge(request).await?;
    let mut answer = show::summary(&purge);
    answer["nodes"] = show::nodes(&purge, &control.parts.name);
    let location = location(&purge).map(|location| [(header::LOCATION, location)]);
    Ok((StatusCode::CREATED, location, Json(answer)).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    limit: Option<String>,
    after: Option<String>,
}

/// `GET /v1/purges`, the newest first.
pub(super) async fn list(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    page: AskedQuery<Page>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let token = control.reader(&headers, &conn)?;
    let page = page::query(page)?;
    let (limit, mut after) = page::read::<u64>(page.limit.as_deref(), page.after.as_deref())?;
    let mut items = Vec::new();
    let next = loop {
        let page = control.parts.purges.list(after, limit);
        let is_last = page.len() < limit;
        for purge in page {
            if items.len() == limit {
                break;
            }
            after = Some(purge.seq);
            if may_see(&token, &purge) {
                items.push(show::purge(&purge, LISTED_SELECTORS));
            }
        }
        if items.len() == limit || is_last {
            let has_more = !control.parts.purges.list(after, 1).is_empty();
            break after.filter(|_| has_more).map(|seq| seq.to_string());
        }
    };
    Ok(Json(json!({ "items": items, "next": next })))
}

/// `GET /v1/purges/{id}`
pub(super) async fn show(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    id: AskedId,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let token = control.reader(&headers, &conn)?;
    let id = page::id(id)?;
    let purge = control.parts.purges.get(&id).filter(|purge| may_see(&token, purge)).ok_or_else(|| {
        let detail = format!("there is no purge {id:?}, or it is too long ago");
        Problem::new(StatusCode::NOT_FOUND, "no-such-purge", detail)
    })?;
    let mut answer = show::purge(&purge, usize::MAX);
    answer["nodes"] = show::nodes(&purge, &control.parts.name);
    Ok(Json(answer))
}

impl Control {
    /// Purges, or says what is wrong.
    pub(super) async fn purge(&self, request: Request) -> Result<Arc<Purge>, Problem> {
        let purged = self.parts.purges.purge(request).await;
        match &purged {
            Ok(purge) => self.audit.purged(purge, true),
            Err(PurgeError::NotDurable(purge)) => self.audit.purged(purge, false),
            Err(_) => {}
        }
        purged.map_err(|error| {
            let detail = error.to_string();
            match error {
                PurgeError::Request(_) => Problem::new(StatusCode::BAD_REQUEST, "bad-purge", detail),
                PurgeError::NotDurable(purge) => {
                    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "purge-not-durable", detail);
                    match location(&purge) {
                        Some(location) => problem.with(header::LOCATION, location),
                        None => problem,
                    }
                }
                PurgeError::Closed => Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "closing",
                    "the node ends; purge again when it is back",
                ),
            }
        })
    }

    /// Who purges may look at purges too.
    fn reader(&self, headers: &HeaderMap, conn: &ConnInfo) -> Result<Arc<TokenConfig>, Problem> {
        let token = self.tokens.authenticate(headers, conn, self.parts.clock.now())?;
        if !token.allows("purge") {
            token.check_scope("read")?;
        }
        Ok(token)
    }
}

/// What concerns all sites is for tokens of all sites.
fn may_see(token: &TokenConfig, purge: &Purge) -> bool {
    purge.request.site.as_deref().map_or(token.sites.is_empty(), |site| token.covers(site))
}

fn location(purge: &Purge) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("/v1/purges/{}", purge.id)).ok()
}
