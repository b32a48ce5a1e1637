//! What a request learns on its way, for its line in the access log: an extension of its head, there only when there is a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use http::header::{HeaderMap, HeaderName};
use http::{HeaderValue, request::Parts};

use crate::object::Object;
use crate::telemetry::AccessLog;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ones are replaced.
const MAX_ID_BYTES: usize = 128;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail(Arc<Learned>);

#[derive(Debug, Default)]
struct Learned {
    /// Microseconds and one; 0: no origin was asked.
    origin: AtomicU64,
    /// 0: none, 1: memory, 2: disk.
    tier: AtomicU64,
}

impl Trail {
    pub(super) fn origin_us(&self) -> Option<u64> {
        self.0.origin.load(Relaxed).checked_sub(1)
    }

    pub(super) fn tier(&self) -> &'static str {
        match self.0.tier.load(Relaxed) {
            1 => "memory",
            2 => "disk",
            _ => "",
        }
    }
}

/// Has it noted what the request learns, if there is a log.
pub(super) fn begin(parts: &mut Parts, log: &AccessLog) {
    if log.is_on() {
        parts.extensions.insert(Trail::default());
    }
}

/// Notes how long a request to an origin takes to be answered.
pub(super) async fn timed<T>(trail: Option<&Trail>, answer: impl Future<Output = T>) -> T {
    let sent = Instant::now();
    let answer = answer.await;
    if let Some(Trail(learned)) = trail {
        // One more, since 0 means that none was asked.
        learned.origin.store(sent.elapsed().as_micros() as u64 + 1, Relaxed);
    }
    answer
}

/// What the request learned, if anybody asks.
pub(super) fn of(parts: &Parts) -> Option<&Trail> {
    parts.extensions.get()
}

/// The answer comes from the store.
#[inline]
pub(super) fn found(parts: &Parts, object: &Object) {
    if let Some(Trail(learned)) = of(parts) {
        learned.tier.store(if object.tier() == "disk" { 2 } else { 1 }, Relaxed);
    }
}

/// The request's id, when it has one that fits a line.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(&X_REQUEST_ID)?.to_str().ok()?;
    (!id.is_empty() && id.len() <= MAX_ID_BYTES).then_some(id)
}

/// Gives a request that will reach an origin an id, unless it has one.
pub(super) fn identify(headers: &mut HeaderMap) {
    if request_id(headers).is_none()
        && let Ok(id) = HeaderValue::try_from(new_id())
    {
        headers.insert(&X_REQUEST_ID, id);
    }
}

/// Unique in this process, and as good as unique among all.
pub(super) fn new_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    format!("{:08x}{number:012x}", process_number())
}

fn process_number() -> u32 {
    static NUMBER: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *NUMBER.get_or_init(|| {
        let mut random = [0; 4];
        // Without randomness it is at least another process than its neighbours.
        getrandom::fill(&mut random).map_or_else(|_| std::process::id(), |()| u32::from_le_bytes(random))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_if_it_fits_a_line_and_made_otherwise() {
        let mut headers = HeaderMap::new();
        identify(&mut headers);
        let made = request_id(&headers).unwrap().to_owned();
        assert_eq!(made.len(), 20);
        identify(&mut headers);
        assert_eq!(request_id(&headers), Some(&*made));
        for bad in ["", &"x".repeat(129), "\u{e9}"] {
            headers.insert(&X_REQUEST_ID, HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            identify(&mut headers);
            assert_eq!(request_id(&headers).unwrap().len(), 20, "{bad}");
        }
        assert_ne!(new_id(), new_id());
    }
}
