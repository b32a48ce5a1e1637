//! The access log: one JSON line a response, written by a thread of its own.
//!
//! A worker only moves a record into a bounded queue. When the writer is behind (a slow or full
//! disk, a stopped reader) lines are dropped and counted; a request never waits. What fails to be written is counted too,
//! and costs no other line.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Lines that may wait for the writer; some 8 MiB at the longest.
const QUEUE: usize = 8192;
/// What is written at once when there is more.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the last lines are waited for at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file, which is created when missing.
    File(PathBuf),
}

/// `[access_log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogConfig {
    /// Where the lines go.
    pub output: LogOutput,
    /// The share of answers that get a line, in millionths; those with a status of 500 or more always do.
    pub sample_millionths: u32,
}

/// What one line says. Times are in microseconds.
#[derive(Debug, Serialize)]
pub struct AccessRecord {
    /// RFC 3339, UTC, milliseconds.
    pub time: String,
    /// The request's `X-Request-Id`, or one that was made; the origin was sent the same.
    pub request_id: String,
    /// The verified address of the client.
    pub client: IpAddr,
    /// The site's name; empty when no site matched.
    pub site: Arc<str>,
    /// The request's method.
    pub method: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The Host as sent.
    pub host: String,
    /// Path and query as sent.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// The status sent.
    pub status: u16,
    /// hit, `hit_stale`, miss, revalidated, collapsed, pass, refused or error.
    pub result: &'static str,
    /// `memory` or `disk` of a hit, else empty.
    pub tier: &'static str,
    /// Bytes of the body that were handed to the connection.
    pub bytes: u64,
    /// Whether the body reached its end.
    pub complete: bool,
    /// From the request's head to the response's head.
    pub ttfb_us: u64,
    /// From the request's head to the end of the body.
    pub duration_us: u64,
    /// From the request that was sent to the origin to the head of its answer; absent when this request caused none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_us: Option<u64>,
    /// TLS version; empty on plain connections.
    pub tls: &'static str,
    /// The request's User-Agent.
    pub user_agent: String,
    /// The request's Referer.
    pub referer: String,
}

