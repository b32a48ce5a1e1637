//! What counts against the memory budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

/// Bytes that count against the memory budget for as long as this lives.
#[derive(Debug)]
pub struct Charge {
    gauge: Arc<AtomicU64>,
    bytes: u64,
}

impl Charge {
    /// Adds `bytes` to the gauge.
    pub fn new(gauge: &Arc<AtomicU64>, bytes: u64) -> Self {
        gauge.fetch_add(bytes, Relaxed);
        Self { gauge: gauge.clone(), bytes }
    }

    /// Changes what is charged, up or down.
    pub fn resize(&mut self, bytes: u64) {
        if bytes >= self.bytes {
            self.gauge.fetch_add(bytes - self.bytes, Relaxed);
        } else {
            self.gauge.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
    }

    /// Moves up to `bytes` of it to a charge of their own.
    #[must_use]
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { gauge: self.gauge.clone(), bytes }
    }

    /// What is charged, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.gauge.fetch_sub(self.bytes, Relaxed);
    }
}

/// A chunk of a body together with its charge: every slice of it, wherever it is on its way, keeps
/// the charge.
struct ChargedChunk {
    data: Box<[u8]>,
    _charge: Charge,
}

impl AsRef<[u8]> for ChargedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// What a chunk costs beside its bytes: its owner, its handle, its entry in the body.
pub const CHUNK_OVERHEAD_BYTES: u64 = 160;

/// Copies `data` into a chunk that is charged by `charge`.
pub fn charged_chunk(data: &[u8], charge: Charge) -> Bytes {
    Bytes::from_owner(ChargedChunk { data: data.into(), _charge: charge })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_given_back() {
        let gauge = Arc::new(AtomicU64::new(0));
        let mut charge = Charge::new(&gauge, 10);
        charge.resize(25);
        assert_eq!(gauge.load(Relaxed), 25);
        charge.resize(5);
        assert_eq!(gauge.load(Relaxed), 5);
        let chunk = charged_chunk(b"abc", charge.split(3));
        drop(charge);
        let slice = chunk.slice(1..2);
        drop(chunk);
        assert_eq!(gauge.load(Relaxed), 3);
        drop(slice);
        assert_eq!(gauge.load(Relaxed), 0);
    }
}
