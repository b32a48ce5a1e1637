//! The configuration as it is written, with every default filled in. Validated before it gets here,
//! so that a failure to read it is a fault of the program's table, not of the user's file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

use super::kind::{parse_duration, parse_percent, parse_size};

/// A size in bytes or a share.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    Bytes(u64),
    Percent(u64),
}

impl Size {
    pub(super) fn of(self, whole: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (u128::from(whole) * u128::from(percent) / 100) as u64,
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size = parse_percent(&text).map(Self::Percent).or_else(|| parse_size(&text).map(Self::Bytes));
        size.ok_or_else(|| D::Error::custom("not a size"))
    }
}

/// A duration; empty means none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) Option<Duration>);

impl Time {
    pub(super) fn get(self) -> Duration {
        self.0.unwrap_or_default()
    }
    pub(super) fn as_ms(self) -> i64 {
        self.get().as_millis() as i64
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self(None));
        }
        parse_duration(&text).map(|d| Self(Some(d))).ok_or_else(|| D::Error::custom("not a duration"))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Root {
    pub(super) node: Node,
    #[serde(default)]
    pub(super) listen: Vec<Listen>,
    #[serde(default)]
    pub(super) certificate: Vec<CertKey>,
    pub(super) admin: Admin,
    pub(super) metrics: Metrics,
    pub(super) limits: Limits,
    pub(super) store: Store,
    pub(super) site: Vec<Site>,
    pub(super) origin: Vec<Origin>,
    pub(super) access_log: AccessLog,
}

#[derive(Debug, Deserialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) workers: usize,
    pub(super) drain_timeout: Time,
    pub(super) drain_delay: Time,
    pub(super) upgrade_timeout: Time,
    pub(super) trusted_proxies: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Listen {
    pub(super) address: std::net::SocketAddr,
    pub(super) tls: bool,
    pub(super) proxy_protocol: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct CertKey {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(super) struct Admin {
    pub(super) address: std::net::SocketAddr,
    pub(super) tls: Option<AdminTls>,
    #[serde(default)]
    pub(super) token: Vec<Token>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AdminTls {
    #[serde(flatten)]
    pub(super) pair: CertKey,
    pub(super) client_ca: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Token {
    pub(super) name: String,
    pub(super) hash: String,
    pub(super) scopes: Vec<String>,
    pub(super) sites: Vec<String>,
    pub(super) expires: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Metrics {
    pub(super) address: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Limits {
    pub(super) header_bytes: Size,
    pub(super) header_count: usize,
    pub(super) uri_bytes: Size,
    pub(super) request_body: Size,
    pub(super) header_timeout: Time,
    pub(super) body_timeout: Time,
    pub(super) write_timeout: Time,
    pub(super) idle_timeout: Time,
    pub(super) h2_streams: u32,
    pub(super) connections: usize,
    pub(super) connections_per_client: usize,
    pub(super) fills: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Store {
    pub(super) path: PathBuf,
    pub(super) memory: Size,
    pub(super) disk: Size,
    pub(super) segment: Size,
    pub(super) memory_object: Size,
    pub(super) admission: String,
    pub(super) max_object: Size,
}

#[derive(Debug, Deserialize)]
pub(super) struct Site {
    pub(super) name: String,
    pub(super) hosts: Vec<String>,
    pub(super) origin: String,
    pub(super) https: String,
    pub(super) hsts: Time,
    pub(super) methods: Vec<String>,
    pub(super) cache: Cache,
    pub(super) headers: Headers,
    pub(super) access: Access,
    pub(super) purge: Purge,
    pub(super) compress: Compress,
    pub(super) ids: Ids,
    #[serde(default)]
    pub(super) rule: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ids {
    #[serde(default)]
    pub(super) cloudflare: String,
    #[serde(default)]
    pub(super) fastly: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Purge {
    pub(super) allow: Vec<String>,
    pub(super) tag_headers: BTreeMap<String, String>,
    pub(super) strip_tags: bool,
}

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub(super) struct Cache {
    pub(super) set_cookie: String,
    pub(super) unknown_transfer_coding: String,
    pub(super) range_miss: String,
    pub(super) range_slices: Size,
    pub(super) default_ttl: Time,
    pub(super) min_ttl: Time,
    pub(super) max_ttl: Time,
    pub(super) override_ttl: Time,
    pub(super) negative_ttl: BTreeMap<String, Time>,
    pub(super) max_error_ttl: Time,
    pub(super) stale_while_revalidate: Time,
    pub(super) stale_if_error: Time,
    pub(super) honor_request_cache_control: bool,
    pub(super) query: Query,
    pub(super) vary_pass: Vec<String>,
    pub(super) max_variants: usize,
    #[serde(rename = "cache_post")]
    pub(super) post: bool,
    pub(super) accept_language_select: bool,
    pub(super) strip_targeted: bool,
    pub(super) fills: usize,
    pub(super) misses_per_client: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Query {
    pub(super) mode: String,
    pub(super) names: Vec<String>,
    pub(super) sort: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Headers {
    pub(super) request: Changes,
    pub(super) response: Changes,
}

#[derive(Debug, Deserialize)]
pub(super) struct Changes {
    pub(super) set: BTreeMap<String, String>,
    pub(super) remove: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Access {
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
    pub(super) signed: Option<Signed>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Signed {
    pub(super) secret_file: PathBuf,
    pub(super) param: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Compress {
    pub(super) encodings: Vec<String>,
    pub(super) types: Vec<String>,
    pub(super) min_size: Size,
    pub(super) max_size: Size,
    pub(super) dictionaries: bool,
}

/// `cache`, `compress`, `headers` and `access` are merged with the site's before this is read.
#[derive(Debug, Deserialize)]
pub(super) struct Rule {
    pub(super) path: Vec<String>,
    pub(super) methods: Vec<String>,
    pub(super) pass: bool,
    pub(super) cache: Cache,
    pub(super) origin: Option<String>,
    pub(super) headers: Headers,
    pub(super) access: Access,
    pub(super) compress: Compress,
}

#[derive(Debug, Deserialize)]
pub(super) struct Origin {
    pub(super) name: String,
    #[serde(default)]
    pub(super) servers: Vec<Server>,
    pub(super) dir: Option<PathBuf>,
    pub(super) balance: String,
    pub(super) host: String,
    pub(super) tls: OriginTls,
    pub(super) connect_timeout: Time,
    pub(super) first_byte_timeout: Time,
    pub(super) between_bytes_timeout: Time,
    pub(super) fill_timeout: Time,
    pub(super) idle_timeout: Time,
    pub(super) http2: bool,
    pub(super) retries: u32,
    pub(super) retry_budget: String,
    pub(super) health: Health,
    pub(super) eject: Eject,
    pub(super) max_connections: usize,
    pub(super) queue: usize,
    pub(super) queue_timeout: Time,
    pub(super) fills: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Health {
    pub(super) path: String,
    pub(super) interval: Time,
    pub(super) timeout: Time,
    pub(super) healthy: u32,
    pub(super) unhealthy: u32,
    pub(super) status: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Eject {
    pub(super) consecutive_errors: u32,
    pub(super) base: Time,
    pub(super) max: Time,
    pub(super) max_percent: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct Server {
    pub(super) url: String,
    pub(super) weight: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct OriginTls {
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) verify: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct AccessLog {
    pub(super) output: String,
    pub(super) sample: String,
}
