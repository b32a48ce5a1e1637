//! The index of the disk tier: where the record of a key begins, in 16 bytes a slot.
//!
//! ```text
//! fingerprint  64  the low half of the key's hash; 0 is an empty slot
//! record       64  | 2 unused | 16 segment's slot | 26 offset / 64 | 16 length | 3 asked | 1 must revalidate |
//! ```
//!
//! Open addressing with linear probing in shards that are filled to three quarters. A shard grows alone, by a quarter,
//! so a table is at least three fifths full after it and a key costs 23 to 28 bytes (35 at 10,000 keys, where shards
//! have ten); removals let that rise to 34 before the shard shrinks. All tables are made of chunks of one size, so that
//! what one shard gives back another takes: tables in one piece left the allocator holding half as much again, because
//! all shards outgrow a size at about the same time. Removal moves the followers back: no tombstones, so no clean-up,
//! and a probe is as short after a year as on the first day.
//!
//! Readers take the lock of one shard in 1,024 for reading, each on a cache line of its own. Counting a request and
//! marking a record change an atomic and need no more than that; only a change of what is there locks a shard for
//! writing, and growing it keeps readers of that shard waiting for some 50 µs a thousand keys.
//!
//! Not here: whether the record is the key's. Fingerprint and shard are 74 bits of its hash, so what is found is as
//! good as certain and still only a hint: the record has the full key.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;

use super::position::Position;
use crate::rules::key::KeyHash;

/// A power of two.
pub(super) const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 10;
/// Slots that are allocated together: few, because a shard with ten keys has a whole number of these too.
const CHUNK: usize = 8;
/// What the offset of a frame is a multiple of, and the step of small lengths.
const UNIT_BYTES: u32 = 64;

/// Where a frame begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) struct Location {
    /// The arena slot of its segment.
    pub(super) slot: u16,
    /// Bytes from the segment's start, a multiple of 64.
    pub(super) offset: u32,
}

/// What the index knows of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) location: Location,
    /// Of the record in bytes, rounded up to what the slot can say: to 64 bytes below 512 KiB, from there on by less
    /// than 1/4096.
    pub(super) length: u32,
    /// Requests since it was put there, at most 7.
    pub(super) asked: u8,
    /// Whether the origin has to confirm it before it is served again.
    pub(super) must_revalidate: bool,
}

/// See the module.
pub(super) struct Index {
    shards: Box<[Shard]>,
}

/// On a cache line of its own, so that locks next to each other do not contend.
#[derive(Default)]
#[repr(align(64))]
struct Shard(RwLock<Table>);

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("len", &self.len()).field("bytes", &self.bytes()).finish()
    }
}

impl Index {
    /// An empty index.
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }

    /// What stands there for the key.
    #[inline]
    pub(super) fn get(&self, key: KeyHash) -> Option<Found> {
        let table = self.shard(key).read();
        table.find(fingerprint(key)).map(|at| table.slot(at).found())
    }

    /// Counts a request for the key, up to 7. Lossy: of requests at the same instant one may be all that counts.
    #[inline]
    pub(super) fn ask(&self, key: KeyHash) {
        let table = self.shard(key).read();
        if let Some(at) = table.find(fingerprint(key)) {
            table.slot(at).ask();
        }
    }

    /// Makes the key's record one that must be revalidated, until it is replaced. Whether there is one.
    pub(super) fn mark_must_revalidate(&self, key: KeyHash) -> bool {
        let table = self.shard(key).read();
        let at = table.find(fingerprint(key));
        at.inspect(|at| table.slot(*at).mark_must_revalidate()).is_some()
    }

    /// Puts or replaces all that is known of a key; gives what stood there.
    pub(super) fn insert(&self, key: KeyHash, found: Found) -> Option<Found> {
        self.shard(key).write().insert(fingerprint(key), found)
    }

    /// Forgets the key; gives what stood there.
    pub(super) fn remove(&self, key: KeyHash) -> Option<Found> {
        let mut table = self.shard(key).write();
        table.find(fingerprint(key)).map(|at| table.remove(at))
    }

    /// Forgets the key if its record is still the one at `location`.
    pub(super) fn remove_at(&self, key: KeyHash, location: Location) -> Option<Found> {
        let mut table = self.shard(key).write();
        let at = table.find(fingerprint(key))?;
        (table.slot(at).found().location == location).then(|| table.remove(at))
    }

    /// Where a key stands in the order of a walk: its shard and fingerprint, which are all that is known of a key here.
    pub(super) fn position(key: KeyHash) -> Position {
        Position::new((key.0 >> (u128::BITS - SHARD_BITS)) as u16, fingerprint(key))
    }

    /// All that a shard has, in no order.
    pub(super) fn slots(&self, shard: u16) -> Vec<(Position, Found)> {
        let table = self.shards[usize::from(shard)].0.read();
        let slots = table.chunks.iter().flat_map(|chunk| chunk.iter()).filter(|slot| slot.fingerprint != 0);
        slots.map(|slot| (Position::new(shard, slot.fingerprint), slot.found())).collect()
    }

    /// Keys that it holds.
    pub(super) fn len(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.read().len as u64).sum()
    }

    /// What it takes, empty slots included.
    pub(super) fn bytes(&self) -> u64 {
        let tables: usize = self.shards.iter().map(|shard| shard.0.read().bytes()).sum();
        (tables + size_of_val(&*self.shards) + size_of::<Self>()) as u64
    }

    /// Room for `n` more keys at once, before a recovery fills it. Shards that get more than their share still grow.
    pub(super) fn reserve(&self, n: usize) {
        for shard in &self.shards {
            shard.0.write().reserve(n.div_ceil(SHARDS));
        }
    }

    #[cfg(test)]
    /// Empties it.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            *shard.0.write() = Table::default();
        }
    }

    #[inline]
    fn shard(&self, key: KeyHash) -> &RwLock<Table> {
        &self.shards[(key.0 >> (u128::BITS - SHARD_BITS)) as usize].0
    }
}

