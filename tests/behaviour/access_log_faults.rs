//! The access log on outputs that are slow, full, or moved away.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::node::{Builder, Node, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::request::get;
use crate::support::{PATIENCE, eventually};

fn logging_to(builder: Builder, output: &Path, lines: &str) -> Builder {
    builder.extra(&format!("[access_log]\noutput = \"{}\"\n{lines}", output.display()))
}

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn count(node: &Node, outcome: &str) -> f64 {
    node.metric(&format!("larder_access_log_lines_total{{outcome=\"{outcome}\"}}"))
}

#[test]
fn a_reader_that_has_stopped_slows_no_request_and_what_it_misses_is_counted() {
    let origin = Origin::with("/a", FRESH, "a");
    let builder = node(&origin);
    let fifo = builder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let mut node = logging_to(builder, &fifo, "").start();
    // Longer lines fill pipe and queue sooner.
    let request = get("/a").with("User-Agent", "x".repeat(8000));
    request.to(&node).assert_status(200);
    let mut client = crate::support::client::Client::connect(node.http());
    let mut slowest = Duration::ZERO;
    for _ in 0..12_000 {
        let asked = Instant::now();
        client.exchange(&request).assert_status(200);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < PATIENCE, "{slowest:?}");
    eventually("lines are dropped", || count(&node, "dropped") > 1000.0);
    assert!(node.admin_get("/v1/status").json()["access_log_dropped"].as_u64() > Some(1000));
    // It ends all the same.
    node.stop();
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let origin = Origin::with("/a", FRESH, "a");
    let mut node = logging_to(node(&origin), Path::new("/dev/full"), "").start();
    for _ in 0..100 {
        node.get("/a").assert_status(200);
    }
    eventually("all are counted", || count(&node, "failed") == 100.0);
    assert_eq!(count(&node, "written"), 0.0);
    let said = node.lines().iter().filter(|line| line.contains("access log can't be written")).count();
    assert_eq!(said, 1, "once, not for each line");
    node.stop();
}

#[test]
fn a_rotated_file_is_opened_anew_on_a_signal_and_no_line_is_lost() {
    let origin = Origin::with("/*", FRESH, "a");
    let builder = node(&origin);
    let (file, moved) = (builder.path().join("access.log"), builder.path().join("access.log.1"));
    let mut node = logging_to(builder, &file, "").start();
    for n in 0..20 {
        node.get(&format!("/before-{n}")).assert_status(200);
    }
    eventually("what was asked before is written", || lines(&file).len() == 20);
    std::fs::rename(&file, &moved).expect("moved");
    node.get("/between").assert_status(200);
    eventually("it goes on in the file it has", || lines(&moved).len() == 21);
    node.signal(Signal::USR1);
    eventually("there is a new file", || file.exists());
    for n in 0..20 {
        node.get(&format!("/after-{n}")).assert_status(200);
    }
    node.stop();
    assert_eq!((lines(&moved).len(), lines(&file).len()), (21, 20));
    assert_eq!(lines(&moved)[20]["path"], "/between");
}

#[test]
fn a_file_that_can_not_be_opened_anew_is_no_reason_to_lose_the_one_there_is() {
    let origin = Origin::with("/a", FRESH, "a");
    let builder = node(&origin);
    let dir = builder.path().join("logs");
    std::fs::create_dir(&dir).expect("a folder");
    let mut node = logging_to(builder, &dir.join("access.log"), "").start();
    node.get("/a").assert_status(200);
    let moved = dir.with_file_name("moved");
    std::fs::rename(&dir, &moved).expect("moved");
    node.signal(Signal::USR1);
    eventually("it says so", || node.lines().iter().any(|line| line.contains("goes on in the file it has")));
    node.get("/a").assert_status(200);
    node.stop();
    assert_eq!(lines(&moved.join("access.log")).len(), 2);
}

#[test]
fn a_sample_has_its_share_of_lines_and_every_error() {
    let origin = Origin::with("/a", FRESH, "a");
    origin.on("/broken", |_| respond(500, &[("Cache-Control", "no-store")], "broken"));
    let builder = node(&origin).workers(1);
    let file = builder.path().join("access.log");
    let mut node = logging_to(builder, &file, "sample = \"10%\"").start();
    for _ in 0..200 {
        node.get("/a").assert_status(200);
    }
    for _ in 0..5 {
        node.get("/broken").assert_status(500);
    }
    node.stop();
    let lines = lines(&file);
    assert_eq!(lines.iter().filter(|line| line["status"] == 500).count(), 5);
    assert_eq!(lines.iter().filter(|line| line["status"] == 200).count(), 20);
}

#[test]
fn a_line_tells_of_the_origin_the_tier_and_the_request_s_id() {
    let origin = Origin::with("/a", FRESH, "a");
    let builder = node(&origin);
    let file = builder.path().join("access.log");
    let mut node = logging_to(builder, &file, "").start();
    get("/a").with("X-Request-Id", "of-the-client").to(&node).assert_status(200);
    node.get("/a").assert_hit();
    node.get("/other").assert_status(404);
    node.stop();
    let lines = lines(&file);
    assert_eq!(origin.last("/a").joined("x-request-id"), "of-the-client");
    assert_eq!((&lines[0]["request_id"], &lines[0]["tier"]), (&"of-the-client".into(), &"".into()));
    let origin_us = lines[0]["origin_us"].as_u64().expect("a time");
    assert!(origin_us > 0 && origin_us <= lines[0]["ttfb_us"].as_u64().expect("a time"));
    assert_eq!((&lines[1]["tier"], &lines[1]["origin_us"]), (&"memory".into(), &Value::Null));
    let made = lines[2]["request_id"].as_str().expect("an id");
    assert_eq!((made.len(), made), (20, &*origin.last("/other").joined("x-request-id")));
    assert_ne!(lines[1]["request_id"], lines[2]["request_id"]);
}

#[test]
fn a_fifo_is_written_once_somebody_reads_it() {
    let origin = Origin::with("/a", FRESH, "a");
    let builder = node(&origin);
    let fifo = builder.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let node = logging_to(builder, &fifo, "").start();
    node.get("/a").assert_status(200);
    let reader = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo);
    let mut reader = std::io::BufReader::new(reader.expect("the pipe"));
    let mut line = String::new();
    eventually("a line comes", || std::io::BufRead::read_line(&mut reader, &mut line).is_ok_and(|n| n > 0));
    assert!(line.contains("\"path\":\"/a\""), "{line}");
}
