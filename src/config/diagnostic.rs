//! Faults of a configuration, each with its place, what was found and what is allowed.

use std::fmt;
use std::ops::Range;

/// Where a fault is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Bytes of the file.
    At(Range<usize>),
    /// Nowhere in particular.
    File,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration can't be used.
    Error,
    /// It can, but not all it says has an effect.
    Warning,
}

/// One fault.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The setting, such as `site[0].cache.max_ttl`; empty for the file as a whole.
    pub setting: String,
    /// What is there.
    pub found: String,
    /// What may be there; empty when that goes without saying.
    pub allowed: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}:{}:{}: {severity}: {}", self.file, self.line, self.column, self.what())
    }
}

impl Diagnostic {
    /// Without its place.
    pub fn what(&self) -> String {
        let setting = if self.setting.is_empty() { String::new() } else { format!("{}: ", self.setting) };
        let allowed =
            if self.allowed.is_empty() { String::new() } else { format!("; allowed: {}", self.allowed) };
        format!("{setting}found: {}{allowed}", self.found)
    }
}

/// The faults of one file.
#[derive(Debug)]
pub(super) struct Diagnostics {
    file: String,
    line_starts: Vec<usize>,
    text: String,
    found: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(super) fn new(file: &str, text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let line_starts = std::iter::once(0).chain(starts).collect();
        Self { file: file.to_owned(), line_starts, text: text.to_owned(), found: Vec::new() }
    }

    pub(super) fn error(&mut self, place: Place, setting: &str, found: String, allowed: &str) {
        self.push(Severity::Error, place, setting, found, allowed);
    }

    pub(super) fn warning(&mut self, place: Place, setting: &str, found: String) {
        self.push(Severity::Warning, place, setting, found, "");
    }

    fn push(&mut self, severity: Severity, place: Place, setting: &str, found: String, allowed: &str) {
        let offset = match place {
            Place::At(range) => range.start.min(self.text.len()),
            Place::File => 0,
        };
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let before = self.text.get(self.line_starts[line - 1]..offset).unwrap_or_default();
        self.found.push(Diagnostic {
            severity,
            file: self.file.clone(),
            line,
            column: before.chars().count() + 1,
            setting: setting.to_owned(),
            found,
            allowed: allowed.to_owned(),
        });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.iter().any(|d| d.severity == Severity::Error)
    }

    /// All of them, in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|d| (d.line, d.column));
        self.found
    }
}
