//! Larder seen from outside: the real program, real sockets, and an origin that does as it is told.
//!
//! One module a behaviour. `LARDER_BIN` names another binary than cargo's; `LARDER_SOAK_SECS` and
//! `LARDER_IDLE_CONNECTIONS`, `LARDER_CRASH_ROUNDS`
//! and `LARDER_DAMAGE_TRIALS` make the heavy tests longer and larger.

// A test binary has no API: `pub` means "for the other modules", and their docs are not published.
#![allow(missing_docs, unreachable_pub)]
// Expectations are written as they read best: rows of tuples, whole numbers as metrics.
#![allow(clippy::float_cmp, clippy::too_many_lines)]

#[path = "../support/mod.rs"]
mod support;

mod accept_encoding;
mod access_log;
mod access_log_faults;
mod admin;
mod admission;
mod audit;
mod broken_origin;
mod caching;
mod certificates;
mod cli;
mod collapse;
mod conditional;
mod copies;
mod crash;
mod damage;
mod debug_field;
mod decoding;
mod dialect_apis;
mod dialect_plugins;
mod dictionaries;
mod disk;
mod disk_faults;
mod disk_limits;
mod encodings;
mod everywhere;
mod explain;
mod fills;
mod framing;
mod framing_origin;
mod freshness;
mod harness;
mod herd;
mod holdings;
mod hop_by_hop;
mod http2;
mod idempotency;
mod idle;
mod inspect;
mod interim;
mod invalidation;
mod large;
mod lifecycle;
mod limits;
mod malformed;
mod memory;
mod methods;
mod miss_rate;
mod origin_dir;
mod origin_down;
mod origin_errors;
mod origin_health;
mod origin_http2;
mod origin_pool;
mod origin_tls;
mod parts;
mod post;
mod protocols;
mod proxy_protocol;
mod purge;
mod purge_method;
mod purge_proofs;
mod purge_rewrites;
mod range;
mod ready_heads;
mod reload;
mod request_control;
mod resume;
mod revalidate;
mod signed;
mod sites;
mod slices;
mod slow_clients;
mod soak;
mod stale;
mod steady;
mod targeted;
mod timeouts;
mod tls;
mod traces;
mod trickle;
mod truncation;
mod unstored;
mod upgrade;
mod vary;
mod warm;
mod warm_cli;
mod warm_demo;
mod warm_holds;
mod warm_room;
