//! What the log needs of a file system, and no more, so that its tests can put a failing and crashing one below it.
//!
//! [`Directory`] is files, [`Memory`] the same without a disk (`disk = 0`). Not here: what is in a segment, when it is
//! synced, mapping it, and waiting: every call may block but [`DiskFile::is_in_memory`].
//!
//! What is certain after a loss of power:
//! - [`Disk::create`] returned: the file is there, in its full length. It syncs file and directory; until it returns the
//!   name may be there or not, with any length up to the asked one. It reads as zeros: nothing was written yet.
//! - [`DiskFile::sync`] returned: all that was written to the file before is there. Of what was written since, any part
//!   may be there, in any order, a sector at a time.
//! - [`Disk::remove`] returned: the name is gone for good. It syncs the directory; until it returns the whole file may
//!   come back, but only then: a segment that comes back after a later one went (with the tombstones of its records)
//!   would bring dead records to life. So removals become final in the order in which they are made.
//!
//! Syncing directories costs a commit of the file system's journal for each segment that comes or goes: some
//! milliseconds in 64 MiB, on a thread of the writer.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, pwritev, retry_on_intr};

use crate::object::Charge;
use crate::region::{Mapping, Spare, memory_file};

/// Buffers that the kernel takes in one call (`IOV_MAX`).
const MAX_BUFFERS: usize = 1024;
/// Stored responses are nobody's business but the node's.
const FILE_MODE: u32 = 0o600;
/// The name of a memory file.
const SEGMENT: &str = "larder-segment";

/// A directory of segment files.
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// Makes a new file of `len` bytes, preallocated. Fails with `AlreadyExists`, `StorageFull` or `QuotaExceeded`
    /// among others, and leaves nothing then.
    fn create(&self, id: u32, len: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Has a file of so many bytes ready before it is made, if that takes memory and not the disk's.
    fn keep_ready(&self, _len: u64, _charge: Charge) {}

    /// A new file that nobody else can open, and whose bytes are free when it is closed.
    fn create_nameless(&self, _len: u64) -> io::Result<Arc<dyn DiskFile>> {
        Err(ErrorKind::Unsupported.into())
    }

    /// Every segment file there is: id and length in bytes, in order of id. Files with other names are left alone.
    fn list(&self) -> io::Result<Vec<(u32, u64)>>;

    /// An existing file.
    fn open(&self, id: u32) -> io::Result<Arc<dyn DiskFile>>;

    /// Takes the name away; the bytes stay as long as somebody holds the file. That it is gone already is fine, so that
    /// a removal that failed can be repeated.
    fn remove(&self, id: u32) -> io::Result<()>;

    /// Whether what is written outlives the process.
    fn is_persistent(&self) -> bool;
}

/// A segment file.
pub(super) trait DiskFile: Send + Sync + fmt::Debug {
    /// For mapping and for reading.
    fn file(&self) -> BorrowedFd<'_>;

    /// All of it or an error; short writes are retried, a write of nothing is `WriteZero`. After an error any part may
    /// be written.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// What is written so far is on the medium when this returns. A file that failed once fails always: the kernel
    /// forgets which pages it could not write, and the next `fdatasync` would succeed without them.
    fn sync(&self) -> io::Result<()>;

    /// Fills the buffer or fails.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Whether a range of its mapping can be read without waiting for the medium.
    fn is_in_memory(&self, mapping: &Mapping, range: Range<u64>) -> bool {
        mapping.is_resident(range)
    }
}

/// `segments/NNNNNNNN.seg` below a directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The directory itself, to sync it.
    handle: File,
}

impl Directory {
    /// Makes `path` and `path/segments` when they are missing.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let segments = path.join("segments");
        make_directory(&segments)?;
        // Once more, for one that was killed before it had synced what it made.
        sync_directory(&File::open(path)?)?;
        Ok(Self { handle: File::open(&segments)?, path: segments })
    }

    fn path_of(&self, id: u32) -> PathBuf {
        self.path.join(file_name(id))
    }

    fn allocate(&self, file: &File, len: u64) -> io::Result<()> {
        match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), 0, len)) {
            // A file system without it (NFS 3, some FUSE): a full disk shows when the file is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(len)?,
            result => result?,
        }
        file.sync_all()?;
        sync_directory(&self.handle)
    }
}

impl Disk for Directory {
    fn create(&self, id: u32, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path_of(id);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(FILE_MODE).open(&path)?;
        if let Err(error) = self.allocate(&file, len) {
            // At best: what comes of it if this fails too is a segment without records.
            let _ = fs::remove_file(&path).and_then(|()| sync_directory(&self.handle));
            return Err(error);
        }
        Ok(Arc::new(SegmentFile::new(file)))
    }

