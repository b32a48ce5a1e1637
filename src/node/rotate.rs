//! SIGUSR1: whoever rotates has moved the access log away.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::edge::LiveEdge;

/// Opens the access log anew at each signal from now on.
pub(super) fn watch_signals(edge: Arc<LiveEdge>) {
    match signal(SignalKind::user_defined1()) {
        Ok(mut signals) => {
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    edge.current().access_log().reopen();
                }
            });
        }
        Err(error) => tracing::warn!(%error, "SIGUSR1 can't be watched; the access log is opened once"),
    }
}
