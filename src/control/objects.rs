//! `GET /v1/objects?url=`: what the cache holds for a URL.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Query, State};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Control;
use super::problem::Problem;
use crate::net::ConnInfo;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    url: Option<String>,
}

pub(super) async fn objects(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let now = control.parts.clock.now();
    let token = control.tokens.authorize(&headers, &conn, "read", now)?;
    let bad =
        |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad-url", detail.clone()).at("url", detail);
    let url = asked.url.ok_or_else(|| bad("the parameter url is missing: ?url=https://…".into()))?;
    let edge = control.parts.edge.current();
    let located = edge.locate(&url).map_err(|error| bad(error.to_string()))?;
    if !token.covers(&located.site) {
        let detail = format!("the token {:?} is not for the site {:?}", token.name, located.site);
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    let mut items = Vec::new();
    for key in &located.keys {
        items.extend(edge.inspect(key).await);
    }
    Ok(Json(json!({
        "url": url,
        "site": located.site,
        "key": located.keys[0].canonical(),
        "items": items,
        "next": null,
    })))
}
