//! Lines that outlive the process: a file that only grows, and takes the place of the one before it when it is full.
//!
//! ```text
//! NAME ── full ──▶ NAME.old      each at most half of what is kept
//! ```
//!
//! A line survives the end of the process however that comes, once it is written; a loss of power a second later at the
//! latest, when it is synced. What must survive that at once is in the log of purges.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Lines that wait to be written; more are dropped, which is logged.
const QUEUE: usize = 4096;
/// How long a line that is written waits for its sync.
const SYNC_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Journal(Option<SyncSender<Line>>);

#[derive(Debug)]
struct Line {
    text: String,
    written: Option<oneshot::Sender<()>>,
}

impl Journal {
    /// Opens it, or makes one, and gives the lines that it has, the oldest first. Where it can't be written the node does
    /// without.
    pub(super) fn open(directory: &Path, name: &str, max_bytes: u64) -> (Self, Vec<String>) {
        let path = directory.join(name);
        let old = path.with_extension("old");
        let mut lines = Vec::new();
        for file in [&old, &path] {
            if let Ok(file) = File::open(file) {
                lines.extend(BufReader::new(file).lines().map_while(Result::ok));
            }
        }
        let journal = Self::start(path, old, max_bytes / 2).inspect_err(|error| {
            tracing::warn!(%error, name, "it can't be written, and is kept in memory only");
        });
        (Self(journal.ok()), lines)
    }

    fn start(path: PathBuf, old: PathBuf, max_bytes: u64) -> io::Result<SyncSender<Line>> {
        let file = append_to(&path)?;
        let bytes = file.metadata()?.len();
        let (sender, lines) = sync_channel(QUEUE);
        let writer = Writer { file, bytes, path, old, max_bytes, unsynced: None, is_failing: false };
        std::thread::Builder::new().name("larder-journal".into()).spawn(move || writer.run(&lines))?;
        Ok(sender)
    }

    /// Has a line written, some time.
    pub(super) fn append(&self, text: String) {
        self.send(Line { text, written: None });
    }

    /// Has a line written, and waits for it.
    pub(super) async fn write(&self, text: String) {
        let (written, done) = oneshot::channel();
        self.send(Line { text, written: Some(written) });
        let _ = done.await;
    }

    fn send(&self, line: Line) {
        if let Some(sender) = &self.0
            && sender.try_send(line).is_err()
        {
            tracing::warn!("the disk is behind: a line of a journal was dropped");
        }
    }
}

struct Writer {
    file: File,
    bytes: u64,
    path: PathBuf,
    old: PathBuf,
    max_bytes: u64,
    /// Since when there are lines that are not synced.
    unsynced: Option<Instant>,
    is_failing: bool,
}

impl Writer {
    fn run(mut self, lines: &Receiver<Line>) {
        loop {
            let left = self.unsynced.map(|since| SYNC_AFTER.saturating_sub(since.elapsed()));
            let next = match left {
                Some(left) => lines.recv_timeout(left),
                None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(line) => self.take(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
            if self.unsynced.is_some_and(|since| since.elapsed() >= SYNC_AFTER) {
                self.sync();
            }
        }
    }

    fn take(&mut self, line: Line) {
        let result = self.write((line.text + "\n").as_bytes());
        self.unsynced.get_or_insert_with(Instant::now);
        self.tell(result);
        if let Some(written) = line.written {
            // Who waited may be gone.
            let _ = written.send(());
        }
    }

    fn sync(&mut self) {
        if self.unsynced.take().is_some() {
            let result = self.file.sync_data();
            self.tell(result);
        }
    }

    fn tell(&mut self, result: io::Result<()>) {
        if let Err(error) = &result
            && !self.is_failing
        {
            tracing::warn!(%error, path = %self.path.display(), "a journal can't be written");
        }
        self.is_failing = result.is_err();
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes + line.len() as u64 > self.max_bytes && self.bytes > 0 {
            self.file.sync_data()?;
            fs::rename(&self.path, &self.old)?;
            self.file = append_to(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // A line that was cut off does not run into the next one.
    if file.metadata()?.len() > 0 {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_and_a_torn_one_harms_no_other() {
        let directory = std::env::temp_dir().join(format!("larder-journal-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (journal, before) = Journal::open(&directory, "test.log", 1000);
        assert!(before.is_empty());
        for n in 0..130 {
            runtime.block_on(journal.write(format!("line {n:04}")));
        }
        drop(journal);
        fs::OpenOptions::new()
            .append(true)
            .open(directory.join("test.log"))
            .and_then(|mut file| file.write_all(b"torn"))
            .unwrap();
        let (journal, lines) = Journal::open(&directory, "test.log", 1000);
        assert!(lines.len() >= 50 && lines.contains(&"line 0129".to_owned()), "{lines:?}");
        assert!(!lines.contains(&"line 0000".to_owned()));
        runtime.block_on(journal.write("after".into()));
        let (_, lines) = Journal::open(&directory, "test.log", 1000);
        assert!(lines.contains(&"after".to_owned()) && lines.contains(&"torn".to_owned()), "{lines:?}");
        let bytes: u64 =
            fs::read_dir(&directory).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= 1010, "{bytes}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
