//! The log of a store that is there and not used: its node runs without a disk tier for now.
//!
//! What is purged meanwhile is not in that log, and the store would serve it again when the tier comes back. So the first
//! purge sets the log aside, and a store without one counts as purged, all of it. Where nothing is purged nothing is lost.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::file::{Directory, Disk};
use super::log::NAME;

/// What it is called then.
const SET_ASIDE: &str = "purge.log.set-aside";

/// See the module.
#[derive(Debug)]
pub(super) struct Unused(PathBuf);

impl Unused {
    /// The log in a store's directory, if there is one.
    pub(super) fn find(directory: &Path) -> Option<Self> {
        fs::exists(directory.join(NAME)).unwrap_or(true).then(|| Self(directory.to_owned()))
    }

    /// Sets it aside for good. A store that another process has open is none of ours.
    pub(super) fn set_aside(&self) -> io::Result<()> {
        let store = File::open(&self.0)?;
        match flock(&store, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let directory = Directory::new(&self.0)?;
        match directory.rename(NAME, SET_ASIDE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => directory.sync()?,
        }
        tracing::warn!(
            store = %self.0.display(),
            "a purge without the disk tier: all that the store there holds counts as purged"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_set_aside_unless_another_process_has_its_store() {
        let path = std::env::temp_dir().join(format!("larder-unused-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        assert!(Unused::find(&path).is_none());
        fs::write(path.join(NAME), "purges").unwrap();
        let unused = Unused::find(&path).unwrap();
        let store = File::open(&path).unwrap();
        flock(&store, FlockOperation::LockExclusive).unwrap();
        unused.set_aside().unwrap();
        assert!(path.join(NAME).exists(), "it is in use");
        drop(store);
        unused.set_aside().unwrap();
        unused.set_aside().unwrap();
        assert_eq!(fs::read_to_string(path.join(SET_ASIDE)).unwrap(), "purges");
        assert!(Unused::find(&path).is_none());
        fs::remove_dir_all(&path).unwrap();
        assert!(unused.set_aside().is_err());
    }
}
