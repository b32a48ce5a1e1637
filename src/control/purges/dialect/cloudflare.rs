//! Cloudflare's purge API.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::super::problem::Problem;
use super::super::super::{Control, body};
use super::{Order, Reach, Wanted, bad, unreadable};
use crate::net::ConnInfo;
use crate::purge::{Selector, Source};

/// Cloudflare's numbers for what goes wrong.
mod code {
    pub(super) const AUTHENTICATION: u32 = 10000;
    pub(super) const UNAUTHORIZED: u32 = 9109;
    pub(super) const NO_ROUTE: u32 = 7003;
    pub(super) const BAD_PURGE: u32 = 1012;
    pub(super) const TOO_MANY_REQUESTS: u32 = 971;
    pub(super) const INTERNAL: u32 = 10013;
}

/// An error in the envelope that Cloudflare's clients read.
pub(super) struct Failure(Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = match self.0.status() {
            StatusCode::UNAUTHORIZED => code::AUTHENTICATION,
            StatusCode::FORBIDDEN => code::UNAUTHORIZED,
            StatusCode::NOT_FOUND => code::NO_ROUTE,
            StatusCode::TOO_MANY_REQUESTS => code::TOO_MANY_REQUESTS,
            status if status.is_server_error() => code::INTERNAL,
            _ => code::BAD_PURGE,
        };
        self.0.envelope(code).map(Body::from)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Purging {
    files: Vec<Value>,
    tags: Vec<Value>,
    hosts: Vec<Value>,
    prefixes: Vec<Value>,
    purge_everything: bool,
}

/// `POST` or `DELETE /client/v4/zones/{zone}/purge_cache`
pub(super) async fn purge_cache(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Failure> {
    let Path(zone) = path.map_err(unreadable)?;
    let purger = control.purger(&headers, &conn)?;
    let edge = control.parts.edge.current();
    let reach = Reach::of(&edge, &purger).named(&edge, &zone, |purge| &purge.cloudflare_zone);
    let reach = reach.ok_or_else(|| {
        let detail =
            format!("no site of the token {:?} has the zone {zone:?}; nothing was purged", purger.name());
        Problem::new(StatusCode::NOT_FOUND, "no-such-zone", detail)
    })?;
    let body = body::read(&headers, body, super::super::MAX_BODY_BYTES).await?;
    let purging: Purging =
        body::parse(&body).map_err(|why| bad(format!("the body is no purge: {why}; nothing was purged")))?;
    let mut wanted = Wanted::default();
    let files: Vec<Value> = purging.files.iter().map(file).collect();
    wanted.add_urls(("files", &files), &reach, |url| edge.select_url(url));
    wanted.add_urls(("hosts", &purging.hosts), &reach, |host| edge.select_host(host));
    wanted.add_urls(("prefixes", &purging.prefixes), &reach, |prefix| edge.select_prefix(prefix));
    wanted.add_tags("tags", purging.tags.iter().map(Value::as_str));
    if purging.purge_everything {
        if !wanted.is_empty() {
            return Err(bad("purge_everything stands alone: leave the lists out; nothing was purged").into());
        }
        wanted.free.push(Selector::All);
    }
    if wanted.is_empty() {
        let detail = "one of purge_everything, files, tags, hosts and prefixes is needed; nothing was purged";
        return Err(bad(detail).into());
    }
    let order = Order { wanted, reach, soft: false, source: Source::Cloudflare };
    let purge = control.carry_out(order, &purger).await?;
    Ok(Json(json!({ "success": true, "errors": [], "messages": [], "result": { "id": purge.id } })))
}

/// A URL, or one with the fields of one of its variants: all variants go.
fn file(file: &Value) -> Value {
    match file {
        Value::Object(of) if of.keys().all(|key| key == "url" || key == "headers") => {
            of.get("url").cloned().unwrap_or_default()
        }
        file => file.clone(),
    }
}
