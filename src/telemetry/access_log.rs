//! The access log: one JSON line a response, written by a thread of its own.
//!
//! A worker only moves a record into a bounded queue. When the writer is behind (a slow or full
//! disk, a stopped reader) lines are dropped and counted; a request never waits.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use serde::Serialize;

/// Lines that may wait for the writer; some 8 MiB at the longest.
const QUEUE: usize = 8192;

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
}

/// What one line says. Times are in microseconds.
#[derive(Debug, Serialize)]
pub struct AccessRecord {
    /// RFC 3339, UTC, milliseconds.
    pub time: String,
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
    /// `memory`, or empty when the body came from elsewhere.
    pub tier: &'static str,
    /// Bytes of the body that were handed to the connection.
    pub bytes: u64,
    /// Whether the body reached its end.
    pub complete: bool,
    /// From the request's head to the response's head.
    pub ttfb_us: u64,
    /// From the request's head to the end of the body.
    pub duration_us: u64,
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
    queue: Option<SyncSender<AccessRecord>>,
    dropped: AtomicU64,
    writer: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Opens the output and starts its writer; an output that can't be opened is an error that
    /// names it.
    pub fn start(config: &AccessLogConfig) -> std::io::Result<Self> {
        let sink: Box<dyn Write + Send> = match &config.output {
            LogOutput::Off => {
                return Ok(Self { queue: None, dropped: AtomicU64::new(0), writer: None });
            }
            LogOutput::Stdout => Box::new(std::io::stdout()),
            LogOutput::Stderr => Box::new(std::io::stderr()),
            LogOutput::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Box::new(file.map_err(|e| {
                    std::io::Error::new(e.kind(), format!("access log {}: {e}", path.display()))
                })?)
            }
        };
        let (queue, lines) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("larder-log".into())
            .spawn(move || write_lines(&lines, BufWriter::new(sink)))?;
        Ok(Self { queue: Some(queue), dropped: AtomicU64::new(0), writer: Some(writer) })
    }

    /// Whether a record is worth building.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Queues a line, or drops and counts it when the writer is behind.
    pub fn write(&self, record: AccessRecord) {
        let Some(queue) = &self.queue else { return };
        match queue.try_send(record) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write_lines(lines: &Receiver<AccessRecord>, mut sink: BufWriter<Box<dyn Write + Send>>) {
    let mut broken = false;
    let mut report = |result: std::io::Result<()>| match result {
        Ok(()) => broken = false,
        Err(error) if !broken => {
            broken = true;
            tracing::warn!(%error, "the access log can't be written; lines are lost until it can");
        }
        Err(_) => {}
    };
    // Flushed whenever the queue runs empty: a quiet node writes each line at once, a busy one in
    // batches.
    while let Ok(record) = lines.recv() {
        report(write_line(&record, &mut sink));
        while let Ok(record) = lines.try_recv() {
            report(write_line(&record, &mut sink));
        }
        report(sink.flush());
    }
}

fn write_line(record: &AccessRecord, sink: &mut impl Write) -> std::io::Result<()> {
    serde_json::to_writer(&mut *sink, record)?;
    sink.write_all(b"\n")
}