    fn create_nameless(&self, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(format!("leaving-{}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(FILE_MODE).open(&path)?;
        // Before it takes room, so that a process that is killed leaves none taken.
        fs::remove_file(&path)?;
        self.allocate(&file, len)?;
        Ok(Arc::new(SegmentFile::new(file)))
    }

    fn list(&self) -> io::Result<Vec<(u32, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(parse_file_name) else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => found.push((id, metadata.len())),
                Ok(_) => {}
                // Removed in between.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn open(&self, id: u32) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path_of(id);
        let file =
            OpenOptions::new().read(true).write(true).open(&path).or_else(|error| match error.kind() {
                // It is served all the same.
                ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => File::open(&path),
                _ => Err(error),
            })?;
        Ok(Arc::new(SegmentFile::new(file)))
    }

    fn remove(&self, id: u32) -> io::Result<()> {
        match fs::remove_file(self.path_of(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => sync_directory(&self.handle),
        }
    }

    fn is_persistent(&self) -> bool {
        true
    }
}

/// A file of a [`Directory`].
#[derive(Debug)]
struct SegmentFile {
    file: File,
    sync_failed: AtomicBool,
}

impl SegmentFile {
    fn new(file: File) -> Self {
        Self { file, sync_failed: AtomicBool::new(false) }
    }
}

impl DiskFile for SegmentFile {
    fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        write_all(bufs, offset, |bufs, offset| write_some(&self.file, bufs, offset))
    }

    fn sync(&self) -> io::Result<()> {
        if self.sync_failed.load(Relaxed) {
            return Err(io::Error::other("an earlier sync of the file failed"));
        }
        self.file.sync_data().inspect_err(|_| self.sync_failed.store(true, Relaxed))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
}

/// Files without names or a disk. Their pages come as they are written, or all at once where one is [ready](Spare).
#[derive(Debug)]
pub(super) struct Memory {
    files: Mutex<BTreeMap<u32, Arc<MemoryFile>>>,
    spare: Spare<Charge>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { files: Mutex::default(), spare: Spare::new(SEGMENT) }
    }
}

impl Disk for Memory {
    fn keep_ready(&self, len: u64, charge: Charge) {
        self.spare.keep(len, charge);
    }

    fn create(&self, id: u32, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut files = self.files.lock();
        if files.contains_key(&id) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let ready = self.spare.take(len);
        let file = Arc::new(MemoryFile(ready.map_or_else(|| memory_file(SEGMENT, len), Ok)?));
        files.insert(id, file.clone());
        Ok(file)
    }

    fn list(&self) -> io::Result<Vec<(u32, u64)>> {
        let files = self.files.lock();
        files.iter().map(|(id, file)| Ok((*id, file.0.metadata()?.len()))).collect()
    }

    fn open(&self, id: u32) -> io::Result<Arc<dyn DiskFile>> {
        match self.files.lock().get(&id) {
            Some(file) => Ok(file.clone()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, id: u32) -> io::Result<()> {
        self.files.lock().remove(&id);
        Ok(())
    }

    fn is_persistent(&self) -> bool {
        false
    }
}

/// A file of [`Memory`]. Its reads never wait.
#[derive(Debug)]
struct MemoryFile(File);

impl DiskFile for MemoryFile {
    fn file(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        write_all(bufs, offset, |bufs, offset| write_some(&self.0, bufs, offset))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn is_in_memory(&self, _: &Mapping, _: Range<u64>) -> bool {
        true
    }
}

/// Writes until nothing is left, with a call that says how much it took.
pub(super) fn write_all(
    bufs: &[IoSlice<'_>],
    mut offset: u64,
    mut write: impl FnMut(&[IoSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut bufs = bufs.to_vec();
    let mut rest = &mut bufs[..];
    // Takes away empty ones, which would look like a write of nothing.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let written = write(&rest[..rest.len().min(MAX_BUFFERS)], offset)?;
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        offset += written as u64;
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}

fn write_some(file: &File, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    Ok(retry_on_intr(|| pwritev(file, bufs, offset))?)
}

/// Also those above it; each name that is made is synced.
fn make_directory(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    match fs::create_dir(path) {
        Ok(()) => sync_directory(&File::open(above.unwrap_or(Path::new(".")))?),
        Err(error) if error.kind() == ErrorKind::NotFound && above.is_some() => {
            above.map_or(Ok(()), make_directory)?;
            make_directory(path)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_directory(directory: &File) -> io::Result<()> {
    match directory.sync_all() {
        // What a file system says that has no such thing, and nothing to lose by it.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

fn file_name(id: u32) -> String {
    format!("{id:08}.seg")
}

/// Only of a name that [`file_name`] gives.
fn parse_file_name(name: &str) -> Option<u32> {
    let id = name.strip_suffix(".seg")?.parse().ok()?;
    (file_name(id) == name).then_some(id)
}

#[cfg(test)]
mod tests;
