//! The configuration: from a TOML file to what every part is built from.
//!
//! `settings` is the one table of all settings; `check` walks a file against it and finds every
//! fault at once; `cross` finds what no single value can tell, such as an origin that does not exist;
//! `raw` is the result with defaults filled in, and `resolve` turns it into the parts' own `Config`s.

mod check;
mod cross;
mod diagnostic;
mod fixed;
mod kind;
mod raw;
mod resolve;
mod schema;
mod settings;
mod settings_compress;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use diagnostic::{Diagnostic, Severity};
pub use kind::{parse_duration, parse_server_url};
pub use schema::json_schema;

use crate::net::{CertificateFiles, Limits, ListenConfig};
use crate::telemetry::AccessLogConfig;
use crate::{control, edge, origin, store};
use diagnostic::{Diagnostics, Place};

/// A validated configuration, in the terms of the parts it is for.
#[derive(Debug)]
pub struct Config {
    /// Public name of the node.
    pub name: String,
    /// Serving threads.
    pub workers: usize,
    /// How long a drain waits for responses.
    pub drain_timeout: Duration,
    /// How long a new process may take to take over.
    pub upgrade_timeout: Duration,
    /// How long readyz says 503 before listeners close.
    pub drain_delay: Duration,
    /// Peers whose forwarding fields are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Data listeners.
    pub listen: Vec<ListenConfig>,
    /// Certificates of the data listeners.
    pub certificates: Vec<CertificateFiles>,
    /// The admin listener.
    pub admin: AdminListener,
    /// The scrapers' listener.
    pub metrics: Option<std::net::SocketAddr>,
    /// What clients may take.
    pub limits: Limits,
    /// `limits.fills`.
    pub fills: usize,
    /// The store.
    pub store: store::Config,
    /// Directory of the store.
    pub store_path: PathBuf,
    /// Origins, in the file's order.
    pub origins: Vec<origin::Config>,
    /// Sites, in the file's order.
    pub sites: Vec<SiteConfig>,
    /// The access log.
    pub access_log: AccessLogConfig,
    /// What a running node can't change.
    fixed: fixed::Fixed,
}

/// `[admin]`.
#[derive(Debug)]
pub struct AdminListener {
    /// Where it listens.
    pub listen: ListenConfig,
    /// Its certificate, when it speaks TLS.
    pub certificate: Option<CertificateFiles>,
    /// Who signs the certificates that clients have to show; `None`: they need none.
    pub client_ca: Option<PathBuf>,
    /// Who may use it.
    pub tokens: Vec<control::TokenConfig>,
}

/// A site whose origins are still names.
#[derive(Debug)]
pub struct SiteConfig {
    /// Everything but the treatments' origins.
    pub name: Arc<str>,
    /// Host patterns.
    pub hosts: Vec<String>,
    /// Whether plain requests are sent to https.
    pub redirect_to_https: bool,
    /// Lifetime of Strict-Transport-Security.
    pub hsts: Duration,
    /// Methods let in; `None`: all.
    pub methods: Option<Vec<http::Method>>,
    /// Who may purge without a token, and where tags stand.
    pub purge: edge::config::SitePurge,
    /// The site's own treatment.
    pub default: TreatmentConfig,
    /// Rules, the first match wins.
    pub rules: Vec<RuleConfig>,
}

/// A rule whose origin is still a name.
#[derive(Debug)]
pub struct RuleConfig {
    /// Patterns; empty: all paths.
    pub paths: Vec<edge::config::PathPattern>,
    /// Methods; empty: all.
    pub methods: Vec<http::Method>,
    /// What it does.
    pub treatment: TreatmentConfig,
}

