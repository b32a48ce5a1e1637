//! Names of fields that the `http` crate does not have.

use http::HeaderName;

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
pub(super) const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
pub(super) const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
pub(super) const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
pub(super) const LARDER_CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("larder-cdn-cache-control");
pub(super) const LARDER_DEBUG: HeaderName = HeaderName::from_static("larder-debug");
pub(super) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
pub(super) const SURROGATE_CAPABILITY: HeaderName = HeaderName::from_static("surrogate-capability");
pub(super) const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
