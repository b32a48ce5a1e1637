//! The caching rules, pure: headers and times go in, decisions come out.
//!
//! Nothing here reads a clock, does I/O, takes a lock or logs; `now` is an argument everywhere. No function panics on any
//! input and all arithmetic saturates, because every byte that arrives here was chosen by a client or by an origin.
//!
//! | question | module |
//! |---|---|
//! | which object does a request name? | [`key`], [`vary`], [`encoding`], [`language`] |
//! | may a response be stored, and for how long? | [`policy`], [`storable`], [`directives`], [`targeted`], [`age`], [`date`] |
//! | may a stored response be used now? | [`freshness`], [`request`] |
//! | what does the client get? | [`conditional`], [`etag`], [`range`], [`partial`], [`hop`] |
//! | what does an answer change? | [`update`], [`invalidate`] |
//! | who asks, when a proxy tells? | [`forwarded`] |
//! | how is it told? | [`cache_status`], [`proxy_status`] |
//!
//! RFC 9110 (semantics), 9111 (caching), 5861 (stale content), 8246 (immutable), 9211 and 9209 (status fields), 9213
//! (targeted cache control), 7239 (Forwarded), 9651 (structured fields). Non-goals: parsing messages, choosing a site, keeping anything.

pub mod age;
pub mod cache_status;
pub mod conditional;
pub mod date;
pub mod dictionary;
pub mod directives;
pub mod encoding;
pub mod etag;
pub mod forwarded;
pub mod freshness;
pub mod hop;
pub mod invalidate;
pub mod key;
pub mod language;
pub mod media;
pub mod partial;
pub mod policy;
pub mod proxy_status;
pub mod range;
pub mod request;
pub mod storable;
pub mod tags;
pub mod targeted;
pub mod time;
pub mod update;
pub mod vary;

mod base;
mod fields;
mod heuristic;
mod host;
mod lifetime;
mod path;
mod query;
mod structured;

#[cfg(test)]
mod tests;
