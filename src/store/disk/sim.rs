//! A disk for tests: it fails by plan, loses its power, and does the same again for the same seed.
//!
//! The files are memfds, so that they are mapped and read like real ones: that is what the page cache shows. Beside it
//! each file has what is on the medium and a journal of the writes since its last sync; a loss of power keeps any part
//! of these. Names follow what [`Directory`](super::io::Directory) promises: only one whose creation or removal did not
//! return, or failed, is uncertain.
//!
//! To crash a workload everywhere: run it once and ask for [`SimDisk::operations`], then for each number below that run
//! it on a new disk with [`SimDisk::stop_at`], and recover from [`SimDisk::crash`] and [`SimDisk::kill`].

mod faults;
mod inode;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::{Range, RangeBounds};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::io::Errno;

pub(super) use faults::Operation;
use faults::{Faults, Outcome, Random};
use inode::Inode;

use super::io::{Disk, DiskFile, write_all};
use crate::region::Mapping;

/// See the module. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What the file system shows.
    names: BTreeMap<u32, Arc<Inode>>,
    /// What a loss of power may make of names that are not shown.
    ghosts: BTreeMap<u32, Ghost>,
    /// Of all files, those without a name included as long as they are held.
    inodes: Vec<Weak<Inode>>,
    faults: Faults,
    random: Random,
}

#[derive(Clone, Debug)]
enum Ghost {
    /// Being created with this length.
    Created(u64),
    /// Being removed.
    Removed(Arc<Inode>),
}

impl SimDisk {
    /// An empty one. The seed decides everything that is left to chance.
    pub(super) fn new(seed: u64) -> Self {
        Self::with(BTreeMap::new(), Random::new(seed))
    }

    fn with(names: BTreeMap<u32, Arc<Inode>>, random: Random) -> Self {
        let inodes = names.values().map(Arc::downgrade).collect();
        let faults = Faults::default();
        Self(Arc::new(Mutex::new(State { names, ghosts: BTreeMap::new(), inodes, faults, random })))
    }

    /// Changes so far: creations, writes, syncs and removals. A short write counts like any other.
    pub(super) fn operations(&self) -> u64 {
        self.0.lock().faults.changes()
    }

    /// Operations of a kind so far.
    pub(super) fn count(&self, operation: Operation) -> u64 {
        self.0.lock().faults.count(operation)
    }

    /// Fails those operations of a kind, counted from 0 since the disk was made.
    pub(super) fn fail(&self, operation: Operation, which: impl RangeBounds<u64>, error: Errno) {
        self.0.lock().faults.fail(operation, which, error);
    }

    /// The power goes, or the process dies, in the middle of that change (from 0, as [`Self::operations`] counts):
    /// it and all that is done from there on fails.
    pub(super) fn stop_at(&self, change: u64) {
        self.0.lock().faults.stop_at(change);
    }

    /// Files that would take more bytes together can't be created (`ENOSPC`).
    pub(super) fn set_capacity(&self, bytes: u64) {
        self.0.lock().faults.capacity = Some(bytes);
    }

    /// Writes fail with `ENOSPC` after so many more bytes, as where preallocated is not promised. The last is short.
    pub(super) fn set_writable(&self, bytes: u64) {
        self.0.lock().faults.writable = Some(bytes);
    }

    /// Each write takes any number of bytes from one on.
    pub(super) fn set_short_writes(&self, on: bool) {
        self.0.lock().faults.short_writes = on;
    }

    /// Nothing is in the page cache: reads that must not wait would block.
    pub(super) fn set_cold(&self, on: bool) {
        self.0.lock().faults.cold = on;
    }

    /// Inverts a byte of a file, on the medium and in the page cache: bit rot.
    pub(super) fn corrupt(&self, id: u32, offset: u64) -> io::Result<()> {
        let inode = self.0.lock().names.get(&id).cloned().ok_or(Errno::NOENT)?;
        let mut content = inode.0.lock();
        let rotten = !content.image()[offset as usize];
        content.write(vec![rotten], offset)?;
        content.flush();
        Ok(())
    }

    /// As it may look after a loss of power at this instant: of each file what was synced and any part of the writes
    /// since then, a sector at a time and in any order.
    pub(super) fn crash(&self, seed: u64) -> Self {
        // Not the numbers that a disk of the same seed draws.
        let mut random = Random::new(seed).fork();
        let state = self.0.lock();
        let mut names: BTreeMap<u32, Arc<Inode>> = BTreeMap::new();
        for (id, inode) in &state.names {
            names.insert(*id, inode.after_power_loss(&mut random));
        }
        for (id, ghost) in &state.ghosts {
            if random.one_in(2) {
                names.insert(*id, ghost.appear(&mut random));
            }
        }
        Self::with(names, random)
    }

