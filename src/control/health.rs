//! Is it alive, and should it get traffic?

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::Control;
use crate::store::Mode;

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// 503 before the listeners accept and from the beginning of a drain. A node whose disk tier is lost
/// goes on and stays ready.
pub(super) async fn readyz(State(control): State<Arc<Control>>) -> (StatusCode, Json<serde_json::Value>) {
    let is_ready = control.is_ready.load(Relaxed);
    let (code, listeners) =
        if is_ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "draining") };
    let are_up = control.origins().iter().all(|origin| origin.servers().iter().any(|s| s.up));
    let origins = if are_up { "ok" } else { "degraded" };
    let store = match control.parts.store.stats().disk {
        disk if disk.mode == Mode::Ok => "ok".to_owned(),
        disk => format!("degraded: the disk tier is {}", disk.mode.as_str()),
    };
    let parts = serde_json::json!({ "listeners": listeners, "store": store, "origins": origins });
    let state = if is_ready { "ready" } else { "not ready" };
    (code, Json(serde_json::json!({ "status": state, "parts": parts })))
}
