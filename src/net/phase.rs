//! How a node's end reaches its connections.

use tokio::sync::watch;

/// The phases of a node's life that connections see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accept and serve.
    Run,
    /// Another process accepts: answer what comes on open connections, and have clients leave them.
    Leave,
    /// Accept what is queued, then close; finish what is begun.
    Drain,
    /// End at once.
    Stop,
}

/// Ends when the node drains or stops.
pub(super) async fn drain_of(phase: &mut watch::Receiver<Phase>) {
    while matches!(*phase.borrow_and_update(), Phase::Run | Phase::Leave) {
        if phase.changed().await.is_err() {
            return;
        }
    }
}
