//! Every setting there is: one table, from which validation, defaults, the JSON Schema and the test
//! of `config/larder.toml` are made.

use super::kind::{Format, Kind};
use super::settings_compress::COMPRESS;

/// What stands for a setting that is not given.
#[derive(Clone, Copy, Debug)]
pub(super) enum Default {
    /// It must be given.
    Required,
    /// Nothing; the program knows what that means.
    Absent,
    /// This TOML value.
    Value(&'static str),
    /// These TOML values, by `site.cache.profile`.
    ByProfile { edge: &'static str, rfc: &'static str },
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Default,
    /// Its effect, in a line.
    pub(super) doc: &'static str,
}

pub(super) const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting { name, kind, default: Default::Value(default), doc }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting { name, kind, default: Default::Required, doc }
}

const fn optional(name: &'static str, kind: Kind, doc: &'static str) -> Setting {
    Setting { name, kind, default: Default::Absent, doc }
}

const fn by_profile(
    name: &'static str,
    kind: Kind,
    edge: &'static str,
    rfc: &'static str,
    doc: &'static str,
) -> Setting {
    Setting { name, kind, default: Default::ByProfile { edge, rfc }, doc }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const TIB: u64 = 1024 * GIB;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const YEAR: u64 = 365 * 24 * HOUR;

const fn duration(min_ms: u64, max_ms: u64) -> Kind {
    Kind::Duration { min_ms, max_ms, may_be_empty: false }
}
pub(super) const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max, percent: false }
}
pub(super) const fn text(format: Format) -> Kind {
    Kind::Text(format)
}
const ANY_TIME: Kind = duration(0, YEAR * 10);
const TIMEOUT: Kind = duration(1, HOUR);
const FILLS: Kind = Kind::Int { min: 1, max: 1_000_000 };
const CIDRS: Kind = Kind::List(&text(Format::Cidr));
const STRINGS: Kind = Kind::List(&text(Format::Any));

/// The whole file.
pub(super) const ROOT: &[Setting] = &[
    setting("node", Kind::Table(NODE), "{}", "The node itself"),
    optional("listen", Kind::Tables(LISTEN), "Where clients connect"),
    optional(
        "certificate",
        Kind::Tables(CERTIFICATE),
        "Certificates, chosen by SNI; the first is the default",
    ),
    setting("admin", Kind::Table(ADMIN), "{}", "The admin API"),
    setting("metrics", Kind::Table(METRICS), "{}", "A listener for scrapers"),
    setting("limits", Kind::Table(LIMITS), "{}", "What clients may take"),
    setting("store", Kind::Table(STORE), "{}", "Where responses are kept"),
    required("site", Kind::Tables(SITE), "What is served, by Host"),
    required("origin", Kind::Tables(ORIGIN), "Where it comes from"),
    setting("access_log", Kind::Table(ACCESS_LOG), "{}", "One JSON line a response"),
];

