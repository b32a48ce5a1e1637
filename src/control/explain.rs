//! `POST /v1/explain`: how the node would treat a request.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::problem::Problem;
use super::{Control, body};
use crate::edge::Explanation;
use crate::net::ConnInfo;

const MAX_BODY_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    url: String,
    #[serde(default)]
    headers: Map<String, Value>,
}

/// `POST /v1/explain` `{"url":"…","headers":{}}`
pub(super) async fn explain(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Explanation>, Problem> {
    let token = control.tokens.authorize(&headers, &conn, "read", control.parts.clock.now())?;
    let body = body::read(&headers, body, MAX_BODY_BYTES).await?;
    let bad = |pointer: &str, detail: String| {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail.clone()).at(pointer, detail)
    };
    let asked: Asked = body::parse(&body).map_err(|why| bad("#", why))?;
    let edge = control.parts.edge.current();
    let located = edge.locate(&asked.url).map_err(|error| bad("#/url", error.to_string()))?;
    token.check_site(&located.site)?;
    if asked.headers.len() > MAX_HEADERS {
        return Err(bad("#/headers", format!("there are more than {MAX_HEADERS} fields")));
    }
    let mut fields = HeaderMap::new();
    for (name, value) in &asked.headers {
        // As RFC 6901 wants it.
        let pointer = format!("#/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        let values = match value {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let Some(text) = value.as_str() else {
                return Err(bad(&pointer, "a string, or a list of strings, is needed".into()));
            };
            let field = HeaderName::try_from(name.as_str());
            let field = field.map_err(|_| bad(&pointer, format!("{name:?} is no name of a field")))?;
            let value = HeaderValue::try_from(text);
            fields.append(field, value.map_err(|_| bad(&pointer, "this is no value of a field".into()))?);
        }
    }
    let told = edge.explain(&asked.url, &fields, conn.peer).await;
    Ok(Json(told.map_err(|error| bad("#/url", error.to_string()))?))
}
