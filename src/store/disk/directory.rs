//! The store's directory: whose it is, and that nobody else has it open.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::format::FORMAT;
use super::health::{self, Health};
use super::io::{Directory, Disk, Memory};

/// Says that a directory is a store, and of which format.
const MARKER: &str = "FORMAT";
const MARKER_TEXT: &str = "larder store, format ";
/// What other parts of the node keep beside the segments. A node without a disk tier keeps them there too, and may get one later.
const NEIGHBOURS: [&str; 9] = [
    "node.id",
    "admin.token",
    "audit.log",
    "audit.old",
    "idempotency.log",
    "idempotency.old",
    "demo-cert.pem",
    "demo-key.pem",
    "lost+found",
];

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the store {0} is open in another process; stop that one, or give each node a store.path of its own"
    )]
    InUse(PathBuf),
    /// It is something else.
    #[error("{path} is no store of larder: it holds {found:?}; choose an empty directory as store.path")]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// It is of another version.
    #[error(
        "the store {path}: {why}; nothing was deleted: run the version that wrote it, choose another store.path, or delete the directory"
    )]
    OtherFormat {
        /// The directory.
        path: PathBuf,
        /// What is different.
        why: String,
    },
    /// The system says no.
    #[error("the store {path}: {source}")]
    Io {
        /// The directory.
        path: String,
        /// The system's word.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn of(path: Option<&Path>, source: io::Error) -> Self {
        match path {
            Some(path) if source.kind() == io::ErrorKind::Unsupported => {
                Self::OtherFormat { path: path.to_owned(), why: source.to_string() }
            }
            path => Self::Io { path: super::shown(path), source },
        }
    }
}

/// A lock that ends with the process, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    directory: OwnedFd,
}

impl Lock {
    /// The same lock once more.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        self.directory.try_clone()
    }
}

/// Opens a directory as a store, or memory. `inherited` may be its lock, which another process has handed over.
pub(super) fn open(
    path: Option<&Path>,
    health: &Health,
    inherited: Option<OwnedFd>,
) -> Result<(Arc<dyn Disk>, Option<Lock>), OpenError> {
    let Some(path) = path else { return Ok((Arc::new(Memory::default()), None)) };
    let failed = |source: io::Error| OpenError::of(Some(path), source);
    fs::create_dir_all(path).map_err(failed)?;
    let lock = match inherited.filter(|lock| is_of(lock, path)) {
        Some(directory) => Lock { directory },
        None => lock(path)?,
    };
    if let Err(error) = claim(path)? {
        health.degrade(health::Mode::ReadOnly, &format!("can't be written to: {error}"));
    }
    let disk = Directory::new(path).map_err(failed)?;
    Ok((Arc::new(disk), Some(lock)))
}

/// The lock of a store that its node does not use; `None`: there is none, or another process has it.
pub fn lock_unused(path: &Path, inherited: Option<OwnedFd>) -> Option<OwnedFd> {
    if !path.join(MARKER).exists() {
        return None;
    }
    let inherited = inherited.filter(|lock| is_of(lock, path));
    inherited.or_else(|| lock(path).ok().map(|lock| lock.directory))
}

/// Whether a lock is of this directory: the configuration may name another one now.
fn is_of(lock: &OwnedFd, path: &Path) -> bool {
    match (rustix::fs::fstat(lock), rustix::fs::stat(path)) {
        (Ok(locked), Ok(named)) => (locked.st_dev, locked.st_ino) == (named.st_dev, named.st_ino),
        _ => false,
    }
}

