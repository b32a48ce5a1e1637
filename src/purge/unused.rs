//! The log of a store that is there and not used: its node runs without a disk tier for now.
//!
//! What is purged and invalidated meanwhile is in no log, and the store would serve it again when the tier comes back. So
//! its log is set aside at the start, and a store without one counts as purged, all of it (`log.rs`).

use std::io;
use std::path::Path;

use super::file::{Directory, Disk};
use super::log::NAME;

/// What it is called then.
const SET_ASIDE: &str = "purge.log.set-aside";

/// Sets the log of a directory aside for good; false: there is none.
pub fn set_aside(directory: &Path) -> io::Result<bool> {
    let disk = Directory::new(directory)?;
    match disk.rename(NAME, SET_ASIDE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        renamed => renamed.and_then(|()| disk.sync()).map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_log_is_set_aside_and_kept() {
        let path = std::env::temp_dir().join(format!("larder-unused-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        assert!(!set_aside(&path).unwrap());
        fs::write(path.join(NAME), "purges").unwrap();
        assert!(set_aside(&path).unwrap());
        assert!(!set_aside(&path).unwrap());
        assert_eq!(fs::read_to_string(path.join(SET_ASIDE)).unwrap(), "purges");
        fs::remove_dir_all(&path).unwrap();
        assert!(set_aside(&path).is_err());
    }
}
