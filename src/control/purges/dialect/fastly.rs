//! Fastly's purge API.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::super::problem::Problem;
use super::super::super::{Control, body};
use super::{Order, Purger, Reach, Wanted, bad, is_soft, unreadable};
use crate::net::ConnInfo;
use crate::purge::{Purge, Selector, Source};

pub(super) const SURROGATE_KEY: &str = "surrogate-key";
pub(super) const PURGE_ENVIRONMENT: &str = "fastly-purge-environment";

/// An error as Fastly's clients read it.
pub(super) struct Failure(Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        self.0.msg().map(Body::from)
    }
}

type Answer = Result<Json<Value>, Failure>;
type Asked = (State<Arc<Control>>, Extension<Arc<ConnInfo>>, HeaderMap);

/// `POST /purge/{host}/{path}`
pub(super) async fn url(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let purger = control.purger(&headers, &conn)?;
    let edge = control.parts.edge.current();
    let reach = Reach::of(&edge, &purger);
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let target = target.strip_prefix("/purge/").unwrap_or(target);
    let is_whole = ["http://", "https://"].iter().any(|scheme| target.starts_with(scheme));
    let url = if is_whole { target.to_owned() } else { format!("https://{target}") };
    let mut wanted = Wanted::default();
    let found = reach.check(edge.select_url(&url));
    wanted.bind(found.map_err(|why| bad(format!("{why}; nothing was purged")))?);
    control.fastly(purger, reach, wanted, &headers).await.map(|purge| Json(ok(&purge)))
}

/// `POST /service/{id}/purge/{key}`
pub(super) async fn key(asked: Asked, path: Result<Path<(String, String)>, PathRejection>) -> Answer {
    let Path((service, key)) = path.map_err(unreadable)?;
    let (purger, reach) = asked.service(&service)?;
    let mut wanted = Wanted::default();
    wanted.add_tags("key", std::iter::once(Some(&*key)));
    let (State(control), _, headers) = asked;
    control.fastly(purger, reach, wanted, &headers).await.map(|purge| Json(ok(&purge)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    surrogate_keys: Vec<Value>,
}

/// `POST /service/{id}/purge`: keys in the body, or in a field.
pub(super) async fn keys(asked: Asked, path: Result<Path<String>, PathRejection>, body: Body) -> Answer {
    let Path(service) = path.map_err(unreadable)?;
    let (purger, reach) = asked.service(&service)?;
    let (State(control), _, headers) = asked;
    let body = body::read(&headers, body, super::super::MAX_BODY_BYTES).await?;
    let listed: Keys = match &*body {
        [] => Keys::default(),
        body => body::parse(body)
            .map_err(|why| bad(format!("the body is no list of keys: {why}; nothing was purged")))?,
    };
    let lines = headers.get_all(SURROGATE_KEY).iter();
    let lines: Result<Vec<&str>, _> = lines.map(|line| std::str::from_utf8(line.as_bytes())).collect();
    let lines = lines.map_err(|_| bad("Surrogate-Key is not UTF-8; nothing was purged"))?;
    let of_field = lines.iter().flat_map(|line| line.split_ascii_whitespace());
    let keys: Vec<Option<&str>> =
        listed.surrogate_keys.iter().map(Value::as_str).chain(of_field.map(Some)).collect();
    let mut wanted = Wanted::default();
    wanted.add_tags("surrogate_keys", keys.iter().copied());
    let purge = control.fastly(purger, reach, wanted, &headers).await?;
    let ids = keys.iter().flatten().map(|key| ((*key).to_owned(), json!(purge.id)));
    Ok(Json(Value::Object(ids.collect::<Map<_, _>>())))
}

/// `POST /service/{id}/purge_all`
pub(super) async fn all(asked: Asked, path: Result<Path<String>, PathRejection>) -> Answer {
    let Path(service) = path.map_err(unreadable)?;
    let (purger, reach) = asked.service(&service)?;
    let (State(control), _, headers) = asked;
    let wanted = Wanted { free: vec![Selector::All], ..Wanted::default() };
    control.fastly(purger, reach, wanted, &headers).await.map(|purge| Json(ok(&purge)))
}

trait OfService {
    fn service(&self, id: &str) -> Result<(Purger, Reach), Problem>;
}

impl OfService for Asked {
    /// Who asks, and what the service stands for.
    fn service(&self, id: &str) -> Result<(Purger, Reach), Problem> {
        let (State(control), Extension(conn), headers) = self;
        let purger = control.purger(headers, conn)?;
        let edge = control.parts.edge.current();
        let reach = Reach::of(&edge, &purger).named(&edge, id, |purge| &purge.fastly_service);
        let reach = reach.ok_or_else(|| {
            let detail = format!(
                "no site of the token {:?} has the service {id:?}; nothing was purged",
                purger.name()
            );
            Problem::new(StatusCode::NOT_FOUND, "no-such-service", detail)
        })?;
        Ok((purger, reach))
    }
}

impl Control {
    async fn fastly(
        self: &Arc<Self>,
        purger: Purger,
        reach: Reach,
        wanted: Wanted,
        headers: &HeaderMap,
    ) -> Result<Arc<Purge>, Failure> {
        if headers.contains_key(PURGE_ENVIRONMENT) {
            return Err(bad("there is no staging environment to be purged; nothing was purged").into());
        }
        let order = Order { wanted, reach, soft: is_soft(headers)?, source: Source::Fastly };
        Ok(self.carry_out(order, &purger).await?)
    }
}

fn ok(purge: &Purge) -> Value {
    json!({ "status": "ok", "id": purge.id })
}
