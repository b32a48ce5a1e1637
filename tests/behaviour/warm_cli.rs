//! `larder warm` as a person or a script uses it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Output, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use serde_json::Value;

use crate::support::node::{Node, node};
use crate::support::origin::{FRESH, Origin, respond};
use crate::support::process::{binary, run};
use crate::support::temp::TempDir;

const HOST: &str = "http://test.example";

fn ask(node: &Node, arguments: &[&str]) -> Output {
    let (admin, token) = (format!("http://{}", node.admin()), node.token_file());
    let node_arguments = ["--node", &admin, "--token-file", token.to_str().expect("UTF-8")];
    run(&[&["warm"], arguments, &node_arguments].concat())
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", out(output), err(output)))
}

fn origin() -> Origin {
    let origin = Origin::start();
    origin.on("/*", |seen| respond(200, &[FRESH[0], ("Vary", "Accept-Encoding")], &seen.target));
    origin.fixed("/gone", 404, FRESH, "x");
    origin
}

#[test]
fn it_waits_and_says_what_came_of_it() {
    let origin = origin();
    let node = node(&origin).start();
    let (a, b, gone) = (format!("{HOST}/a"), format!("{HOST}/b"), format!("{HOST}/gone"));
    let good = ask(&node, &[&a, &b, "--encodings", "br,gzip", "--wait"]);
    assert_eq!(good.status.code(), Some(0), "{}", err(&good));
    let line = out(&good);
    assert!(line.starts_with("done: 2 of 2 URLs: ") && line.contains("2 stored"), "{line}");
    assert_eq!(line.lines().count(), 1, "clean lines in a pipe: {line:?}");
    assert!(!line.contains('\u{1b}') && err(&good).is_empty(), "{:?}", err(&good));
    assert_eq!(origin.total(), 4);
    let bad = ask(&node, &[&a, &gone, "--encodings", "br", "--wait"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(err(&bad).contains(&gone) && err(&bad).contains("404"), "{}", err(&bad));
    let made = json(&ask(&node, &[&a, "-H", "X-Kind: 1", "--hold", "12h", "--json", "--wait"]));
    assert_eq!((&made["state"], &made["hold_seconds"]), (&"done".into(), &43_200.into()));
    assert_eq!((&made["source"], &made["headers"]), (&"cli".into(), &1.into()));
    assert_eq!(origin.last("/a").joined("x-kind"), "1");
}

#[test]
fn lists_come_from_files_and_pipes() {
    let origin = origin();
    let node = node(&origin).start();
    let dir = TempDir::new();
    let list = dir.write("list", format!("# landing pages\n{HOST}/1\n\n  {HOST}/2  \n"));
    let made = ask(&node, &["--file", list.to_str().expect("UTF-8"), "--wait", "--json"]);
    assert_eq!((made.status.code(), &json(&made)["total"]), (Some(0), &2.into()));
    let mut child = Command::new(binary())
        .args(["warm", "--file", "-", "--wait", "--json", "--node", &format!("http://{}", node.admin())])
        .arg("--token-file")
        .arg(node.token_file())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    writeln!(pipe, "{HOST}/3").expect("written");
    drop(pipe);
    let made = child.wait_with_output().expect("its end");
    assert_eq!((made.status.code(), &json(&made)["outcomes"]["stored"]), (Some(0), &1.into()));
    let empty = dir.write("empty", "# nothing\n");
    let none = ask(&node, &["--file", empty.to_str().expect("UTF-8")]);
    assert!(none.status.code() == Some(1) && err(&none).contains("no URL"), "{}", err(&none));
}

#[test]
fn jobs_are_listed_shown_and_cancelled() {
    let origin = origin();
    let node = node(&origin).start();
    let urls: Vec<String> = (0..100).map(|n| format!("{HOST}/{n}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let made = ask(&node, &[&urls[..], &["--rate", "0.5", "--json"]].concat());
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let id = json(&made)["id"].as_str().expect("an id").to_owned();
    let listed = out(&ask(&node, &["list"]));
    assert!(listed.contains(&id) && listed.contains("of 100 URLs") && listed.contains("s left"), "{listed}");
    let cancelled = ask(&node, &["cancel", &id]);
    assert!(out(&cancelled).starts_with("cancelled: "), "{}{}", out(&cancelled), err(&cancelled));
    let shown = out(&ask(&node, &["show", &id]));
    assert!(shown.lines().count() == 101 && shown.contains("waiting"), "{shown}");
    let shown = json(&ask(&node, &["show", &id, "--json"]));
    assert_eq!((shown["urls"].as_array().map(Vec::len), &shown["state"]), (Some(100), &"cancelled".into()));
    assert_eq!(ask(&node, &["show", "1/../2"]).status.code(), Some(1));
    assert_eq!(ask(&node, &["cancel", "9-none"]).status.code(), Some(1));
}

#[test]
fn wrong_use_is_told_from_wrong_urls() {
    let origin = origin();
    let node = node(&origin).start();
    for arguments in [&[] as &[_], &["--rate", "fast", "http://a"], &["list", "--wait"]] {
        assert_eq!(ask(&node, arguments).status.code(), Some(2), "{arguments:?}");
    }
    let wrong = ask(&node, &["/a", "--encodings", "brotli"]);
    assert_eq!(wrong.status.code(), Some(1));
    for part in ["#/urls/0", "#/encodings/0", "nothing is warmed"] {
        assert!(err(&wrong).contains(part), "{part} in {}", err(&wrong));
    }
    let help = out(&run(&["warm", "--help"]));
    assert!(help.contains("Examples:") && help.contains("--sitemap"), "{help}");
}

/// A terminal: the side that a person looks at, and the program's.
fn terminal() -> (File, OwnedFd) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(person.as_fd()).and_then(|()| unlockpt(person.as_fd())).expect("its other side");
    let name = ptsname(person.as_fd(), Vec::new()).expect("its name").into_string().expect("UTF-8");
    let program = OpenOptions::new().read(true).write(true).open(name).expect("its other side");
    (File::from(person), program.into())
}

#[test]
fn a_terminal_sees_a_bar_that_grows_and_then_the_line() {
    let origin = origin();
    let node = node(&origin).start();
    let urls: Vec<String> = (0..30).map(|n| format!("{HOST}/{n}")).collect();
    let (mut person, program) = terminal();
    let mut child = Command::new(binary())
        .args(["warm", "--wait", "--encodings", "br", "--rate", "10"])
        .args(["--node", &format!("http://{}", node.admin()), "--token-file"])
        .arg(node.token_file())
        .args(&urls)
        .env("TERM", "xterm")
        .stdout(Stdio::piped())
        .stderr(program)
        .spawn()
        .expect("the program starts");
    // Until the program has ended, and with it its side of the terminal.
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = person.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
    }
    let mut line = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut line).expect("UTF-8");
    assert!(child.wait().expect("its end").success());
    let seen = String::from_utf8_lossy(&seen);
    let mut counts: Vec<u32> = seen
        .split("/30 URLs")
        .filter_map(|before| before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
        .collect();
    counts.dedup();
    assert!(counts.len() >= 3 && counts.is_sorted(), "{counts:?} in {seen:?}");
    assert!(seen.contains('\u{2588}') && seen.contains("failed") && seen.contains("s left"), "{seen:?}");
    assert!(line.starts_with("done: 30 of 30 URLs: "), "{line:?}");
    assert!(!line.contains('\u{1b}'), "{line:?}");
}
