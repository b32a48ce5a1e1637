//! `GET /v1/status` and `GET /v1/origins`: the node at a glance.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::{Extension, State};
use http::HeaderMap;
use serde_json::{Value, json};

use super::Control;
use super::problem::Problem;
use crate::net::ConnInfo;
use crate::purge;
use crate::store::Stats;

pub(super) async fn status(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let now = control.parts.clock.now();
    control.tokens.authorize(&headers, &conn, "read", now)?;
    let parts = &control.parts;
    let edge = parts.edge.current();
    let totals = edge.metrics().totals();
    let of = |name: &str| totals.iter().find(|(n, _)| *n == name).map_or(0, |(_, count)| *count);
    let from_cache = of("hit") + of("hit_stale") + of("collapsed") + of("revalidated");
    let cacheable = from_cache + of("miss");
    let hit_ratio = (cacheable > 0).then(|| from_cache as f64 / cacheable as f64);
    let requests: serde_json::Map<String, Value> =
        totals.iter().map(|(name, count)| ((*name).to_owned(), (*count).into())).collect();
    let store = parts.store.stats();
    let sites: Vec<&str> = edge.config().sites.iter().map(|site| &*site.name).collect();
    Ok(Json(json!({
        "node": parts.name,
        "version": env!("CARGO_PKG_VERSION"),
        "state": if control.is_ready.load(Relaxed) { "running" } else { "draining" },
        "uptime_seconds": parts.clock.uptime().as_secs(),
        "connections": parts.connections.open(),
        "requests": requests,
        "hit_ratio": hit_ratio,
        "response_bytes": edge.metrics().bytes(),
        "fetches_in_flight": edge.flights(),
        "access_log_dropped": edge.access_log().dropped(),
        "store": describe_store(&store),
        "purges": describe_purges(&parts.purges.stats()),
        "warmups": parts.warmups.status(),
        "sites": sites,
        "origins": describe_origins(&control),
    })))
}

pub(super) async fn origins(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let now = control.parts.clock.now();
    control.tokens.authorize(&headers, &conn, "read", now)?;
    Ok(Json(json!({ "items": describe_origins(&control) })))
}

fn describe_store(store: &Stats) -> Value {
    let disk = &store.disk;
    let faults: serde_json::Map<String, Value> =
        disk.faults.iter().map(|(kind, count)| ((*kind).to_owned(), (*count).into())).collect();
    json!({
        "memory": {
            "objects": store.objects,
            "bytes": store.resident_bytes,
            "charged_bytes": store.charged_bytes,
            "capacity_bytes": store.capacity_bytes,
        },
        "log": {
            "medium": if disk.is_persistent { "disk" } else { "memory" },
            "state": disk.mode.as_str(),
            "trouble": disk.trouble,
            "objects": disk.objects,
            "index_bytes": disk.index_bytes,
            "capacity_bytes": disk.capacity_bytes,
            "file_bytes": disk.file_bytes,
            "given_up_bytes": disk.given_up_bytes,
            "live_bytes": disk.live_bytes,
            "dead_bytes": disk.used_bytes.saturating_sub(disk.live_bytes),
            "noted_changes": disk.noted_changes,
            "written_changes": disk.written_changes,
            "write_bytes_per_second": disk.write_bytes_per_second,
            "segments": disk.segments,
            "oldest_segment_seconds": disk.oldest_segment_seconds,
            "errors": faults,
        },
    })
}

fn describe_purges(stats: &purge::Stats) -> Value {
    json!({
        "log_entries": stats.entries,
        "log_bytes": stats.bytes,
        "pending_bytes": stats.pending_bytes,
        "failed_syncs": stats.failed_syncs,
        "selectors": stats.selectors,
        "selector_bytes": stats.selector_bytes,
        "damaged_log": stats.damaged,
    })
}

fn describe_origins(control: &Control) -> Vec<Value> {
    let origins = control.origins();
    origins.iter().map(|origin| json!({ "name": origin.name(), "servers": origin.servers() })).collect()
}
