//! How a node's end reaches its connections.

use tokio::sync::watch;

/// The phases of a node's life that connections see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accept and serve.
    Run,
    /// Another process accepts: answer what comes on open connections, and have clients leave them.
    Leave,
    /// Accept what is queued, then close the listeners; answer what still comes, and have clients leave: who connected or
    /// sent a request just now has done nothing wrong.
    Drain,
    /// Close what is idle or unused; finish what is begun.
    Close,
    /// End at once.
    Stop,
}

/// Ends when what is unused is closed, or the node stops.
pub(super) async fn close_of(phase: &mut watch::Receiver<Phase>) {
    while matches!(*phase.borrow_and_update(), Phase::Run | Phase::Leave | Phase::Drain) {
        if phase.changed().await.is_err() {
            return;
        }
    }
}