/// The half of the hash that the shard is not taken from. Its upper bits are also the position, so that a table can
/// grow without the keys.
#[inline]
fn fingerprint(key: KeyHash) -> u64 {
    (key.0 as u64).max(1)
}

/// The slots of a shard. At least one is empty, which ends every probe; no slots at all when the shard never had a key.
#[derive(Default)]
struct Table {
    chunks: Box<[Box<Chunk>]>,
    len: usize,
}

type Chunk = [Slot; CHUNK];

impl Table {
    #[inline]
    fn find(&self, fingerprint: u64) -> Option<usize> {
        if self.chunks.is_empty() {
            return None;
        }
        let mut at = self.home(fingerprint);
        loop {
            match self.slot(at).fingerprint {
                0 => return None,
                found if found == fingerprint => return Some(at),
                _ => at = self.after(at),
            }
        }
    }

    fn insert(&mut self, fingerprint: u64, found: Found) -> Option<Found> {
        let new = Slot { fingerprint, record: AtomicU64::new(pack(found)) };
        if let Some(at) = self.find(fingerprint) {
            return Some(std::mem::replace(self.slot_mut(at), new).found());
        }
        self.reserve(1);
        self.put(new);
        self.len += 1;
        None
    }

    /// Backward shift: what follows moves into the hole unless that is before its home.
    fn remove(&mut self, mut hole: usize) -> Found {
        let removed = std::mem::take(self.slot_mut(hole)).found();
        let mut at = self.after(hole);
        while self.slot(at).fingerprint != 0 {
            let home = self.home(self.slot(at).fingerprint);
            if self.distance(home, at) >= self.distance(hole, at) {
                *self.slot_mut(hole) = std::mem::take(self.slot_mut(at));
                hole = at;
            }
            at = self.after(at);
        }
        self.len -= 1;
        let smaller = smaller(self.capacity());
        if self.len * 3 < smaller * 2 {
            self.resize(smaller);
        }
        removed
    }

    fn reserve(&mut self, n: usize) {
        let mut capacity = self.capacity();
        while max_len(capacity) < self.len + n {
            capacity = larger(capacity);
        }
        if capacity > self.capacity() {
            self.resize(capacity);
        }
    }

    fn resize(&mut self, capacity: usize) {
        let chunks = (0..capacity / CHUNK).map(|_| Box::default()).collect();
        for chunk in std::mem::replace(&mut self.chunks, chunks) {
            for slot in *chunk {
                if slot.fingerprint != 0 {
                    self.put(slot);
                }
            }
        }
    }

    /// Into the first empty slot from its home on.
    fn put(&mut self, slot: Slot) {
        let mut at = self.home(slot.fingerprint);
        while self.slot(at).fingerprint != 0 {
            at = self.after(at);
        }
        *self.slot_mut(at) = slot;
    }

    #[inline]
    fn slot(&self, at: usize) -> &Slot {
        &self.chunks[at / CHUNK][at % CHUNK]
    }

