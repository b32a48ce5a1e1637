//! What can go wrong with a store's directory and its disk, and what the node does then: it says so and serves.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::support::inject::Failing;
use crate::support::mount::Tmpfs;
use crate::support::node::{Builder, Node, node};
use crate::support::origin::{FRESH, Origin};
use crate::support::process::run;
use crate::support::{eventually, pattern};

const LARGE: usize = 400_000;
const SEGMENT: &str = "segment = \"1MiB\"\nmax_object = \"2MiB\"";

/// An origin whose `/N` is a body of this length for each N.
fn origin(length: usize) -> Origin {
    let origin = Origin::start();
    origin.on("/*", move |seen| crate::support::origin::respond(200, FRESH, body(seen.path(), length)));
    origin
}

fn body(path: &str, length: usize) -> Vec<u8> {
    pattern(length, path.trim_start_matches('/').parse().expect("a number"))
}

#[track_caller]
fn get_all(node: &Node, numbers: std::ops::Range<usize>, length: usize) -> usize {
    let ask = |n: usize| {
        let path = format!("/{n}");
        let response = node.get(&path);
        response.assert_status(200).assert_body(body(&path, length));
        response.is_hit()
    };
    numbers.filter(|n| ask(*n)).count()
}

fn config(node: &Node) -> PathBuf {
    node.store().with_file_name("larder.toml")
}

/// Starts a second process with a node's configuration; it must fail and say why.
#[track_caller]
fn assert_refused(node: &Node, words: &[&str]) {
    let path = config(node);
    refused(&run(&["serve", "--config", path.to_str().expect("UTF-8")]), words);
}

#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).expect("the configuration");
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).expect("the configuration");
}

/// Names and lengths of all files of a store.
fn files(store: &Path) -> Vec<(PathBuf, u64)> {
    let folder = |path: PathBuf| fs::read_dir(path).expect("a folder").flatten();
    let entries = folder(store.to_owned()).chain(folder(store.join("segments")));
    // One that is evicted meanwhile has none.
    let mut files: Vec<_> =
        entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len()))).collect();
    files.sort();
    files
}

fn used(node: &Node) -> u64 {
    let files = files(&node.store());
    let segments = files.iter().filter(|(path, _)| path.extension().is_some_and(|name| name == "seg"));
    segments.map(|(_, length)| length).sum()
}

#[track_caller]
fn assert_degraded(node: &Node, mode: &str) {
    eventually("the store is degraded", || node.metric("larder_store_degraded") == 1.0);
    let ready = node.admin_get("/readyz");
    ready.assert_status(200);
    let store = ready.json()["parts"]["store"].as_str().unwrap_or_default().to_owned();
    assert_eq!(store, format!("degraded: the disk tier is {mode}"));
    let is_told = node.lines().iter().any(|line| line.contains(&format!("the disk tier is {mode}")));
    assert!(is_told, "{:#?}", node.lines());
}

#[test]
fn a_directory_that_is_not_a_store_is_left_alone() {
    let origin = origin(10);
    let builder = node(&origin).disk("64MiB");
    fs::create_dir(builder.path().join("store")).expect("a folder");
    let letter = builder.path().join("store/letter.txt");
    fs::write(&letter, "dear").expect("a letter");
    refused(&builder.run(), &["no store of larder", "letter.txt", "choose an empty directory"]);
    assert_eq!(fs::read_to_string(letter).expect("the letter"), "dear");
}

#[test]
fn a_second_process_on_a_store_is_refused() {
    let origin = origin(10);
    let node = node(&origin).disk("64MiB").start();
    assert_refused(&node, &["open in another process", "stop that one"]);
    node.get("/1").assert_status(200);
}

#[test]
fn a_store_of_another_format_is_refused_and_kept() {
    let origin = origin(LARGE);
    let mut node = node(&origin).disk("64MiB").store(SEGMENT).start();
    get_all(&node, 0..5, LARGE);
    node.stop();
    let before = files(&node.store());
    let segment = node.store().join("segments/00000001.seg");
    let file = fs::OpenOptions::new().read(true).write(true).open(segment).expect("a segment");
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0).expect("its header");
    header[8] = 9;
    let sum = blake3::hash(&header[..48]);
    header[48..].copy_from_slice(&sum.as_bytes()[..16]);
    file.write_all_at(&header, 0).expect("a header");
    assert_refused(&node, &["its format is 9", "nothing was deleted", "run the version that wrote it"]);
    assert_eq!(files(&node.store()), before);

    fs::write(node.store().join("FORMAT"), "larder store, format 9\n").expect("a marker");
    let before = files(&node.store());
    assert_refused(&node, &["its format is 9", "nothing was deleted"]);
    assert_eq!(files(&node.store()), before);
}