/// A treatment whose origin is still a name.
#[derive(Debug)]
pub struct TreatmentConfig {
    /// The origin's name.
    pub origin: String,
    /// Never from or to the cache.
    pub pass: bool,
    /// See `edge::config::Treatment`.
    pub policy: crate::rules::policy::SitePolicy,
    /// See `edge::config::Treatment`.
    pub query: crate::rules::key::QueryRule,
    /// `site.cache.fills`.
    pub fills: usize,
    /// See `edge::config::Treatment`.
    pub misses_per_client: Option<edge::config::MissRate>,
    /// See `edge::config::Treatment`.
    pub range_miss: edge::config::RangeMiss,
    /// `site.cache.range_slices`; 0 where ranges are forwarded.
    pub range_slices: u64,
    /// See `edge::config::Treatment`.
    pub reject_unknown_transfer_coding: bool,
    /// See `edge::config::Treatment`.
    pub max_variants: usize,
    /// See `edge::config::Treatment`.
    pub strip_targeted: bool,
    /// See `edge::config::Treatment`.
    pub request_headers: edge::config::HeaderChanges,
    /// See `edge::config::Treatment`.
    pub response_headers: edge::config::HeaderChanges,
    /// See `edge::config::Treatment`.
    pub access: edge::config::Access,
    /// What is encoded.
    pub compress: std::sync::Arc<edge::config::Compress>,
}

/// What reading a configuration came to.
#[derive(Debug)]
pub struct Checked {
    /// There when no diagnostic is an error.
    pub config: Option<Config>,
    /// All faults, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
    places: fixed::Places,
}

impl Checked {
    /// What of it a node that runs with `running` can't change, each with its place.
    pub fn refused_by(&self, running: &Config) -> Vec<Diagnostic> {
        self.config.as_ref().map(|new| self.places.refuse(&running.fixed, &new.fixed)).unwrap_or_default()
    }
}

/// Reads and validates a file; an error only when it can't be read at all.
pub fn check_file(path: &Path) -> std::io::Result<Checked> {
    let file = path.display().to_string();
    Ok(match String::from_utf8(std::fs::read(path)?) {
        Ok(text) => check_text(&file, &text),
        Err(error) => not_text(&file, &error),
    })
}

/// A file that is no text: where it stops being any.
fn not_text(file: &str, error: &std::string::FromUtf8Error) -> Checked {
    let at = error.utf8_error().valid_up_to();
    let mut diagnostics = Diagnostics::new(file, &String::from_utf8_lossy(error.as_bytes()));
    let found = error.as_bytes().get(at).map(|byte| format!("the byte {byte:#04x}"));
    diagnostics.error(Place::At(at..at + 1), "", found.unwrap_or_default(), "UTF-8");
    refused(diagnostics)
}

fn refused(diagnostics: Diagnostics) -> Checked {
    Checked { config: None, diagnostics: diagnostics.into_sorted(), places: fixed::Places::default() }
}

/// Validates a configuration's text; `file` is what diagnostics call it.
pub fn check_text(file: &str, text: &str) -> Checked {
    let mut diagnostics = Diagnostics::new(file, text);
    let Some(given) = check::read(text, settings::ROOT, &mut diagnostics) else {
        return refused(diagnostics);
    };
    cross::check(&given, &mut diagnostics);
    let mut values = given.values;
    resolve::inherit(&mut values);
    check::fill(&mut values, settings::ROOT, "edge");
    let mut config = None;
    if !diagnostics.has_errors() {
        let fixed = fixed::of(&values);
        match toml::Value::Table(values).try_into::<raw::Root>() {
            Ok(raw) => config = Some(resolve::resolve(raw, fixed)),
            Err(error) => diagnostics.error(Place::File, "", error.to_string(), ""),
        }
    }
    let places = fixed::Places::new(file, text, given.places);
    Checked { config, diagnostics: diagnostics.into_sorted(), places }
}

/// The machine's or the cgroup's memory in bytes, whichever is less.
pub fn available_memory() -> u64 {
    // Not by /proc/meminfo: a service manager may hide that.
    let system = rustix::system::sysinfo();
    let machine = (system.totalram as u64).saturating_mul(u64::from(system.mem_unit)).max(1);
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    limit.and_then(|text| text.trim().parse().ok()).map_or(machine, |limit: u64| limit.min(machine))
}

#[cfg(test)]
mod tests;
