//! Walks over everything that is held: one at a time, on a thread of its own, within a time.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use tokio::sync::Semaphore;

use super::problem::Problem;
use crate::edge::{Count, Edge, Holding};

/// What a walk may take. What was found by then is the answer, which says so.
pub(super) const WALK_TIME: Duration = Duration::from_secs(20);
/// What one may wait for those before it.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Who waits, and who walks.
const MAX_WAITING: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Scans {
    turn: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Scans {
    pub(super) fn new() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// Has it done where waiting does no harm.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        walk: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let place = self.waiting.clone().try_acquire_owned().map_err(|_| busy())?;
        let turn = tokio::time::timeout(TURN_TIMEOUT, self.turn.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(busy()) };
        // Who asked may leave; the walk goes on to its end, and the next one waits for it.
        let walked = tokio::task::spawn_blocking(move || {
            let _held = (place, turn);
            walk()
        });
        walked.await.map_err(|_| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the walk over the store failed")
        })
    }
}

fn busy() -> Problem {
    let detail = "the store is being looked through for others; ask again later";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
    problem.with(header::RETRY_AFTER, HeaderValue::from_static("5"))
}

/// What a purge would hit.
pub(super) fn count(edge: &Edge, probe: &crate::purge::Probe) -> Count {
    edge.count_held(&Holding { probe, sites: &[], is_of_all_sites: true, time: WALK_TIME })
}
