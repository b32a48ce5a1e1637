//! The rules of the house, checked on its source: who may import whom, how long files and functions may be, what may not
//! be left in them. The tables are ratchets: an entry that is no longer needed, or larger than the real number, fails.
//!
//! This reads the source with a small lexer and no parser. It knows comments, strings, paths with nested braces, and
//! items marked `#[cfg(test)]`, which are exempt from what is asked of production code.

#[path = "tidy/checkers.rs"]
mod checkers;
#[path = "tidy/lexer.rs"]
mod lexer;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use lexer::{is_name, item_end, paths, without_comments_and_literals, without_test_items, words};

/// Layers from the top down. A module imports only from layers below its own, so that engines never meet.
const LAYERS: &[&[&str]] = &[
    &["main", "lib"],
    &["cli"],
    &["node"],
    &["config"],
    &["control"],
    &["edge"],
    &["net", "store", "origin", "purge", "encode"],
    &["object", "region", "telemetry"],
    &["rules"],
];

/// What the pure rules must not touch: runtimes, clocks, input and output.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::io",
    // Addresses are only data; these are sockets and the resolver.
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
];

const FILE_LINES: usize = 400;
const FILE_LINES_CEILING: usize = 600;
/// Files with more production lines than [`FILE_LINES`], and how many they have.
const LONG_FILES: &[(&str, usize)] = &[("src/config/settings.rs", 413)];

const FUNCTION_LINES: usize = 70;
/// Functions of more than [`FUNCTION_LINES`] lines, and how many they have.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// Lines of production code that may panic, each with the reason why it can't.
const MAY_PANIC: &[(&str, &str, &str)] = &[];

const PANICS: &[&str] = &[".unwrap()", ".expect(", "panic!("];
const LEFTOVER_MACROS: &[&str] = &["todo!(", "unimplemented!(", "dbg!("];
const LEFTOVER_WORDS: &[&str] = &["TODO", "FIXME", "XXX"];
/// First components of absolute paths that exist on somebody's machine only.
const MACHINE_PATHS: &[&str] = &["work", "root", "home", "farm"];
/// Hosts of package registries, in halves so that this file does not name them itself.
const REGISTRIES: &[(&str, &str)] = &[
    ("crates", ".io"),
    ("npmjs", ".org"),
    ("pypi", ".org"),
    ("pythonhosted", ".org"),
    ("proxy.golang", ".org"),
];

#[test]
fn imports_point_down() {
    report(sources().iter().flat_map(Source::import_faults));
}

#[test]
fn rules_are_pure() {
    report(sources().iter().filter(|source| source.module() == "rules").flat_map(Source::impurities));
}

#[test]
fn files_are_short() {
    let sources = sources();
    assert!(
        LONG_FILES.iter().all(|(_, lines)| *lines <= FILE_LINES_CEILING),
        "never above {FILE_LINES_CEILING}"
    );
    report(ratchet(sources.iter().map(|s| (s.path.clone(), s.production_lines())), FILE_LINES, LONG_FILES));
}

#[test]
fn functions_are_short() {
    let sources = sources();
    report(ratchet(sources.iter().flat_map(Source::functions), FUNCTION_LINES, LONG_FUNCTIONS));
}

#[test]
fn nothing_is_left_over() {
    report(sources().iter().flat_map(Source::leftovers));
}

#[test]
fn production_code_does_not_panic() {
    let found: Vec<(String, usize, String)> = sources().iter().flat_map(Source::panics).collect();
    let listed = |path: &str, line: &str| MAY_PANIC.iter().any(|(p, l, _)| *p == path && *l == line);
    let unlisted = found.iter().filter(|(path, _, line)| !listed(path, line));
    let faults = unlisted.map(|(path, number, line)| format!("{path}:{number}: may panic: {line}"));
    let is_gone =
        |(path, line, _): &&(&str, &str, &str)| !found.iter().any(|(p, _, l)| p == path && l == line);
    let gone = MAY_PANIC.iter().filter(is_gone);
    report(faults.chain(
        gone.map(|(path, line, _)| format!("{path}: no longer there, take it out of MAY_PANIC: {line}")),
    ));
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    report(sources().iter().flat_map(Source::unexplained_unsafe));
}

