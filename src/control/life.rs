//! `POST /v1/reload` and `POST /v1/drain`: what an operator may ask of the node as a whole.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::Control;
use super::problem::Problem;
use crate::net::ConnInfo;

/// A reload reads files, and a file system may hang.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Where [`Order`]s go; full when nobody takes them any more.
pub type Orders = mpsc::Sender<Order>;

/// What the node as a whole is told to do.
#[derive(Debug)]
pub enum Order {
    /// Take the configuration as it is now, and say what came of it.
    Reload(Option<oneshot::Sender<Result<Reloaded, Vec<Fault>>>>),
    /// Finish what is begun, and end.
    Drain,
    /// The same, and at once when it is said again.
    Stop,
    /// Hand everything over to a new process.
    Upgrade,
}

/// A reload that took place.
#[derive(Clone, Debug, Default)]
pub struct Reloaded {
    /// What has no effect though it is written there.
    pub warnings: Vec<Fault>,
}

/// Something in a configuration.
#[derive(Clone, Debug)]
pub struct Fault {
    /// `file:line:column`, or what it is about.
    pub place: String,
    /// What is wrong.
    pub detail: String,
}

pub(super) async fn reload(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let token = control.tokens.authorize(&headers, &conn, "admin", control.parts.clock.now())?;
    tracing::info!(by = token.name, "a reload is asked for");
    let (answer, answered) = oneshot::channel();
    control.order(Order::Reload(Some(answer)))?;
    let outcome = tokio::time::timeout(RELOAD_TIMEOUT, answered).await;
    let unknown = || {
        let detail = "the reload has not ended; GET /metrics tells how it does";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    };
    match outcome.map_err(|_| unknown())?.map_err(|_| unknown())? {
        Ok(Reloaded { warnings }) => {
            let line = |fault: &Fault| format!("{}: {}", fault.place, fault.detail);
            let warnings: Vec<String> = warnings.iter().map(line).collect();
            Ok(Json(json!({ "state": "reloaded", "warnings": warnings })))
        }
        Err(faults) => {
            let detail = "the configuration can't be used; nothing was changed";
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-configuration", detail);
            Err(faults.into_iter().fold(problem, |problem, fault| problem.at(&fault.place, fault.detail)))
        }
    }
}

pub(super) async fn drain(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let token = control.tokens.authorize(&headers, &conn, "admin", control.parts.clock.now())?;
    tracing::info!(by = token.name, "a drain is asked for");
    control.order(Order::Drain)?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "state": "draining" }))))
}

impl Control {
    fn order(&self, order: Order) -> Result<(), Problem> {
        self.parts.orders.try_send(order).map_err(|_| {
            let detail = "the node is busy with other orders, or ends; try again";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
        })
    }
}
