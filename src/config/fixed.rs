//! Settings that a running node can't change: what they are, and which of them a new file would change.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use toml::{Table, Value};

use super::diagnostic::{Diagnostic, Diagnostics, Place};

/// Whole tables and single settings. What they hold is compared as it is written, so that a share of the
/// machine's memory is the same setting however much that is.
const FIXED: &[&[&str]] = &[
    &["node", "name"],
    &["node", "workers"],
    &["listen"],
    &["admin", "address"],
    &["admin", "tls", "client_ca"],
    &["metrics"],
    &["store"],
];

/// What a running node can't change, by path.
pub(super) type Fixed = BTreeMap<String, Value>;

/// Where settings stand in a file.
#[derive(Debug, Default)]
pub(super) struct Places {
    file: String,
    text: String,
    ranges: HashMap<String, Range<usize>>,
}

impl Places {
    pub(super) fn new(file: &str, text: &str, ranges: HashMap<String, Range<usize>>) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), ranges }
    }

    /// The place of a setting, or of the table that it is missing from.
    fn of(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.ranges.get(path) {
                return Place::At(place.clone());
            }
            let Some(end) = path.rfind(['.', '[']) else { return Place::File };
            path = &path[..end];
        }
    }

    /// A fault for each setting that differs.
    pub(super) fn refuse(&self, running: &Fixed, new: &Fixed) -> Vec<Diagnostic> {
        let mut diagnostics = Diagnostics::new(&self.file, &self.text);
        let paths: std::collections::BTreeSet<&String> = running.keys().chain(new.keys()).collect();
        for path in paths {
            let (is, will_be) = (running.get(path), new.get(path));
            if is != will_be {
                let shown = |value: Option<&Value>| value.map_or("nothing".into(), ToString::to_string);
                let found = format!("{}, which only a restart or an upgrade can change", shown(will_be));
                diagnostics.error(self.of(path), path, found, &shown(is));
            }
        }
        diagnostics.into_sorted()
    }
}

/// Of a file's values, with all defaults.
pub(super) fn of(values: &Table) -> Fixed {
    let mut fixed = Fixed::new();
    for path in FIXED {
        let mut value = values.get(path[0]);
        for name in &path[1..] {
            value = value.and_then(|value| value.get(name));
        }
        if let Some(value) = value {
            flatten(&path.join("."), value, &mut fixed);
        }
    }
    // Whether TLS is spoken there is; with which certificate may change.
    let has_tls = values.get("admin").and_then(|admin| admin.get("tls")).is_some();
    fixed.insert("admin.tls".into(), Value::Boolean(has_tls));
    fixed
}

fn flatten(path: &str, value: &Value, fixed: &mut Fixed) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                flatten(&format!("{path}.{name}"), value, fixed);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_table) => {
            for (i, value) in list.iter().enumerate() {
                flatten(&format!("{path}[{i}]"), value, fixed);
            }
        }
        value => {
            fixed.insert(path.to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::check_text;

    const FILE: &str = "[[listen]]\naddress = \"127.0.0.1:80\"\n[store]\npath = \"/a\"\nmemory = \"25%\"\n\
        [[site]]\nname = \"s\"\nhosts = [\"*\"]\norigin = \"o\"\n\
        [[origin]]\nname = \"o\"\nservers = [{ url = \"http://127.0.0.1:9\" }]\n";

    fn refused(change: impl Fn(String) -> String) -> Vec<String> {
        let running = check_text("x.toml", FILE).config.expect("valid");
        let new = check_text("x.toml", &change(FILE.to_owned()));
        assert!(new.config.is_some(), "{:?}", new.diagnostics);
        new.refused_by(&running).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_may_change_is_not_refused() {
        let changed = refused(|file| file.replace('*', "shop.example") + "[limits]\nidle_timeout = \"5s\"\n");
        assert!(changed.is_empty(), "{changed:?}");
    }

    #[test]
    fn what_may_not_is_named_with_its_place() {
        let rows = [
            ("path = \"/a\"", "path = \"/b\"", "x.toml:4:8: error: store.path: found: \"/b\", which only"),
            (":80\"", ":81\"", "x.toml:2:11: error: listen[0].address"),
            (
                "[store]",
                "tls = false\n[[listen]]\naddress = \"[::1]:80\"\n[store]",
                "error: listen[1].address",
            ),
            (
                "[store]",
                "[metrics]\naddress = \"127.0.0.1:9\"\n[store]",
                "x.toml:4:11: error: metrics.address",
            ),
            ("[store]", "[node]\nworkers = 3\n[store]", "x.toml:4:11: error: node.workers"),
            (
                "\"25%\"",
                "\"1GiB\"",
                "store.memory: found: \"1GiB\", which only a restart or an upgrade can change; allowed: \"25%\"",
            ),
        ];
        for (from, to, expected) in rows {
            let found = refused(|file| file.replace(from, to));
            assert!(found.iter().any(|fault| fault.contains(expected)), "{expected}: {found:#?}");
        }
    }
}