#[test]
fn committed_files_name_no_machine_and_no_registry() {
    let mut faults = Vec::new();
    for path in files(&root(), &|_| true) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = relative(&path);
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(found) = machine_path(line) {
                faults.push(format!("{name}:{number}: {found} is a path of one machine"));
            }
            if !name.ends_with("Cargo.lock")
                && let Some(host) = registry(line)
            {
                faults.push(format!("{name}:{number}: names the package registry {host}"));
            }
        }
    }
    report(faults);
}

// What is looked at.

/// A Rust file under `src/`.
struct Source {
    path: String,
    text: String,
    /// The text without comments and without the contents of literals; every line keeps its number.
    code: String,
    /// The code without items that only tests see; empty for files of tests.
    production: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = without_comments_and_literals(text);
        let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
        let production = if is_test { String::new() } else { without_test_items(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, production }
    }

    /// The module path: `src/edge/fill.rs` is `["edge", "fill"]`.
    fn modules(&self) -> Vec<&str> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut modules: Vec<&str> = path.split('/').collect();
        if modules.last() == Some(&"mod") {
            modules.pop();
        }
        modules
    }

    /// The module below the crate's root.
    fn module(&self) -> &str {
        self.modules()[0]
    }

    fn import_faults(&self) -> Vec<String> {
        let from = self.module();
        let Some(layer) = layer_of(from) else {
            return vec![format!("{}: {from} has no place in LAYERS", self.path)];
        };
        let mut faults = Vec::new();
        for (line, path) in paths(&self.production) {
            let Some(inner) = self.below_root(&path) else { continue };
            let to = inner[0];
            let Some(below) = layer_of(to) else { continue };
            if to != from && below <= layer {
                faults.push(format!("{}:{line}: {from} must not import {to} ({path})", self.path));
            }
            if from == "telemetry" && to == "rules" && inner.get(1) != Some(&"time") {
                faults.push(format!("{}:{line}: telemetry may use only times of rules ({path})", self.path));
            }
        }
        faults
    }

    /// The components after the crate's root, if the path starts there: by name or by enough `super`.
    fn below_root<'a>(&self, path: &'a str) -> Option<Vec<&'a str>> {
        let parts: Vec<&str> = path.split("::").collect();
        let rest = match parts[0] {
            "crate" | "larder" => &parts[1..],
            "super" => {
                let supers = parts.iter().take_while(|part| **part == "super").count();
                (supers >= self.modules().len()).then_some(&parts[supers..])?
            }
            _ => return None,
        };
        (!rest.is_empty()).then(|| rest.to_vec())
    }

    fn impurities(&self) -> Vec<String> {
        let mut faults = Vec::new();
        // What a `use` brings in under its last name: `Instant` for `std::time::Instant`.
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        for (line, path) in paths(&self.production) {
            let (first, rest) = path.split_once("::").unwrap_or((&path, ""));
            let full = names.get(first).map_or_else(|| path.clone(), |whole| format!("{whole}::{rest}"));
            let touches = |impure: &&&str| full == **impure || full.starts_with(&format!("{impure}::"));
            if let Some(impure) = IMPURE.iter().find(touches) {
                faults.push(format!("{}:{line}: rules must not touch {impure}", self.path));
            }
            if let Some((_, last)) = full.rsplit_once("::") {
                names.insert(last.to_owned(), full.clone());
            }
        }
        faults
    }

    /// Lines before the tests.
    fn production_lines(&self) -> usize {
        if self.production.is_empty() {
            return 0;
        }
        let lines: Vec<&str> = self.code.lines().collect();
        let is_tests =
            |pair: &[&str]| pair[0].trim() == "#[cfg(test)]" && pair[1].trim().starts_with("mod tests");
        let end = lines.windows(2).position(is_tests).unwrap_or(lines.len());
        self.text.lines().take(end).collect::<Vec<_>>().join("\n").trim_end().lines().count()
    }

    /// Each function with its length, from `fn` to its closing brace: `src/a.rs: name`.
    fn functions(&self) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for at in words(&self.production, "fn") {
            let rest = &self.production[at..];
            let name: String = rest[2..].trim_start().chars().take_while(|c| is_name(*c)).collect();
            if name.is_empty() {
                continue;
            }
            let end = item_end(rest);
            if rest[..end].ends_with('}') {
                found.push((format!("{}: {name}", self.path), rest[..end].lines().count()));
            }
        }
        found
    }

    fn leftovers(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (number, (code, text)) in (1..).zip(self.code.lines().zip(self.text.lines())) {
            let macros = LEFTOVER_MACROS.iter().filter(|found| code.contains(**found));
            let words = LEFTOVER_WORDS.iter().filter(|word| words(text, word).next().is_some());
            faults.extend(macros.chain(words).map(|found| format!("{}:{number}: {found}", self.path)));
        }
        faults
    }

    /// Places that may panic: path, line number, and the line.
    fn panics(&self) -> Vec<(String, usize, String)> {
        let lines = (1..).zip(self.production.lines().zip(self.text.lines()));
        let panicking = lines.filter(|(_, (code, _))| PANICS.iter().any(|panic| code.contains(panic)));
        panicking.map(|(number, (_, text))| (self.path.clone(), number, text.trim().to_owned())).collect()
    }

    /// `unsafe` without `// SAFETY:` in the comment directly above it. Attributes may stand between.
    fn unexplained_unsafe(&self) -> Vec<String> {
        let text: Vec<&str> = self.text.lines().map(str::trim).collect();
        let mut faults = Vec::new();
        for (index, code) in self.code.lines().enumerate() {
            if words(code, "unsafe").next().is_none() {
                continue;
            }
            let above = text[..index].iter().rev().skip_while(|line| line.starts_with("#["));
            let mut comment = above.take_while(|line| line.starts_with("//"));
            if !comment.any(|line| line.starts_with("// SAFETY:")) {
                faults.push(format!("{}:{}: unsafe without // SAFETY: above it", self.path, index + 1));
            }
        }
        faults
    }
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// What exceeds `limit` must be listed with its exact number, and nothing else may be listed.
fn ratchet(
    measured: impl Iterator<Item = (String, usize)>,
    limit: usize,
    listed: &[(&str, usize)],
) -> Vec<String> {
    let mut longest: BTreeMap<String, usize> = BTreeMap::new();
    for (name, lines) in measured.filter(|(_, lines)| *lines > limit) {
        let known = longest.entry(name).or_default();
        *known = lines.max(*known);
    }
    let mut faults = Vec::new();
    for (name, lines) in &longest {
        match listed.iter().find(|(listed, _)| listed == name) {
            None => faults.push(format!("{name}: {lines} lines are more than {limit}")),
            Some((_, allowed)) if lines > allowed => {
                faults.push(format!("{name}: grew from {allowed} to {lines} lines"));
            }
            Some((_, allowed)) if lines < allowed => {
                faults.push(format!("{name}: shrank to {lines}: write that into the table"));
            }
            Some(_) => {}
        }
    }
    let gone = listed.iter().filter(|(name, _)| !longest.contains_key(*name));
    faults.extend(gone.map(|(name, _)| format!("{name}: no longer over {limit}: take it out of the table")));
    faults
}