const NODE: &[Setting] = &[
    setting("name", text(Format::Token), r#""larder""#, "Public name in Via, Cache-Status and Proxy-Status"),
    setting(
        "workers",
        Kind::Int { min: 0, max: 1024 },
        "0",
        "Serving threads; 0: one a core, or the cgroup's quota",
    ),
    setting("drain_timeout", ANY_TIME, r#""30s""#, "How long a drain waits for responses to finish"),
    setting("drain_delay", ANY_TIME, r#""0s""#, "readyz says 503 for this long before listeners close"),
    setting("upgrade_timeout", TIMEOUT, r#""60s""#, "How long a new process may take to take over"),
    setting("trusted_proxies", CIDRS, "[]", "Peers whose X-Forwarded-* and Forwarded are believed"),
];

const LISTEN: &[Setting] = &[
    required("address", text(Format::SocketAddr), "Address and port; port 0: any free one"),
    setting("tls", Kind::Bool, "false", "Speak TLS; h2 and http/1.1 by ALPN"),
    setting("proxy_protocol", Kind::Bool, "false", "PROXY protocol v1 or v2, from trusted_proxies only"),
];

const CERTIFICATE: &[Setting] = &[
    required("cert", text(Format::Path), "PEM file: the chain, leaf first"),
    required("key", text(Format::Path), "PEM file: the private key"),
];

const ADMIN: &[Setting] = &[
    setting("address", text(Format::SocketAddr), r#""127.0.0.1:8090""#, "Address and port of the admin API"),
    setting("insecure", Kind::Bool, "false", "Allow another address than loopback without TLS"),
    optional("tls", Kind::Table(ADMIN_TLS), "TLS of the admin API"),
    optional("token", Kind::Tables(ADMIN_TOKEN), "Who may use it; none: one is made and kept in the store"),
];

const ADMIN_TLS: &[Setting] = &[
    required("cert", text(Format::Path), "PEM file: the chain, leaf first"),
    required("key", text(Format::Path), "PEM file: the private key"),
    optional("client_ca", text(Format::Path), "PEM file: who signs clients' certificates"),
];

const ADMIN_TOKEN: &[Setting] = &[
    required("name", text(Format::Name), "Shown in logs"),
    required("hash", text(Format::TokenHash), "BLAKE3 of the token"),
    required(
        "scopes",
        Kind::List(&Kind::OneOf(&["read", "purge", "purge:all", "warm", "admin"])),
        "What it may do",
    ),
    setting("sites", STRINGS, "[]", "Sites it is for; none: all"),
    optional("expires", Kind::Time, "From when on it is refused"),
];

const METRICS: &[Setting] = &[setting(
    "address",
    text(Format::SocketAddrOrEmpty),
    r#""""#,
    "Plain listener for /metrics, /healthz, /readyz only; empty: none",
)];

const LIMITS: &[Setting] = &[
    setting("header_bytes", size(8 * KIB, MIB), r#""32KiB""#, "A request's head"),
    setting("header_count", Kind::Int { min: 8, max: 1000 }, "100", "Fields in a request's head"),
    setting("uri_bytes", size(256, 60 * KIB), r#""8KiB""#, "A request's target"),
    setting("request_body", size(0, TIB), r#""16MiB""#, "A request's body"),
    setting("header_timeout", TIMEOUT, r#""10s""#, "Until a request's head is complete"),
    setting("body_timeout", TIMEOUT, r#""30s""#, "Between two reads of a request's body"),
    setting("write_timeout", TIMEOUT, r#""30s""#, "Without progress of a response"),
    setting("idle_timeout", TIMEOUT, r#""60s""#, "Between two requests of a connection"),
    setting(
        "h2_streams",
        Kind::Int { min: 1, max: 10_000 },
        "100",
        "Concurrent streams of an HTTP/2 connection",
    ),
    setting("connections", Kind::Int { min: 1, max: 10_000_000 }, "50000", "Open connections"),
    setting(
        "connections_per_client",
        Kind::Int { min: 1, max: 10_000_000 },
        "500",
        "Open connections of an IPv4 address or IPv6 /64",
    ),
    setting("fills", FILLS, "10000", "Fetches for the cache under way"),
];

const STORE: &[Setting] = &[
    setting(
        "path",
        text(Format::Path),
        r#""/var/cache/larder""#,
        "Directory of the store: disk tier, admin token, node id",
    ),
    setting(
        "memory",
        Kind::Size { min: MIB, max: TIB, percent: true },
        r#""25%""#,
        "Budget of the memory tier; of the machine or the cgroup",
    ),
    setting("disk", size(0, 1024 * TIB), r#""20GiB""#, "What the disk tier takes at most; 0: memory only"),
    setting(
        "segment",
        size(MIB, 2 * GIB),
        r#""64MiB""#,
        "Size of a segment file; at most a sixty-fourth of disk",
    ),
    setting("memory_object", size(0, 64 * MIB), r#""32KiB""#, "Larger bodies are served from the disk tier"),
    setting("admission", Kind::OneOf(&["all", "second-hit"]), r#""all""#, "What enters the disk tier"),
    setting(
        "max_object",
        Kind::Size { min: KIB, max: TIB, percent: true },
        r#""5%""#,
        "The largest response that is stored; a share is of disk; where that is 0, of five times memory",
    ),
];

const SITE: &[Setting] = &[
    required("name", text(Format::Name), "Label of metrics, and what tokens and purges say"),
    required("hosts", Kind::List(&text(Format::HostPattern)), "Names; *.name: all below; *: any other"),
    required("origin", text(Format::Name), "The origin's name"),
    setting("https", Kind::OneOf(&["allow", "redirect"]), r#""allow""#, "redirect: plain requests get a 308"),
    setting("hsts", ANY_TIME, r#""0s""#, "Strict-Transport-Security on https answers; 0: none"),
    setting("methods", Kind::List(&text(Format::Method)), r#"["*"]"#, "Methods let in; others get a 405"),
    setting("cache", Kind::Table(CACHE), "{}", "What is stored and for how long"),
    setting("compress", Kind::Table(COMPRESS), "{}", "Encodings made at rest"),
    setting("headers", Kind::Table(HEADERS), "{}", "Changes to heads"),
    setting("access", Kind::Table(ACCESS), "{}", "Who may ask"),
    setting("purge", Kind::Table(PURGE), "{}", "Purging and tags"),
    setting("ids", Kind::Table(IDS), "{}", "Names of this site in other purge APIs"),
    optional("rule", Kind::Tables(RULE), "Other treatment by path; the first match wins"),
];

pub(super) const CACHE: &[Setting] = &[
    setting(
        "profile",
        Kind::OneOf(&["edge", "rfc"]),
        r#""edge""#,
        "Defaults of a careful CDN, or all that RFC 9111 allows",
    ),
    by_profile(
        "set_cookie",
        Kind::OneOf(&["pass", "strip", "store"]),
        r#""pass""#,
        r#""store""#,
        "A response with Set-Cookie: never stored, stored without it, stored",
    ),
    by_profile(
        "unknown_transfer_coding",
        Kind::OneOf(&["reject", "strip"]),
        r#""reject""#,
        r#""strip""#,
        "Of an origin: 502, or read to the connection's end",
    ),
    by_profile(
        "range_miss",
        Kind::OneOf(&["full", "forward"]),
        r#""full""#,
        r#""forward""#,
        "A range of what is not stored: fetch the whole, or forward it",
    ),
    setting("range_slices", size(0, TIB), r#""8MiB""#, "A range of what is larger: slices; 0: never"),
    setting("default_ttl", ANY_TIME, r#""0s""#, "When the origin says nothing and no heuristic applies"),
    setting("min_ttl", ANY_TIME, r#""0s""#, "No lifetime is shorter; override_ttl is apart"),
    setting("max_ttl", ANY_TIME, r#""365d""#, "No lifetime is longer; override_ttl is apart"),
    setting(
        "override_ttl",
        Kind::Duration { min_ms: 0, max_ms: YEAR * 10, may_be_empty: true },
        r#""""#,
        "In place of what the origin says, for statuses below 400; empty: not",
    ),
    setting(
        "negative_ttl",
        Kind::Map(Format::Status, &ANY_TIME),
        "{}",
        "By status, where the response says nothing",
    ),
    setting("max_error_ttl", ANY_TIME, r#""30s""#, "No lifetime of a 5xx is longer"),
    setting("stale_while_revalidate", ANY_TIME, r#""0s""#, "When the response says nothing"),
    setting("stale_if_error", ANY_TIME, r#""1d""#, "When the response says nothing"),
    setting("honor_request_cache_control", Kind::Bool, "false", "Let clients ask for revalidation"),
    setting(
        "query",
        Kind::Table(QUERY),
        "{}",
        "What of the query counts; the origin receives the filtered one",
    ),
    setting(
        "vary_pass",
        Kind::List(&text(Format::HeaderName)),
        r#"["cookie", "user-agent"]"#,
        "A response that varies on one of these is not stored",
    ),
    setting("max_variants", Kind::Int { min: 1, max: 10_000 }, "64", "Variants of a URL"),
    by_profile("cache_post", Kind::Bool, "false", "true", "Store the answer to a POST as its GET"),
    by_profile("accept_language_select", Kind::Bool, "false", "true", "Choose a variant by Content-Language"),
    setting("strip_targeted", Kind::Bool, "false", "Remove CDN-Cache-Control and the like towards clients"),
    setting("fills", FILLS, "10000", "Fetches for the cache under way"),
    setting("misses_per_client", text(Format::Rate), r#""""#, "Misses a client may cause; empty: any number"),
];

const QUERY: &[Setting] = &[
    setting("mode", Kind::OneOf(&["all", "none", "allow", "deny"]), r#""all""#, "Which parameters count"),
    setting("names", STRINGS, "[]", "For allow and deny; @tracking: the usual campaign parameters"),
    setting("sort", Kind::Bool, "false", "Order does not count"),
];

pub(super) const HEADERS: &[Setting] = &[
    setting("request", Kind::Table(CHANGES), "{}", "On the way to the origin"),
    setting("response", Kind::Table(CHANGES), "{}", "On the way to the client"),
];

const CHANGES: &[Setting] = &[
    setting(
        "set",
        Kind::Map(Format::ChangeableField, &text(Format::HeaderValue)),
        "{}",
        "Fields that get one value",
    ),
    setting("remove", Kind::List(&text(Format::ChangeableField)), "[]", "Fields taken out"),
];

pub(super) const ACCESS: &[Setting] = &[
    setting("allow", CIDRS, "[]", "Networks let in; none: all"),
    setting("deny", CIDRS, "[]", "Networks kept out; wins over allow"),
    optional("signed", Kind::Table(SIGNED), "URLs have to be signed"),
];

const SIGNED: &[Setting] = &[
    required("secret_file", text(Format::Path), "The secret: 16 bytes at least"),
    setting("param", text(Format::Token), r#""signature""#, "The query parameter"),
];

const PURGE: &[Setting] = &[
    setting("allow", CIDRS, "[]", "Who may purge on data listeners without a token"),
    setting(
        "tag_headers",
        Kind::Map(Format::HeaderName, &Kind::OneOf(&["space", "comma"])),
        concat!(
            r#"{ surrogate-key = "space", xkey = "space", cache-tag = "comma", edge-cache-tag = "comma", "#,
            r#"cdn-tag = "comma", x-cache-tags = "comma", cache-tags = "space", x-magento-tags = "comma" }"#
        ),
        "Fields with tags, and what separates them",
    ),
    setting("strip_tags", Kind::Bool, "true", "Remove them towards clients"),
];

const IDS: &[Setting] =
    &[optional("cloudflare", text(Format::Any), "Zone"), optional("fastly", text(Format::Any), "Service")];

const RULE: &[Setting] = &[
    setting("path", Kind::List(&text(Format::PathPattern)), "[]", "Patterns with *; none: every path"),
    setting("methods", Kind::List(&text(Format::Method)), "[]", "None: every method"),
    setting("pass", Kind::Bool, "false", "Never from or to the cache"),
    optional("cache", Kind::Overrides(CACHE), "As site.cache; the rest is inherited"),
    optional("origin", text(Format::Name), "Another origin"),
    optional("headers", Kind::Overrides(HEADERS), "As site.headers"),
    optional("access", Kind::Overrides(ACCESS), "As site.access"),
    optional("compress", Kind::Overrides(COMPRESS), "As site.compress"),
];

const ORIGIN: &[Setting] = &[
    required("name", text(Format::Name), "What sites call it"),
    optional("servers", Kind::Tables(SERVER), "Servers that answer alike"),
    optional("dir", text(Format::Path), "A directory of files instead"),
    setting(
        "balance",
        Kind::OneOf(&["least-requests", "round-robin", "hash"]),
        r#""least-requests""#,
        "Which server is asked",
    ),
    setting("host", text(Format::Any), r#""""#, "Host and SNI to send; empty: the client's Host"),
    setting("tls", Kind::Table(ORIGIN_TLS), "{}", "TLS towards the servers"),
    setting("http2", Kind::Bool, "false", "HTTP/2 by ALPN; without TLS with prior knowledge"),
    setting("connect_timeout", TIMEOUT, r#""2s""#, "Name, TCP and TLS together"),
    setting("first_byte_timeout", TIMEOUT, r#""15s""#, "Until the response's head"),
    setting("between_bytes_timeout", TIMEOUT, r#""10s""#, "Between two reads of its body"),
    setting("fill_timeout", duration(1, 24 * HOUR), r#""1h""#, "A whole fetch for the cache"),
    setting("idle_timeout", TIMEOUT, r#""60s""#, "How long an unused connection is kept"),
    setting("retries", Kind::Int { min: 0, max: 10 }, "1", "Other servers tried before any answer"),
    setting("retry_budget", text(Format::Share), r#""10%""#, "Retries as a share of requests"),
    setting("max_connections", Kind::Int { min: 1, max: 100_000 }, "256", "Connections to each server"),
    setting("queue", Kind::Int { min: 0, max: 1_000_000 }, "1024", "Requests that may wait for a connection"),
    setting("queue_timeout", TIMEOUT, r#""2s""#, "How long they may wait"),
    setting("fills", FILLS, "10000", "Fetches for the cache under way"),
    setting("health", Kind::Table(HEALTH), "{}", "Active probes"),
    setting("eject", Kind::Table(EJECT), "{}", "Passive ejection"),
];

const SERVER: &[Setting] = &[
    required("url", text(Format::Url), "http or https, host and port"),
    setting("weight", Kind::Int { min: 1, max: 100 }, "1", "Its share of requests"),
];

const ORIGIN_TLS: &[Setting] = &[
    optional("ca", text(Format::Path), "PEM file: trusted instead of the system's"),
    optional("cert", text(Format::Path), "PEM file: our certificate"),
    optional("key", text(Format::Path), "PEM file: its key"),
    setting("verify", Kind::Bool, "true", "Verify the servers' certificates"),
];

const HEALTH: &[Setting] = &[
    setting("path", text(Format::TargetOrEmpty), r#""""#, "What is asked; empty: no probes"),
    setting("interval", duration(100, HOUR), r#""5s""#, "How often"),
    setting("timeout", TIMEOUT, r#""1s""#, "How long it may take"),
    setting("healthy", Kind::Int { min: 1, max: 100 }, "2", "Successes in a row until it is in again"),
    setting("unhealthy", Kind::Int { min: 1, max: 100 }, "3", "Failures in a row until it is out"),
    setting("status", text(Format::Statuses), r#""200-399""#, "Statuses that are a success"),
];

const EJECT: &[Setting] = &[
    setting("consecutive_errors", Kind::Int { min: 1, max: 10_000 }, "5", "Until a server is left out"),
    setting("base", duration(1, HOUR * 24), r#""10s""#, "For how long at first; doubled each time"),
    setting("max", duration(1, HOUR * 24), r#""5m""#, "For how long at most"),
    setting("max_percent", Kind::Int { min: 0, max: 100 }, "50", "How many of the servers at once"),
];

const ACCESS_LOG: &[Setting] = &[
    setting("output", text(Format::LogOutput), r#""off""#, "off, stdout, stderr or a file"),
    setting("sample", text(Format::Share), r#""100%""#, "Of answers below 500; others are all logged"),
];
