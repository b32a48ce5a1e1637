//! How many fetches for the cache may be under way at once: of the node, of a site, of an origin. Who follows one takes
//! nothing.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Edge;
use super::config::Treatment;
use crate::origin::OriginError;

/// A bound on fetches under way; its clones share it.
#[derive(Clone, Debug)]
pub struct Fills {
    turns: Arc<Semaphore>,
    most: usize,
}

impl Fills {
    /// At most so many at once.
    pub fn new(most: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))), most }
    }

    /// The share of it that is taken, from 0 to 1.
    pub fn used(&self) -> f64 {
        let most = self.most.clamp(1, Semaphore::MAX_PERMITS);
        1.0 - self.turns.available_permits() as f64 / most as f64
    }

    /// Whether a quarter is left for others, with one more under way.
    pub(super) fn has_spare(&self) -> bool {
        self.turns.available_permits() > self.most / 4
    }

    /// How many at most.
    pub fn most(&self) -> usize {
        self.most
    }
}

/// The right to fetch, as long as it lives.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: [OwnedSemaphorePermit; 3],
}

impl Edge {
    /// A turn for one more fetch.
    ///
    /// # Errors
    /// Too many are under way.
    pub(super) fn turn_of(&self, treatment: &Treatment) -> Result<Turn, OriginError> {
        let take =
            |turns: &Arc<Semaphore>| turns.clone().try_acquire_owned().map_err(|_| OriginError::TooManyFills);
        let of_site = take(&treatment.fills.turns)?;
        let of_origin = take(treatment.origin.fills())?;
        Ok(Turn { _permits: [of_site, of_origin, take(&self.config.fills.turns)?] })
    }
}
