//! The commands as a person or a script uses them.

use std::process::Output;

use serde_json::Value;

use crate::support::node::node;
use crate::support::origin::{FRESH, Origin};
use crate::support::process::run;
use crate::support::temp::TempDir;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

const GOOD: &str = "[[site]]\nname = \"shop\"\nhosts = [\"shop.example\"]\norigin = \"shop\"\n\
                    [[origin]]\nname = \"shop\"\nservers = [{ url = \"http://127.0.0.1:9\" }]\n";

#[test]
fn a_good_file_passes_the_check() {
    let dir = TempDir::new();
    let file = dir.write("larder.toml", format!("[[listen]]\naddress = \"127.0.0.1:0\"\n{GOOD}"));
    let path = file.to_str().expect("UTF-8");
    for arguments in [&["check", path] as &[_], &["check", "--config", path]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
}

#[test]
fn every_error_of_a_file_is_reported_at_once_with_its_place() {
    let dir = TempDir::new();
    let lines = [
        /* 1 */ "[node]",
        /* 2 */ "wrokers = 2",
        /* 3 */ "drain_timeout = \"30 parsecs\"",
        /* 4 */ "[limits]",
        /* 5 */ "header_bytes = \"lots\"",
        /* 6 */ "header_count = \"many\"",
        /* 7 */ "[[site]]",
        /* 8 */ "name = \"shop\"",
        /* 9 */ "hosts = [\"shop.example\"]",
        /* 10 */ "origin = \"nowhere\"",
        /* 11 */ "https = \"sometimes\"",
        /* 12 */ "[[origin]]",
        /* 13 */ "name = \"shop\"",
        /* 14 */ "servers = [{ url = \"ftp://127.0.0.1\" }]",
    ];
    let file = dir.write("bad.toml", lines.join("\n"));
    let output = run(&["check", file.to_str().expect("UTF-8")]);
    let report = text(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    for (line, found) in [
        (2, "wrokers"),
        (3, "30 parsecs"),
        (5, "lots"),
        (6, "many"),
        (10, "nowhere"),
        (11, "sometimes"),
        (14, "ftp"),
    ] {
        let place = format!("bad.toml:{line}:");
        let Some((_, rest)) = report.split_once(&place) else { panic!("no {place} in\n{report}") };
        assert!(rest.starts_with(|c: char| c.is_ascii_digit()), "a column after {place} in\n{report}");
        assert!(report.contains(found), "what was found: {found} in\n{report}");
    }
    for allowed in ["workers", "redirect"] {
        assert!(report.contains(allowed), "what is allowed: {allowed} in\n{report}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_reported_with_its_place() {
    let dir = TempDir::new();
    let file = dir.write("broken.toml", "[node]\nworkers = = 2\n");
    let output = run(&["check", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("broken.toml:2:"), "{}", text(&output));
}

#[test]
fn after_an_error_of_syntax_no_other_is_guessed() {
    let dir = TempDir::new();
    let file = dir.write("open.toml", format!("[[listen]]\naddress = \"127.0.0.1:0\"\n{GOOD}[[origin\n"));
    let output = run(&["check", "--json", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = report["diagnostics"].as_array().expect("diagnostics");
    assert!(found.iter().all(|fault| fault["line"] == 10 && fault["setting"] == ""), "{report}");
    assert_eq!(found.len(), 1, "{report}");
}

#[test]
fn a_file_that_is_no_text_is_reported_with_the_place_of_the_byte() {
    let dir = TempDir::new();
    let file = dir.write("latin.toml", b"[node]\n# \xc3\xbc and \xfc\nname = \"a\"\n");
    let path = file.to_str().expect("UTF-8");
    for arguments in [&["check", path], &["serve", "--config", path] as &[_]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        for part in ["latin.toml:2:9", "0xfc", "UTF-8"] {
            assert!(text(&output).contains(part), "{part} in {}", text(&output));
        }
    }
}

#[test]
fn a_node_does_not_start_with_a_bad_or_missing_file() {
    let dir = TempDir::new();
    let file = dir.write("bad.toml", format!("[node]\nwrokers = 2\n{GOOD}"));
    let missing = dir.path().join("missing.toml");
    for (path, hint) in [(file, "bad.toml:2:"), (missing, "missing.toml")] {
        let output = run(&["serve", "--config", path.to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains(hint), "{stderr}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["frobnicate"] as &[_],
        &["check"],
        &["serve", "--no-such-flag"],
        &["inspect"],
        &["completions", "noshell"],
        &["status", "--node", "foo"],
        &["status", "--node", "ftp://127.0.0.1"],
        &["purge", "http://a.example/", "--node", "http://127.0.0.1:8090/path"],
        &["warm", "http://a.example/", "-H", "foo"],
        &["warm", "http://a.example/", "-H", ": foo"],
        &["explain", "http://a.example/", "-H", "foo"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_schema_is_json_schema_of_every_table() {
    let schema = json(&run(&["schema"]));
    assert!(
        schema["$schema"].as_str().is_some_and(|uri| uri.contains("json-schema.org")),
        "{}",
        schema["$schema"]
    );
    let properties = schema["properties"].as_object().expect("properties");
    for table in [
        "node",
        "listen",
        "certificate",
        "admin",
        "metrics",
        "limits",
        "store",
        "site",
        "origin",
        "access_log",
    ] {
        assert!(properties.contains_key(table), "no {table}");
    }
    assert_eq!(schema["additionalProperties"], Value::Bool(false), "unknown keys are errors");
    // References lead somewhere.
    let mut open = vec![&schema];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let pointer = reference.strip_prefix('#').expect("a reference within the schema");
                    assert!(schema.pointer(pointer).is_some(), "{reference} leads nowhere");
                }
                open.extend(members.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(script.contains("larder") && script.contains("serve"), "{shell}: {script}");
    }
}

#[test]
fn help_has_examples() {
    for command in ["demo", "serve", "check", "schema", "status", "purge", "warm", "inspect", "completions"] {
        let output = run(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        let help = text(&output);
        assert!(help.to_lowercase().contains("example"), "{command}:\n{help}");
        assert!(help.contains(&format!("larder {command}")), "{command}:\n{help}");
    }
    let version = run(&["--version"]);
    assert!(text(&version).starts_with("larder "), "{}", text(&version));
}

#[test]
fn status_and_inspect_ask_the_node() {
    let origin = Origin::with("/a", &[FRESH[0], ("ETag", "\"v1\"")], "a");
    let node = node(&origin).start();
    node.get("/a").assert_status(200);
    let url = format!("http://{}", node.admin());
    let token = node.token_file();
    let token = token.to_str().expect("UTF-8");
    let found = ["--node", &url, "--token-file", token];
    let ask = |command: &[&str]| run(&[command, &found].concat());

    assert!(json(&ask(&["status", "--json"])).is_object());
    let held = json(&ask(&["inspect", "http://test.example/a", "--json"])).to_string();
    assert!(held.contains("memory") && held.contains("v1"), "{held}");
    for command in [&["status"] as &[_], &["inspect", "http://test.example/a"]] {
        let output = ask(command);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn a_client_command_says_why_it_failed() {
    let origin = Origin::start();
    let node = node(&origin).start();
    let dir = TempDir::new();
    let wrong = dir.write("token", "wrong");
    let wrong = wrong.to_str().expect("UTF-8");
    let url = format!("http://{}", node.admin());
    for arguments in [
        ["status", "--node", "http://127.0.0.1:1", "--token-file", wrong],
        ["status", "--node", &url, "--token-file", wrong],
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{}", text(&output));
    }
}

#[test]
fn purge_purges_and_tells_what_was_purged() {
    let origin = Origin::with("/a", &[FRESH[0], ("Surrogate-Key", "t")], "a");
    let node = node(&origin).start();
    let url = format!("http://{}", node.admin());
    let token = node.token_file();
    let found = ["--node", &url, "--token-file", token.to_str().expect("UTF-8")];
    let ask = |command: &[&str]| run(&[command, &found].concat());
    let mut ids = Vec::new();
    for selector in [
        &["http://test.example/a"][..],
        &["--prefix", "test.example/"],
        &["--tag", "t", "--tag", "u", "--note", "spring sale"],
        &["--host", "test.example", "--site", "test"],
        &["--all", "--yes"],
    ] {
        node.await_hit("/a");
        let made = json(&ask(&[&["purge", "--json"], selector].concat()));
        ids.push(made["id"].as_str().expect("an id").to_owned());
        node.get("/a").assert_fwd("uri-miss");
    }
    node.await_hit("/a");
    let soft = ask(&["purge", "http://test.example/a", "--soft"]);
    assert_eq!(soft.status.code(), Some(0), "{}", text(&soft));
    assert!(text(&soft).contains("softly"), "{}", text(&soft));
    node.get("/a").assert_fwd("stale");

    let listed = json(&ask(&["purge", "list", "--json"]));
    let listed = listed["items"].as_array().expect("items");
    assert_eq!(listed.len(), 6);
    assert!(listed.iter().all(|item| item["source"] == "cli"), "{listed:?}");
    let lines = text(&ask(&["purge", "list"]));
    assert!(ids.iter().all(|id| lines.contains(id)) && lines.contains("spring sale"), "{lines}");
    let shown = text(&ask(&["purge", "show", &ids[2]]));
    assert!(shown.contains("tag t") && shown.contains("tag u"), "{shown}");
    assert!(text(&ask(&["status"])).contains("6 in the log"));
    assert_eq!(ask(&["purge", "show", "nonsense"]).status.code(), Some(1));
}

#[test]
fn purge_names_each_wrong_entry_and_does_nothing() {
    let origin = Origin::with("/a", FRESH, "a");
    let node = node(&origin).start();
    node.await_hit("/a");
    let url = format!("http://{}", node.admin());
    let token = node.token_file();
    let found = ["--node", &url, "--token-file", token.to_str().expect("UTF-8")];
    let ask = |command: &[&str]| run(&[command, &found].concat());
    let output = ask(&["purge", "http://test.example/a", "test.example/a"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("#/urls/1"), "{}", text(&output));
    for usage in [
        &["purge"] as &[_],
        &["purge", "--all"],
        &["purge", "--all", "--yes", "http://test.example/a"],
        &["purge", "list", "--soft"],
    ] {
        let output = ask(usage);
        assert_eq!(output.status.code(), Some(2), "{usage:?}: {}", text(&output));
        assert!(!output.stderr.is_empty(), "{usage:?}");
    }
    node.get("/a").assert_hit();
}