#[test]
fn a_smaller_limit_keeps_the_newest() {
    let origin = origin(LARGE);
    let node = node(&origin).disk("64MiB").store(SEGMENT).start();
    get_all(&node, 0..100, LARGE);
    let node = node.restarted_after(Signal::TERM, |dir| {
        edit(&dir.join("larder.toml"), "disk = \"64MiB\"", "disk = \"24MiB\"");
    });
    eventually("what is too much is removed", || used(&node) <= 24 << 20);
    let newest = get_all(&node, 60..100, LARGE);
    assert!(newest >= 38, "{newest} of 40 are left");
    get_all(&node, 0..60, LARGE);
    assert!(used(&node) <= 24 << 20, "{} bytes", used(&node));
    node.assert_no_panic();
}

#[test]
fn another_segment_size_loses_nothing() {
    let origin = origin(LARGE);
    let node = node(&origin).disk("64MiB").store(SEGMENT).start();
    get_all(&node, 0..100, LARGE);
    let change = |dir: &Path| edit(&dir.join("larder.toml"), "segment = \"1MiB\"", "segment = \"4MiB\"");
    let node = node.restarted_after(Signal::TERM, change);
    assert_eq!(get_all(&node, 0..103, LARGE), 100);
    // Files of both lengths now.
    let node = node.restarted(Signal::TERM);
    assert_eq!(get_all(&node, 0..103, LARGE), 103);
    assert!(used(&node) <= 64 << 20, "{} bytes", used(&node));
    assert_eq!(node.metric("larder_store_errors_total"), 0.0);
}

/// A node whose store is a file system of its own.
fn on(mount: &Tmpfs, builder: Builder) -> Node {
    symlink(mount.path(), builder.path().join("store")).expect("a link");
    builder.store(SEGMENT).start()
}

#[test]
fn a_full_disk_is_read_and_no_longer_written() {
    // The log of purges takes some of it.
    let Some(mount) = Tmpfs::mount("12m") else { return };
    let origin = origin(LARGE);
    let node = on(&mount, node(&origin).disk("64MiB"));
    get_all(&node, 0..40, LARGE);
    assert_degraded(&node, "read-only");
    assert!(node.metric("larder_store_errors_total{kind=\"full\"}") >= 1.0);
    let hits = get_all(&node, 0..40, LARGE);
    assert!((8..30).contains(&hits), "{hits} of 40 found room in 8 MiB");
    let node = node.restarted(Signal::KILL);
    assert!(get_all(&node, 0..40, LARGE) >= 8, "what was stored is there after a restart");
    node.assert_no_panic();
}

#[test]
fn a_read_only_mount_is_served_from() {
    for signal in [Signal::TERM, Signal::KILL] {
        let Some(mount) = Tmpfs::mount("64m") else { return };
        let origin = origin(LARGE);
        let node = on(&mount, node(&origin).disk("32MiB"));
        get_all(&node, 0..20, LARGE);
        node.await_metric("larder_store_writes_total{outcome=\"written\"}", 20.0);
        let node = node.restarted_after(signal, |_| mount.make_read_only());
        assert_eq!(get_all(&node, 0..20, LARGE), 20);
        assert_degraded(&node, "read-only");
        assert_eq!(get_all(&node, 20..25, LARGE), 0);
        assert_eq!(get_all(&node, 0..25, LARGE), 20);
        node.assert_no_panic();
    }
}

#[test]
fn a_disk_that_fails_to_read_is_given_up() {
    let origin = origin(20_000);
    let node = node(&origin).memory("2MiB").disk("64MiB").start();
    get_all(&node, 0..400, 20_000);
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 400.0);
    // A page that can't be read is not in memory, and `mincore` would say so.
    let Some(_failing) = Failing::calls(&node, "mincore,pread64", "EIO") else { return };
    get_all(&node, 0..400, 20_000);
    assert_degraded(&node, "off");
    assert!(node.metric("larder_store_errors_total{kind=\"read\"}") >= 5.0);
    get_all(&node, 0..50, 20_000);
    node.assert_no_panic();
}

#[test]
fn a_disk_that_fails_to_write_is_only_read() {
    let origin = origin(LARGE);
    let node = node(&origin).disk("64MiB").store(SEGMENT).start();
    get_all(&node, 0..10, LARGE);
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", 10.0);
    let Some(_failing) = Failing::calls(&node, "pwritev,pwritev2,pwrite64", "EIO") else { return };
    get_all(&node, 10..30, LARGE);
    assert_degraded(&node, "read-only");
    assert!(node.metric("larder_store_errors_total{kind=\"write\"}") >= 5.0);
    assert_eq!(get_all(&node, 0..10, LARGE), 10);
    node.assert_no_panic();
}

#[test]
fn a_limit_on_the_size_of_files_ends_nothing() {
    let origin = origin(LARGE);
    let node = node(&origin).disk("64MiB").store(SEGMENT).start();
    get_all(&node, 0..5, LARGE);
    let limit = Rlimit { current: Some(512 << 10), maximum: Some(512 << 10) };
    prlimit(Pid::from_raw(node.pid() as i32), Resource::Fsize, limit).expect("a limit");
    get_all(&node, 5..30, LARGE);
    assert_degraded(&node, "read-only");
    assert_eq!(get_all(&node, 0..5, LARGE), 5);
    node.assert_no_panic();
}
