//! The checkers can fail: each is tried on a few lines that break its rule, and on some that look like it.

use super::*;

fn source(path: &str, text: &str) -> Source {
    Source::new(path, text)
}

#[test]
fn an_import_of_a_higher_layer_is_found_with_its_line() {
    let faults =
        source("src/edge/fill.rs", "\nuse crate::{rules::date, control::{auth, health}};\n").import_faults();
    assert_eq!(faults.len(), 2);
    assert_eq!(faults[0], "src/edge/fill.rs:2: edge must not import control (crate::control::auth)");
    assert!(source("src/control/mod.rs", "use crate::edge::Edge;").import_faults().is_empty());
    assert_eq!(source("src/config/mod.rs", "fn f() { crate::node::run() }").import_faults().len(), 1);
    assert_eq!(
        source("src/edge/mod.rs", "use super::control;\nuse super::control::A;").import_faults().len(),
        2
    );
    assert_eq!(source("src/edge/fill.rs", "use super::control::A;").import_faults().len(), 0);
    assert_eq!(source("src/edge/fill.rs", "use super::super::control::A;").import_faults().len(), 1);
}

#[test]
fn an_engine_that_imports_an_engine_is_found() {
    assert_eq!(source("src/net/conn.rs", "use crate::store::Store;").import_faults().len(), 1);
    assert!(
        source("src/net/conn.rs", "use crate::net::io;\nuse crate::telemetry::Clock;")
            .import_faults()
            .is_empty()
    );
    assert_eq!(source("src/object.rs", "use crate::telemetry::Clock;").import_faults().len(), 1);
    assert_eq!(source("src/rules/key.rs", "use crate::object::Object;").import_faults().len(), 1);
}

#[test]
fn telemetry_may_use_times_only() {
    assert!(source("src/telemetry/clock.rs", "use crate::rules::time::Millis;").import_faults().is_empty());
    assert_eq!(
        source("src/telemetry/clock.rs", "use crate::rules::{time::Millis, key};").import_faults().len(),
        1
    );
}

#[test]
fn a_module_without_a_layer_is_found() {
    assert_eq!(source("src/grab_bag.rs", "").import_faults().len(), 1);
}

#[test]
fn tests_comments_and_strings_import_nothing() {
    let text = "// crate::node::run\nconst A: &str = \"crate::node\";\n#[cfg(test)]\nmod tests { use crate::node::Node; }\n";
    assert!(source("src/net/io.rs", text).import_faults().is_empty());
    assert!(source("src/net/tests.rs", "use crate::node::Node;").import_faults().is_empty());
    assert!(source("src/net/tests/a.rs", "use crate::node::Node;").import_faults().is_empty());
    let after = "#[cfg(test)]\nuse crate::node::A;\nuse crate::node::B;\n";
    assert_eq!(source("src/net/io.rs", after).import_faults().len(), 1);
}

#[test]
fn impure_rules_are_found() {
    for text in [
        "use tokio::time;",
        "use std::{fmt, fs};",
        "fn f() { std::net::TcpStream::connect(\"\"); }",
        "use std::time::Instant;\nfn f() { Instant::now(); }",
        "use std::time::{Duration, SystemTime};\nfn f() { SystemTime::now(); }",
    ] {
        assert_eq!(source("src/rules/key.rs", text).impurities().len(), 1, "{text}");
    }
    assert!(
        source("src/rules/key.rs", "use std::time::Instant;\nfn f(now: Instant) {}").impurities().is_empty()
    );
}

#[test]
fn long_and_shrunk_entries_are_found() {
    let faults =
        |lines: usize, listed: &[(&str, usize)]| ratchet([("a".to_owned(), lines)].into_iter(), 10, listed);
    assert!(faults(10, &[]).is_empty());
    assert_eq!(faults(11, &[]), ["a: 11 lines are more than 10"]);
    assert!(faults(11, &[("a", 11)]).is_empty());
    assert_eq!(faults(12, &[("a", 11)]), ["a: grew from 11 to 12 lines"]);
    assert_eq!(faults(11, &[("a", 12)]), ["a: shrank to 11: write that into the table"]);
    assert_eq!(faults(10, &[("a", 11)]), ["a: no longer over 10: take it out of the table"]);
    assert_eq!(faults(10, &[("gone", 11)]).len(), 1);
}

#[test]
fn lines_are_counted_up_to_the_tests() {
    let file = source("src/a.rs", "fn a() {\n}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n");
    assert_eq!(file.production_lines(), 2);
    assert_eq!(file.functions(), [("src/a.rs: a".to_owned(), 2)]);
    assert_eq!(source("src/tests.rs", "fn a() {}\n").production_lines(), 0);
    let traits = source("src/a.rs", "trait T {\n fn a(x: [u8; 2]) -> u8;\n fn b()\n where A: B\n {\n }\n}");
    assert_eq!(traits.functions(), [("src/a.rs: b".to_owned(), 4)]);
}

#[test]
fn leftovers_are_found() {
    let text = concat!("fn f() { tod", "o!() }\n// FIX", "ME: later\ndb", "g!(1);\n// XX", "XL is a size\n");
    assert_eq!(source("src/a.rs", text).leftovers().len(), 3);
    assert!(source("src/a.rs", "const A: &str = \"todo!(\";").leftovers().is_empty());
}

#[test]
fn panics_are_found_outside_of_tests() {
    let text = "fn f() {\n    a.unwrap();\n    b.unwrap_or(1);\n}\n#[cfg(test)]\nmod tests { fn g() { panic!(\"x\") } }\n";
    assert_eq!(source("src/a.rs", text).panics(), [("src/a.rs".to_owned(), 2, "a.unwrap();".to_owned())]);
    assert!(source("src/a.rs", "/// `a.unwrap()`\nfn f() { debug_assert!(x); }").panics().is_empty());
}

#[test]
fn unsafe_needs_its_reason() {
    let faults = |text| source("src/a.rs", text).unexplained_unsafe();
    assert_eq!(faults("fn f() {\n    unsafe { g() }\n}"), ["src/a.rs:2: unsafe without // SAFETY: above it"]);
    assert!(
        faults("// SAFETY: nobody else holds it,\n// as `f` says.\n#[allow(unsafe_code)]\nunsafe { g() }")
            .is_empty()
    );
    assert_eq!(faults("// SAFETY: of another\n\nunsafe { g() }").len(), 1);
    assert!(faults("#![deny(unsafe_code)] // not unsafe").is_empty());
}

#[test]
fn machines_and_registries_are_found() {
    let path = |first: &str, rest: &str| machine_path(&format!("{first}/{}{rest}", "home"));
    assert!(path("cd ", "/me").is_some() && path("\"", "\"").is_some() && path("", "").is_some());
    assert!(path("https://a.example", "/x").is_none() && path("$HOME", "/x").is_none());
    assert!(path("cd ", "page").is_none() && path("href=\"", ".html").is_none());
    assert!(registry(concat!("https://index.", "crates", ".io/")).is_some());
    assert!(registry("https://larder.example/").is_none());
}
