//! What the log needs of a file system, and no more, so that its tests can put a failing and crashing one below it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

/// Purges name tokens and addresses.
const FILE_MODE: u32 = 0o600;

/// The store's directory. What is done to names is durable after [`Disk::sync`].
pub(super) trait Disk: Send + Sync + fmt::Debug {
    /// `None`: there is none.
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn LogFile>>>;

    /// An empty file; one that is there is replaced.
    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;

    /// Replaces what is called `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// That it is gone already is fine.
    fn remove(&self, name: &str) -> io::Result<()>;

    fn sync(&self) -> io::Result<()>;
}

/// A log.
pub(super) trait LogFile: Send + Sync + fmt::Debug {
    fn len(&self) -> io::Result<u64>;

    /// Fills the buffer or fails.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// All of it or an error, after which any part may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file so long; what is new reads as zeros, and writing to it needs no more room on the medium.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// What is written is on the medium when this returns. After an error it is unknown what is, and the next call says
    /// nothing about what was written before the error: it has to be written again.
    fn sync(&self) -> io::Result<()>;
}

/// A real one.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// The directory itself, to sync it.
    handle: File,
}

impl Directory {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), handle: File::open(path)? })
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(FILE_MODE);
        options
    }
}

impl Disk for Directory {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn LogFile>>> {
        match Self::options().open(self.path.join(name)) {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = Self::options().create(true).truncate(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.handle.sync_all() {
            // What a file system says that has no such thing, and nothing to lose by it.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            result => result,
        }
    }
}

impl LogFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match retry_on_intr(|| fallocate(self, FallocateFlags::empty(), 0, len)) {
            // A file system without it (NFS 3, some FUSE): a full disk shows when the file is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.set_len(len)?,
            result => result?,
        }
        self.sync_all()
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