/// The lock is on the directory itself, so that it works on a read-only mount too.
fn lock(path: &Path) -> Result<Lock, OpenError> {
    let failed = |source: rustix::io::Errno| OpenError::of(Some(path), source.into());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock { directory }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(path.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

/// Makes an empty directory a store, or checks that it is one. The inner error: it can't be written to.
fn claim(path: &Path) -> Result<io::Result<()>, OpenError> {
    let marker = path.join(MARKER);
    let mark = || fs::write(&marker, format!("{MARKER_TEXT}{FORMAT}\n"));
    match fs::read_to_string(&marker) {
        // Its first start was cut off, or the disk was full.
        Ok(text) if text.is_empty() => Ok(mark()),
        Ok(text) => {
            let format = text.trim().strip_prefix(MARKER_TEXT.trim_end()).map(str::trim);
            match format.and_then(|format| format.parse::<u32>().ok()) {
                Some(FORMAT) => {
                    let probe = fs::OpenOptions::new().write(true).open(&marker);
                    Ok(probe.map(|_| ()))
                }
                Some(other) => {
                    let why = format!("its format is {other}, and this version reads {FORMAT}");
                    Err(OpenError::OtherFormat { path: path.to_owned(), why })
                }
                None => Err(OpenError::NotOurs { path: path.to_owned(), found: MARKER.into() }),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let entries = fs::read_dir(path).map_err(|source| OpenError::of(Some(path), source))?;
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if !NEIGHBOURS.contains(&name.as_str()) {
                    return Err(OpenError::NotOurs { path: path.to_owned(), found: name });
                }
            }
            Ok(mark())
        }
        Err(source) => Err(OpenError::of(Some(path), source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("larder-directory-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn opened(path: &Path) -> Result<Lock, OpenError> {
        open(Some(path), &Health::default(), None).map(|(_, lock)| lock.unwrap())
    }

    #[test]
    fn one_process_at_a_time() {
        let path = temporary("lock");
        let first = opened(&path).unwrap();
        assert!(matches!(opened(&path), Err(OpenError::InUse(_))));
        let handed_over = first.share().unwrap();
        drop(first);
        assert!(matches!(opened(&path), Err(OpenError::InUse(_))), "whoever has it handed over holds it");
        open(Some(&path), &Health::default(), Some(handed_over)).unwrap();
        opened(&path).unwrap();
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn only_an_empty_directory_becomes_a_store() {
        let path = temporary("ours");
        for name in NEIGHBOURS {
            fs::write(path.join(name), "x").unwrap();
        }
        drop(opened(&path).unwrap());
        drop(opened(&path).unwrap());
        fs::remove_file(path.join(MARKER)).unwrap();
        fs::remove_dir_all(path.join("segments")).unwrap();
        fs::write(path.join("letter.txt"), "dear").unwrap();
        let refused = opened(&path);
        assert!(matches!(refused, Err(OpenError::NotOurs { found, .. }) if found == "letter.txt"));
        assert!(path.join("letter.txt").exists());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_store_that_is_not_used_is_locked_unless_another_process_has_it() {
        let path = temporary("unused");
        assert!(lock_unused(&path, None).is_none(), "it is no store");
        let lock = opened(&path).unwrap();
        assert!(lock_unused(&path, None).is_none());
        let inherited = lock.share().unwrap();
        assert!(lock_unused(&path, Some(inherited)).is_some());
        drop(lock);
        assert!(lock_unused(&path, None).is_some());
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn another_format_is_refused_and_kept() {
        let path = temporary("format");
        fs::write(path.join(MARKER), "larder store, format 9\n").unwrap();
        let Err(refused) = opened(&path) else { panic!("opened") };
        assert!(refused.to_string().contains("its format is 9"), "{refused}");
        fs::write(path.join(MARKER), "something else").unwrap();
        assert!(matches!(opened(&path), Err(OpenError::NotOurs { .. })));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_made_up_for() {
        let path = temporary("cut-off");
        fs::create_dir(path.join("segments")).unwrap();
        fs::write(path.join(MARKER), "").unwrap();
        opened(&path).unwrap();
        assert!(fs::read_to_string(path.join(MARKER)).unwrap().starts_with(MARKER_TEXT));
        fs::remove_dir_all(path).unwrap();
    }
}