fn machine_path(line: &str) -> Option<String> {
    let is_inside = |c: char| is_name(c) || "./-~}*".contains(c);
    for name in MACHINE_PATHS {
        let path = format!("/{name}");
        for (at, _) in line.match_indices(&path) {
            let before = line[..at].chars().next_back();
            let after = line[at + path.len()..].chars().next();
            if !before.is_some_and(is_inside) && !after.is_some_and(|c| is_name(c) || c == '-' || c == '.') {
                return Some(path);
            }
        }
    }
    None
}

fn registry(line: &str) -> Option<String> {
    REGISTRIES.iter().map(|(name, end)| format!("{name}{end}")).find(|host| line.contains(host))
}

// How it is read.

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn sources() -> Vec<Source> {
    let is_rust = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    let files = files(&root().join("src"), &is_rust);
    assert!(!files.is_empty(), "there is no source in {}", root().display());
    let read = |path: &PathBuf| fs::read_to_string(path).expect("source is UTF-8");
    files.iter().map(|path| Source::new(&relative(path), &read(path))).collect()
}

/// All files below a directory, without what builds and tools leave there.
fn files(directory: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    const SKIPPED: [&str; 4] = [".git", "target", "node_modules", "__pycache__"];
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
            found.extend(files(&path, wanted));
        } else if kind.is_file() && entry.file_name() != ".git" && wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[track_caller]
fn report(faults: impl IntoIterator<Item = String>) {
    let mut list = String::new();
    for fault in faults {
        let _ = writeln!(list, "{fault}");
    }
    assert!(list.is_empty(), "\n{list}");
}