/// The queue into the writer's thread.
#[derive(Debug)]
pub struct AccessLog {
    queue: Option<SyncSender<Message>>,
    sample: Sample,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Message {
    Line(Box<AccessRecord>),
    /// To be looked at; what for stands in [`Shared`].
    Wake,
}

/// What the writer and its users both see.
#[derive(Debug, Default)]
struct Shared {
    counts: Arc<Counts>,
    /// A rotation moved the file away.
    reopen: AtomicBool,
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl AccessLog {
    /// Opens the output and starts its writer; an output that can't be opened is an error that
    /// names it.
    pub fn start(config: &AccessLogConfig) -> io::Result<Self> {
        Self::counting(config, Arc::default())
    }

    /// The log that takes this one's place, and goes on with its counts.
    pub fn succeeded_by(&self, config: &AccessLogConfig) -> io::Result<Self> {
        Self::counting(config, self.shared.counts.clone())
    }

    fn counting(config: &AccessLogConfig, counts: Arc<Counts>) -> io::Result<Self> {
        let sample = Sample(config.sample_millionths);
        let shared = Arc::new(Shared { counts, reopen: AtomicBool::new(false) });
        let sink: Box<dyn Write + Send> = match &config.output {
            LogOutput::Off => return Ok(Self { queue: None, sample, shared, writer: None }),
            LogOutput::Stdout => Box::new(io::stdout()),
            LogOutput::Stderr => Box::new(io::stderr()),
            LogOutput::File(path) => Box::new(open(path)?),
        };
        let file = match &config.output {
            LogOutput::File(path) => Some(path.clone()),
            _ => None,
        };
        let (queue, messages) = sync_channel(QUEUE);
        let writer = Writer { sink, file, shared: shared.clone(), is_torn: false, is_broken: false };
        let writer = thread::Builder::new().name("larder-log".into()).spawn(move || writer.run(&messages))?;
        Ok(Self { queue: Some(queue), sample, shared, writer: Some(writer) })
    }

    /// Whether a record of an answer with this status is to be built. Errors of the node or the origin always are.
    #[inline]
    pub fn wants(&self, status: u16) -> bool {
        self.queue.is_some() && (self.sample.takes() || status >= 500)
    }

    /// Whether there is a log at all.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues a line, or drops and counts it when the writer is behind.
    pub fn write(&self, record: Box<AccessRecord>) {
        let Some(queue) = &self.queue else { return };
        if queue.try_send(Message::Line(record)).is_err() {
            self.shared.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Opens the file by its name again, before the next line: whoever rotates has moved the old one away.
    pub fn reopen(&self) {
        let Some(queue) = &self.queue else { return };
        self.shared.reopen.store(true, Relaxed);
        // Without room there are lines on their way, and those wake the writer too.
        let _ = queue.try_send(Message::Wake);
    }

    /// Lines that were dropped: the writer was behind, or the output took none.
    pub fn dropped(&self) -> u64 {
        self.shared.counts.dropped.load(Relaxed) + self.shared.counts.failed.load(Relaxed)
    }

    /// Lines by what became of them.
    pub fn lines(&self) -> [(&'static str, u64); 3] {
        let of = |count: &AtomicU64| count.load(Relaxed);
        let Counts { written, dropped, failed } = &*self.shared.counts;
        [("written", of(written)), ("dropped", of(dropped)), ("failed", of(failed))]
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        drop(self.queue.take());
        let Some(writer) = self.writer.take() else { return };
        let begun = Instant::now();
        // A reader that has stopped reading must not keep the process from ending.
        while !writer.is_finished() && begun.elapsed() < CLOSE_TIMEOUT {
            thread::sleep(Duration::from_millis(5));
        }
        if writer.is_finished() {
            let _ = writer.join();
        }
    }
}

/// Opens a file for appending. A FIFO is opened for reading as well, which does not wait for its reader.
fn open(path: &Path) -> io::Result<File> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("access log {}: {error}", path.display()));
    let is_fifo = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    let mut options = OpenOptions::new();
    options.append(true).create(!is_fifo).read(is_fifo);
    options.open(path).map_err(named)
}

/// The share of answers that get a line, in millionths.
#[derive(Clone, Copy, Debug)]
struct Sample(u32);

/// All of them.
pub const EVERY_LINE: u32 = 1_000_000;

impl Sample {
    /// Spread evenly over the answers of a thread; nothing is drawn by lot.
    #[inline]
    fn takes(self) -> bool {
        thread_local! {
            static CREDIT: Cell<u32> = const { Cell::new(0) };
        }
        if self.0 >= EVERY_LINE {
            return true;
        }
        let credit = CREDIT.get() + self.0;
        CREDIT.set(credit % EVERY_LINE);
        credit >= EVERY_LINE
    }
}

struct Writer {
    sink: Box<dyn Write + Send>,
    file: Option<PathBuf>,
    shared: Arc<Shared>,
    /// What was written last ends in the middle of a line.
    is_torn: bool,
    /// The last attempt failed; said once.
    is_broken: bool,
}

impl Writer {
    /// Writes whenever the queue runs empty: a quiet node each line at once, a busy one in batches.
    fn run(mut self, messages: &Receiver<Message>) {
        let mut batch = Vec::with_capacity(BATCH_BYTES);
        while let Ok(first) = messages.recv() {
            if self.shared.reopen.swap(false, Relaxed) {
                self.reopen();
            }
            let mut next = Some(first);
            while let Some(message) = next {
                if let Message::Line(record) = message
                    && serde_json::to_writer(&mut batch, &*record).is_ok()
                {
                    batch.push(b'\n');
                }
                next = if batch.len() < BATCH_BYTES { messages.try_recv().ok() } else { None };
            }
            self.write(&batch);
            batch.clear();
        }
    }

    fn write(&mut self, batch: &[u8]) {
        if self.is_torn && !batch.is_empty() {
            // So that only the line that was cut is lost.
            self.is_torn = self.sink.write_all(b"\n").is_err();
        }
        let mut done = 0;
        let mut result = Ok(());
        while done < batch.len() {
            match self.sink.write(&batch[done..]) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
            if result.is_err() {
                break;
            }
        }
        let result = result.and_then(|()| self.sink.flush());
        let (there, lost) = batch.split_at(done);
        self.is_torn |= there.last().is_some_and(|last| *last != b'\n');
        self.shared.counts.written.fetch_add(lines_in(there), Relaxed);
        self.shared.counts.failed.fetch_add(lines_in(lost), Relaxed);
        match result {
            Ok(()) => self.is_broken = false,
            Err(error) if !self.is_broken => {
                self.is_broken = true;
                tracing::warn!(%error, "the access log can't be written; lines are lost until it can");
            }
            Err(_) => {}
        }
    }

    fn reopen(&mut self) {
        let Some(path) = &self.file else { return };
        match open(path) {
            Ok(file) => {
                self.sink = Box::new(file);
                self.is_torn = false;
                tracing::info!("the access log {} was opened anew", path.display());
            }
            Err(error) => tracing::warn!(%error, "the access log goes on in the file it has"),
        }
    }
}

fn lines_in(text: &[u8]) -> u64 {
    text.split(|byte| *byte == b'\n').skip(1).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_exact_and_even() {
        let taken: Vec<bool> = (0..1000).map(|_| Sample(100_000).takes()).collect();
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 100);
        assert!(taken.chunks(10).all(|ten| ten.contains(&true)));
        assert!((0..1000).all(|_| Sample(EVERY_LINE).takes()));
        assert!(!(0..1000).any(|_| Sample(0).takes()));
    }

    /// Takes so many bytes, then fails until it is told otherwise.
    struct Disk(Arc<parking_lot::Mutex<(usize, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, text) = &mut *self.0.lock();
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(*room);
            text.extend_from_slice(&bytes[..count]);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_was_full_costs_the_lines_of_that_time_and_no_other() {
        let disk = Arc::new(parking_lot::Mutex::new((9, Vec::new())));
        let (sink, shared) = (Box::new(Disk(disk.clone())), Arc::default());
        let mut writer = Writer { sink, file: None, shared, is_torn: false, is_broken: false };
        writer.write(b"line 1\nline 2\n");
        writer.write(b"line 3\n");
        disk.lock().0 = 100;
        writer.write(b"line 4\nline 5\n");
        assert_eq!(String::from_utf8(disk.lock().1.clone()).unwrap(), "line 1\nli\nline 4\nline 5\n");
        assert_eq!(
            (writer.shared.counts.written.load(Relaxed), writer.shared.counts.failed.load(Relaxed)),
            (3, 2)
        );
    }
}