    fn slot_mut(&mut self, at: usize) -> &mut Slot {
        &mut self.chunks[at / CHUNK][at % CHUNK]
    }

    #[inline]
    fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    fn bytes(&self) -> usize {
        self.chunks.len() * (size_of::<Chunk>() + size_of::<Box<Chunk>>())
    }

    /// The fingerprint's place in 2^64, scaled to the table: any capacity does, and needs no division.
    #[inline]
    fn home(&self, fingerprint: u64) -> usize {
        ((u128::from(fingerprint) * self.capacity() as u128) >> u64::BITS) as usize
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        if at + 1 == self.capacity() { 0 } else { at + 1 }
    }

    /// Steps forward from one slot to another, around the end.
    fn distance(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.capacity() - from }
    }
}

/// Three quarters: a hit looks at 2.5 slots on average then, a miss at 8.5 (Knuth, TAOCP vol. 3, §6.4).
fn max_len(capacity: usize) -> usize {
    capacity / 4 * 3
}

/// By a quarter: from a load of 3/4 to 3/5.
fn larger(capacity: usize) -> usize {
    (capacity * 5 / 4).next_multiple_of(CHUNK).max(CHUNK)
}

/// By a quarter or a little more, for what is less than half full: to a load below 2/3, some way from growing again.
/// Nothing is smaller than a chunk, so that the table stays as it is.
fn smaller(capacity: usize) -> usize {
    capacity * 3 / 4 / CHUNK * CHUNK
}

/// Drawn in the module's docs. The record changes under the shard's lock for reading too; the lock orders all else, so
/// that relaxed operations do.
#[derive(Default)]
struct Slot {
    fingerprint: u64,
    record: AtomicU64,
}

const REVALIDATE: u64 = 1;
const ASKED_AT: u32 = 1;
const ASKED_MAX: u64 = 7;
const LENGTH_AT: u32 = 4;
const OFFSET_AT: u32 = 20;
const OFFSET_MASK: u64 = (1 << 26) - 1;
const SLOT_AT: u32 = 46;

impl Slot {
    #[inline]
    fn found(&self) -> Found {
        let record = self.record.load(Relaxed);
        Found {
            location: Location {
                slot: (record >> SLOT_AT) as u16,
                offset: (record >> OFFSET_AT & OFFSET_MASK) as u32 * UNIT_BYTES,
            },
            length: unpack_length((record >> LENGTH_AT) as u16),
            asked: (record >> ASKED_AT & ASKED_MAX) as u8,
            must_revalidate: record & REVALIDATE != 0,
        }
    }

    #[inline]
    fn ask(&self) {
        let record = self.record.load(Relaxed);
        if record >> ASKED_AT & ASKED_MAX < ASKED_MAX {
            let counted = record + (1 << ASKED_AT);
            // A failure means that somebody else counted or marked it: one request in a crowd is lost.
            let _ = self.record.compare_exchange(record, counted, Relaxed, Relaxed);
        }
    }

    fn mark_must_revalidate(&self) {
        self.record.fetch_or(REVALIDATE, Relaxed);
    }
}

fn pack(found: Found) -> u64 {
    let Found { location, length, asked, must_revalidate } = found;
    debug_assert!(location.offset.is_multiple_of(UNIT_BYTES));
    u64::from(location.slot) << SLOT_AT
        | u64::from(location.offset / UNIT_BYTES) << OFFSET_AT
        | u64::from(pack_length(length)) << LENGTH_AT
        | u64::from(asked).min(ASKED_MAX) << ASKED_AT
        | u64::from(must_revalidate)
}

/// Of the mantissa, without the leading one that an exponent implies.
const MANTISSA_BITS: u32 = 12;

/// Units of 64 bytes as a small floating-point number, rounded up: `exponent << 12` + mantissa. The mantissa is the
/// number itself below 8,192 and 4,096 to 8,191 above, so that codes are in the order of lengths.
fn pack_length(length: u32) -> u16 {
    let units = length.div_ceil(UNIT_BYTES);
    let exponent = (units >> MANTISSA_BITS).checked_ilog2().unwrap_or(0);
    let mantissa = units.div_ceil(1 << exponent);
    ((exponent << MANTISSA_BITS) + mantissa) as u16
}

#[inline]
fn unpack_length(code: u16) -> u32 {
    let code = u64::from(code);
    let exponent = (code >> MANTISSA_BITS).saturating_sub(1);
    let mantissa = code - (exponent << MANTISSA_BITS);
    ((mantissa << exponent) * u64::from(UNIT_BYTES)).min(u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests;
