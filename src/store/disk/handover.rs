//! The store in the hands of two processes, one after the other: what the one before does, and how it takes the
//! store back when the other does not come up.
//!
//! A paused writer stores nothing and removes nothing; everything that is stored is readable as before. What
//! changes meanwhile is noted as after a failed write (`Writer::owed`). Fills that were accepted before go on
//! into files without a name, for those who follow them, and are not stored.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::log::{NotWritten, Writer};
use super::ops::Op;
use super::segment::{Origin, Segment};
use super::{Tier, format};

/// Between two looks whether the fills under way are done.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Writer {
    pub(super) fn pause(&mut self, done: oneshot::Sender<()>) {
        self.settle_debts();
        if let Some(active) = self.active.take() {
            active.seal();
        }
        self.is_paused = true;
        // Those before it are sealed, and removed, by then.
        self.tier.shared.chores.run(move || {
            let _ = done.send(());
        });
    }

    /// A segment that is no part of the store.
    pub(super) fn nameless(&mut self) -> Result<Arc<Segment>, NotWritten> {
        let (tier, id) = (&self.tier, self.next_id);
        let length = tier.limits.segment;
        let segment = tier.shared.disk.create_nameless(length).and_then(|file| {
            file.write_at(&[io::IoSlice::new(&format::encode_segment(id, length))], 0)?;
            Segment::map((id, length), file, &Origin::New, &tier.shared, tier.ops.clone(), None)
        });
        let segment = segment.map_err(|error| {
            tracing::warn!(%error, "fills under way can't go on");
            NotWritten
        })?;
        segment.is_for_readers_only();
        self.next_id += 1;
        Ok(segment)
    }

    /// The other process may have made segments: their numbers are not used again.
    pub(super) fn resume(&mut self, done: oneshot::Sender<io::Result<()>>) {
        let listed = self.tier.shared.disk.list().map(|files| {
            let last = files.iter().map(|(id, _)| *id).max().unwrap_or(0);
            self.next_id = self.next_id.max(last + 1);
            self.is_paused = false;
            // What is in it is for readers only.
            self.active = None;
            self.settle_debts();
        });
        let _ = done.send(listed);
    }
}

impl Tier {
    /// Accepts no new fills, waits for those under way, though not for ever, and has everything sealed.
    pub(in crate::store) async fn pause(&self, patience: Duration) {
        if !self.is_persistent() {
            // There is nothing that another process could have.
            return;
        }
        self.is_leaving.store(true, Relaxed);
        let deadline = Instant::now() + patience;
        while self.promised.load(Relaxed) > 0 && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let (done, paused) = oneshot::channel();
        if self.ops.send(Op::Pause(done)).is_ok() {
            let _ = paused.await;
        }
    }

    /// Goes on as before.
    pub(in crate::store) async fn resume(&self) -> io::Result<()> {
        if !self.is_persistent() {
            return Ok(());
        }
        let (done, resumed) = oneshot::channel();
        let ended = || io::Error::other("the store's writer has ended");
        self.ops.send(Op::Resume(done)).map_err(|_| ended())?;
        resumed.await.map_err(|_| ended())??;
        self.is_leaving.store(false, Relaxed);
        Ok(())
    }

    /// The lock of the directory once more, for another process; who holds one of both has it.
    pub(in crate::store) fn share_lock(&self) -> io::Result<Option<OwnedFd>> {
        self.lock.as_ref().map(super::directory::Lock::share).transpose()
    }
}