    /// As it looks after the process was killed at this instant: the page cache survives. A loss of power may follow.
    pub(super) fn kill(&self) -> Self {
        let state = self.0.lock();
        let mut random = state.random.fork();
        let mut names: BTreeMap<u32, Arc<Inode>> = BTreeMap::new();
        for (id, inode) in &state.names {
            names.insert(*id, inode.after_kill());
        }
        let mut ghosts = state.ghosts.clone();
        for (id, ghost) in &state.ghosts {
            // Of a failed creation the name is gone again, unless there was no time for it.
            if let Ghost::Created(len) = ghost
                && state.faults.is_stopped()
                && random.one_in(2)
            {
                names.insert(*id, Inode::new(random.below(*len + 1)));
                ghosts.remove(id);
            }
        }
        let disk = Self::with(names, random);
        disk.0.lock().ghosts = ghosts;
        disk
    }

    fn file(&self, inode: Arc<Inode>) -> io::Result<Arc<dyn DiskFile>> {
        let view = inode.0.lock().view()?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode, view }))
    }
}

impl Disk for SimDisk {
    fn create(&self, id: u32, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        let outcome = state.faults.begin(Operation::Create);
        if state.names.contains_key(&id) {
            return Err(Errno::EXIST.into());
        }
        if let Outcome::Fail(error) | Outcome::Stop(error) = outcome {
            if !outcome.is_after_stop() {
                state.ghosts.insert(id, Ghost::Created(len));
            }
            return Err(error.into());
        }
        if state.faults.capacity.is_some_and(|capacity| state.used() + len > capacity) {
            return Err(Errno::NOSPC.into());
        }
        let inode = Inode::new(len);
        state.inodes.push(Arc::downgrade(&inode));
        state.names.insert(id, inode.clone());
        state.ghosts.clear();
        drop(state);
        self.file(inode)
    }

    fn list(&self) -> io::Result<Vec<(u32, u64)>> {
        let state = self.0.lock();
        state.faults.check_power()?;
        Ok(state.names.iter().map(|(id, inode)| (*id, inode.0.lock().len())).collect())
    }

    fn open(&self, id: u32) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.0.lock();
        state.faults.check_power()?;
        let inode = state.names.get(&id).cloned().ok_or(Errno::NOENT)?;
        drop(state);
        self.file(inode)
    }

    fn remove(&self, id: u32) -> io::Result<()> {
        let mut state = self.0.lock();
        let outcome = state.faults.begin(Operation::Remove);
        if let Outcome::Fail(error) | Outcome::Stop(error) = outcome {
            // Either the name could not be taken away, or it could and the directory was not synced.
            if !outcome.is_after_stop()
                && state.random.one_in(2)
                && let Some(inode) = state.names.remove(&id)
            {
                state.ghosts.insert(id, Ghost::Removed(inode));
            }
            return Err(error.into());
        }
        state.names.remove(&id);
        state.ghosts.clear();
        Ok(())
    }

    fn is_persistent(&self) -> bool {
        true
    }
}

impl State {
    fn used(&mut self) -> u64 {
        self.inodes.retain(|inode| inode.strong_count() > 0);
        self.inodes.iter().filter_map(Weak::upgrade).map(|inode| inode.0.lock().len()).sum()
    }
}

impl Ghost {
    fn appear(&self, random: &mut Random) -> Arc<Inode> {
        match self {
            // The name may be on the medium before the length is.
            Ghost::Created(len) => Inode::new(if random.one_in(2) { *len } else { random.below(*len + 1) }),
            Ghost::Removed(inode) => inode.after_power_loss(random),
        }
    }
}

/// An open file.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: Arc<Inode>,
    view: Arc<File>,
}

impl SimFile {
    fn write_some(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut bytes = bufs.iter().map(|buf| &**buf).collect::<Vec<&[u8]>>().concat();
        let state = &mut *self.disk.0.lock();
        let outcome = state.faults.begin(Operation::Write);
        if let Outcome::Fail(error) = outcome {
            return Err(error.into());
        }
        let taken = state.faults.take(bytes.len(), outcome, &mut state.random)?;
        bytes.truncate(taken);
        self.inode.0.lock().write(bytes, offset)?;
        match outcome {
            Outcome::Stop(error) => Err(error.into()),
            _ => Ok(taken),
        }
    }
}

impl DiskFile for SimFile {
    fn file(&self) -> BorrowedFd<'_> {
        self.view.as_fd()
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        write_all(bufs, offset, |bufs, offset| self.write_some(bufs, offset))
    }

    fn sync(&self) -> io::Result<()> {
        let outcome = self.disk.0.lock().faults.begin(Operation::Sync);
        let mut content = self.inode.0.lock();
        if let Outcome::Fail(error) | Outcome::Stop(error) = outcome {
            content.sync_failed = true;
            return Err(error.into());
        }
        if content.sync_failed {
            return Err(io::Error::other("an earlier sync of the file failed"));
        }
        content.flush();
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if let Outcome::Fail(error) | Outcome::Stop(error) = self.disk.0.lock().faults.begin(Operation::Read)
        {
            return Err(error.into());
        }
        self.view.read_exact_at(buf, offset)
    }

    /// A page that can't be read is in no memory.
    fn is_in_memory(&self, _: &Mapping, _: Range<u64>) -> bool {
        let faults = &mut self.disk.0.lock().faults;
        !faults.cold && faults.begin(Operation::Read) == Outcome::Go
    }
}

#[cfg(test)]
mod tests;
