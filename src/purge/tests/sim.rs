//! A disk for tests: slow, failing, full, and it loses its power.
//!
//! Each file has what the page cache shows and what is on the medium; names likewise. A loss of power keeps of the writes
//! since the last sync any sectors, and of the names any state since the last sync of the directory.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::purge::file::{Disk, LogFile};

const SECTOR: usize = 512;

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

type Names = BTreeMap<String, SimFile>;

#[derive(Debug, Default)]
struct State {
    names: Names,
    /// What a loss of power may make of them: the states since the last sync of the directory, that one first.
    synced: Vec<Names>,
    weather: Arc<Mutex<Weather>>,
}

/// What all files of a disk share.
#[derive(Debug, Default)]
struct Weather {
    plan: Plan,
    syncs: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "any of them alone or with others")]
pub(super) struct Plan {
    pub(super) sync_takes: Duration,
    pub(super) fail_syncs: bool,
    pub(super) fail_writes: bool,
    /// Behind the first page.
    pub(super) fail_reads: bool,
    /// Nothing can be allocated, and nothing written that was not.
    pub(super) is_full: bool,
    pub(super) fail_directory: bool,
}

#[derive(Clone, Debug)]
struct SimFile {
    content: Arc<Mutex<Content>>,
    weather: Arc<Mutex<Weather>>,
}

/// Behind what was written there are zeros.
#[derive(Clone, Debug, Default)]
struct Content {
    shown: Vec<u8>,
    medium: Vec<u8>,
    len: usize,
}

impl SimFile {
    fn new(content: Content, disk: &SimDisk) -> Self {
        Self { content: Arc::new(Mutex::new(content)), weather: disk.0.lock().weather.clone() }
    }
}

impl SimDisk {
    pub(super) fn plan(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.0.lock().weather.lock().plan);
    }

    /// Of files.
    pub(super) fn syncs(&self) -> u64 {
        self.0.lock().weather.lock().syncs
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// What was written to a file.
    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        self.0.lock().names[name].content.lock().shown.clone()
    }

    /// A disk with this one file.
    pub(super) fn with(name: &str, bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        let content = Content { len: bytes.len(), medium: bytes.clone(), shown: bytes };
        let file = SimFile::new(content, &disk);
        disk.0.lock().names.insert(name.into(), file);
        disk
    }

    /// As it may look after a loss of power now; `chance` gives numbers.
    pub(super) fn crash(&self, chance: &mut dyn FnMut() -> u64) -> Self {
        let state = self.0.lock();
        let states = state.synced.len() + 1;
        let names = state.synced.get(chance() as usize % states).unwrap_or(&state.names);
        let after = Self::default();
        for (name, file) in names {
            let content = file.content.lock();
            let mut medium = content.medium.clone();
            medium.resize(content.shown.len(), 0);
            for (old, new) in medium.chunks_mut(SECTOR).zip(content.shown.chunks(SECTOR)) {
                if chance().is_multiple_of(2) {
                    old.copy_from_slice(new);
                }
            }
            let content = Content { len: content.len, shown: medium.clone(), medium };
            let file = SimFile::new(content, &after);
            after.0.lock().names.insert(name.clone(), file);
        }
        after
    }

    fn change(&self, change: impl FnOnce(&mut Names)) {
        let mut state = self.0.lock();
        let before = state.names.clone();
        state.synced.push(before);
        change(&mut state.names);
    }
}

fn failed() -> io::Error {
    io::Error::other("as planned")
}

impl Disk for SimDisk {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn LogFile>>> {
        let file = self.0.lock().names.get(name).cloned();
        Ok(file.map(|file| Arc::new(file) as Arc<dyn LogFile>))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = SimFile::new(Content::default(), self);
        self.change(|names| {
            names.insert(name.into(), file.clone());
        });
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if !self.0.lock().names.contains_key(from) {
            return Err(ErrorKind::NotFound.into());
        }
        self.change(|names| {
            let file = names.remove(from);
            names.extend(file.map(|file| (to.to_owned(), file)));
        });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|names| {
            names.remove(name);
        });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.weather.lock().plan.fail_directory {
            return Err(failed());
        }
        state.synced.clear();
        Ok(())
    }
}

impl LogFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().len as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.weather.lock().plan.fail_reads && offset + buf.len() as u64 > 4096 {
            return Err(failed());
        }
        let content = self.content.lock();
        if offset as usize + buf.len() > content.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let written = content.shown.get(offset as usize..).unwrap_or_default();
        let (written, zeros) = (&written[..written.len().min(buf.len())], written.len().min(buf.len()));
        buf[..zeros].copy_from_slice(written);
        buf[zeros..].fill(0);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let plan = self.weather.lock().plan;
        let mut content = self.content.lock();
        let (start, mut end) = (offset as usize, offset as usize + bytes.len());
        if plan.fail_writes {
            end = start + bytes.len() / 2;
        }
        if plan.is_full {
            end = end.min(content.len.max(start));
        }
        let len = content.shown.len().max(end);
        content.shown.resize(len, 0);
        content.shown[start..end].copy_from_slice(&bytes[..end - start]);
        content.len = content.len.max(end);
        if end - start < bytes.len() { Err(failed()) } else { Ok(()) }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if self.weather.lock().plan.is_full {
            return Err(ErrorKind::StorageFull.into());
        }
        let mut content = self.content.lock();
        content.len = content.len.max(len as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let plan = {
            let mut weather = self.weather.lock();
            weather.syncs += 1;
            weather.plan
        };
        thread::sleep(plan.sync_takes);
        let mut content = self.content.lock();
        if plan.fail_syncs {
            return Err(failed());
        }
        content.medium = content.shown.clone();
        Ok(())
    }
}
