//! A file of the simulated disk: what is on the medium, what only the page cache has, and what is left of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::faults::Random;
use crate::region::memory_file;

/// What a medium writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;

/// A file, whatever its name.
#[derive(Debug)]
pub(super) struct Inode(pub(super) Mutex<Content>);

#[derive(Debug)]
pub(super) struct Content {
    synced: Vec<u8>,
    /// Writes since the last sync, with their offsets.
    journal: Vec<(u64, Vec<u8>)>,
    /// What the page cache shows: made when it is first opened.
    view: Option<Arc<File>>,
    pub(super) sync_failed: bool,
}

impl Inode {
    pub(super) fn new(len: u64) -> Arc<Self> {
        Self::with(vec![0; len as usize], Vec::new())
    }

    fn with(synced: Vec<u8>, journal: Vec<(u64, Vec<u8>)>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Content { synced, journal, view: None, sync_failed: false })))
    }

    pub(super) fn after_kill(&self) -> Arc<Self> {
        let content = self.0.lock();
        Self::with(content.synced.clone(), content.journal.clone())
    }

    pub(super) fn after_power_loss(&self, random: &mut Random) -> Arc<Self> {
        let content = self.0.lock();
        let mut image = content.synced.clone();
        let mut writes: Vec<&(u64, Vec<u8>)> = content.journal.iter().collect();
        random.shuffle(&mut writes);
        // Of four parts of what was not synced: from nothing to everything.
        let kept = random.below(5);
        for (offset, bytes) in writes {
            let is_torn = random.one_in(2);
            let mut keeps = random.below(4) < kept;
            let mut at = 0;
            while at < bytes.len() {
                let start = *offset as usize + at;
                let end = bytes.len().min(at + SECTOR_BYTES - start % SECTOR_BYTES);
                if is_torn {
                    keeps = random.below(4) < kept;
                }
                if keeps {
                    overwrite(&mut image, &bytes[at..end], start);
                }
                at = end;
            }
        }
        Self::with(image, Vec::new())
    }
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        let ends = self.journal.iter().map(|(offset, bytes)| offset + bytes.len() as u64);
        ends.fold(self.synced.len() as u64, u64::max)
    }

    /// What a reader sees.
    pub(super) fn image(&self) -> Vec<u8> {
        let mut image = self.synced.clone();
        for (offset, bytes) in &self.journal {
            overwrite(&mut image, bytes, *offset as usize);
        }
        image
    }

    pub(super) fn view(&mut self) -> io::Result<Arc<File>> {
        if let Some(view) = &self.view {
            return Ok(view.clone());
        }
        let view = Arc::new(memory_file("larder-sim", self.len())?);
        view.write_all_at(&self.image(), 0)?;
        self.view = Some(view.clone());
        Ok(view)
    }

    pub(super) fn write(&mut self, bytes: Vec<u8>, offset: u64) -> io::Result<()> {
        self.view()?.write_all_at(&bytes, offset)?;
        self.journal.push((offset, bytes));
        Ok(())
    }

    pub(super) fn flush(&mut self) {
        self.synced = self.image();
        self.journal.clear();
    }
}

fn overwrite(image: &mut Vec<u8>, bytes: &[u8], offset: usize) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}
