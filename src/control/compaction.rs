//! When the log of purges is written anew without what can hit nothing any more.
//!
//! A purge hits what is older than it. So entries below the oldest object's `as_of` are of no use; the oldest is found by
//! a walk over all that is held, and what is on its way into the store is considered first:
//!
//! ```text
//! 1  fetches   the lowest `as_of` of what is being fetched, or else the last purge: what is stored from here on is no older
//! 2  objects   the lowest `as_of` of what is stored, in memory and on disk
//! 3  compact   below the lower of the two
//! ```
//!
//! A minimum that is too high can't bring a purged object back: what is older than the floor counts as purged
//! (`purge::Purges::compact`). It would cost objects that need not go; so fetches come first, and jobs that store come
//! as fetches.

use std::sync::Arc;
use std::time::Duration;

use super::Control;

/// Between two looks at the log.
const EVERY: Duration = Duration::from_secs(5);
/// Entries that people may still want to see stay in any case, so fewer are not worth a walk.
const WORTH: u64 = 20_000;

impl Control {
    /// Keeps the log of purges short, as long as the node runs.
    pub async fn compact_purges(self: Arc<Self>) {
        let mut left = 0;
        loop {
            tokio::time::sleep(EVERY).await;
            // Where the oldest object stays, so does the log: not again before it has grown by half.
            if self.parts.purges.stats().entries < WORTH.max(left + left / 2) {
                continue;
            }
            let control = self.clone();
            match self.scans.run(move || control.compact_once()).await {
                Ok(Ok(entries)) => left = entries,
                Ok(Err(error)) => tracing::warn!(%error, "the log of purges could not be compacted"),
                // Others walk; it is tried again.
                Err(_) => {}
            }
        }
    }

    /// Drops what can hit nothing; gives the entries that are left. Waits for the disk.
    fn compact_once(&self) -> std::io::Result<u64> {
        let purges = &self.parts.purges;
        let before = purges.stats().entries;
        let Some(below) = self.parts.edge.current().oldest_as_of() else { return Ok(before) };
        purges.compact(below)?;
        let entries = purges.stats().entries;
        tracing::info!(before, entries, "the log of purges was compacted");
        Ok(entries)
    }
}
