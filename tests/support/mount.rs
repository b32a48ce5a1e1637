//! A small file system of a test's own, where that is allowed.

use std::path::Path;
use std::process::{Command, Stdio};

use super::temp::TempDir;

/// A mounted tmpfs; it goes with its owner.
pub struct Tmpfs(TempDir);

impl Tmpfs {
    /// `None`, with a word on stderr, where nothing may be mounted.
    pub fn mount(size: &str) -> Option<Self> {
        let dir = TempDir::new();
        let is_mounted = run(Command::new("mount")
            .args(["-t", "tmpfs", "-o"])
            .arg(format!("size={size}"))
            .arg("tmpfs")
            .arg(dir.path()));
        if !is_mounted {
            eprintln!("skipped: a tmpfs can't be mounted here (only root may)");
            return None;
        }
        Some(Self(dir))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// From now on nothing can be written.
    pub fn make_read_only(&self) {
        assert!(run(Command::new("mount").args(["-o", "remount,ro"]).arg(self.path())), "no remount");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.path()));
    }
}

fn run(command: &mut Command) -> bool {
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
