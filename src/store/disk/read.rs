//! From the log back into memory.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Tier;
use super::format::{self, Bad, FLAG_MUST_REVALIDATE, Frame};
use super::health::{Fault, Mode};
use super::index::Found;
use super::meta::{EncodingMeta, Meta, OWN, PartMeta, VariantMeta};
use super::ops::Op;
use super::pending::Pending;
use super::segment::Segment;
use crate::object::{
    Body, CHUNK_OVERHEAD_BYTES, Delta, Encoded, Encodings, Made, Object, Part, Place, Sum, charged_chunk,
};
use crate::region::{self, Poisoned};
use crate::rules::key::{CacheKey, KeyHash};
use crate::store::Entry;

/// Why an entry could not be read.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Bad(#[from] Bad),
}

/// A frame up to here costs less to copy than to leave where it is, whether memory has room or not.
const COPIED_BYTES: u64 = 4096;

/// A segment, held so that its slot stays its own, and what was read from it.
type Read = (Arc<Segment>, Result<Option<Entry>, Failure>);

impl Tier {
    /// Whether there is something under a key that is not in memory.
    pub(crate) fn may_have(&self, key: KeyHash) -> bool {
        self.health.mode() != Mode::Off && (self.index.get(key).is_some() || self.is_pending(key))
    }

    /// Reads what is stored under a key into memory; pending when that has to wait for the disk.
    pub(crate) fn load_now(&self, key: &CacheKey) -> Poll<Option<Arc<Entry>>> {
        match self.pending(key.hash()) {
            Some(Pending::Put(entry)) => return Poll::Ready(Some(entry)),
            Some(Pending::Removed) => return Poll::Ready(None),
            None if self.health.mode() == Mode::Off => return Poll::Ready(None),
            None => {}
        }
        let Some(found) = self.index.get(key.hash()) else { return Poll::Ready(None) };
        match self.read(key, found, true) {
            Some((_, Err(Failure::Io(error)))) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            read => {
                self.index.ask(key.hash());
                Poll::Ready(self.keep(key, found, read))
            }
        }
    }

    /// The same, waiting.
    pub(crate) async fn load(self: &Arc<Self>, key: &CacheKey) -> Option<Arc<Entry>> {
        if let Poll::Ready(entry) = self.load_now(key) {
            return entry;
        }
        let found = self.index.get(key.hash())?;
        self.index.ask(key.hash());
        let (sender, receiver) = oneshot::channel();
        let (tier, key) = (self.clone(), key.clone());
        self.shared.pool.run(move || {
            // Many may have asked for it while this waited.
            let entry = tier.budget.memory.get(key.hash()).or_else(|| {
                let read = tier.read(&key, found, false);
                tier.keep(&key, found, read)
            });
            let _ = sender.send(entry);
        });
        receiver.await.ok()?
    }

    /// The bytes of the frame that the index points at, and its segment. Waits for the disk.
    pub(super) fn read_frame(&self, found: Found) -> io::Result<(Arc<Segment>, Vec<u8>)> {
        let segment = self.table.at(found.location.slot).ok_or(io::ErrorKind::NotFound)?;
        let bytes = read_at(&segment, found)?;
        Ok((segment, bytes))
    }

    /// Puts what was read into the memory tier, unless something newer came in between.
    fn keep(&self, key: &CacheKey, found: Found, read: Option<Read>) -> Option<Arc<Entry>> {
        let Some((segment, read)) = read else {
            self.index.remove_at(key.hash(), found.location);
            return None;
        };
        let now = || self.index.get(key.hash()).filter(|now| now.location == found.location);
        let entry = match read {
            Ok(entry) => {
                self.health.read(&Ok(()));
                Arc::new(entry?)
            }
            // It was evicted while this was on its way, and something else stands there.
            Err(_) if now().is_none() || self.table.get(segment.id).is_none() => return None,
            Err(failure) => {
                match failure {
                    Failure::Io(error) => {
                        if let Some(segment) = self.table.at(found.location.slot) {
                            segment.check_length();
                        }
                        self.health.read(&Err(error));
                    }
                    Failure::Bad(bad) => {
                        tracing::warn!(url = key.canonical(), %bad, "a stored response is damaged; it is fetched again");
                        self.health.note(Fault::Checksum);
                    }
                }
                let _ = self.ops.send(Op::Lost { key: key.hash(), segment: segment.id, told: None });
                return None;
            }
        };
        let mut kept = None;
        self.budget.memory.update(key.hash(), |old| {
            kept = old.cloned().or_else(|| {
                let now = now().filter(|_| !self.is_pending(key.hash()))?;
                if now.must_revalidate {
                    entry.variants().iter().for_each(|object| object.invalidate());
                }
                Some(entry)
            });
            kept.clone()
        });
        kept
    }

    /// `None`: its segment has left the store.
    fn read(&self, key: &CacheKey, found: Found, no_wait: bool) -> Option<Read> {
        let segment = self.table.at(found.location.slot)?;
        let read = if no_wait {
            self.read_mapped(&segment, key, found)
        } else {
            self.read_copy(&segment, key, found)
        };
        Some((segment, read))
    }

    /// From where it lies, if that is in memory: on the way of a hit, what `preadv2` copied from there first was a tenth of
    /// one of 16 KiB.
    fn read_mapped(
        &self,
        segment: &Arc<Segment>,
        key: &CacheKey,
        found: Found,
    ) -> Result<Option<Entry>, Failure> {
        let range = range_of(segment, found);
        let bytes = segment.in_memory(range).ok_or(io::Error::from(io::ErrorKind::WouldBlock))?;
        let length = u64::from(found.length);
        // Twice, since it weighs more in memory, and the last place of a full tier is not for who comes by chance.
        let has_room = length <= COPIED_BYTES || self.budget.has_room(2 * length);
        let own = Own { segment, bytes, found, body_at: 0, has_room, is_in_memory: true };
        match region::guarded(|| self.entry(key, own)) {
            Ok(read) if !segment.is_bad() => read,
            _ => Err(io::Error::other(Poisoned).into()),
        }
    }

    /// The same, waiting.
    fn read_copy(
        &self,
        segment: &Arc<Segment>,
        key: &CacheKey,
        found: Found,
    ) -> Result<Option<Entry>, Failure> {
        let bytes = read_at(segment, found)?;
        // What waited for the disk brings its body along.
        let own = Own { segment, bytes: &bytes, found, body_at: 0, has_room: true, is_in_memory: false };
        self.entry(key, own)
    }

    fn entry(&self, key: &CacheKey, mut own: Own<'_>) -> Result<Option<Entry>, Failure> {
        let frame = Frame::decode(own.bytes, own.segment.id, own.found.location.offset)?;
        own.body_at = format::HEADER_BYTES + frame.meta_bytes as usize;
        let meta = own.bytes.get(format::HEADER_BYTES..own.body_at).ok_or(Bad::Shape)?;
        own.compare(meta, frame.sum)?;
        let meta = Meta::decode(meta)?;
        if meta.key != key.canonical() {
            // Two keys with one fingerprint: the other one is stored.
            return Ok(None);
        }
        let must_revalidate = own.found.must_revalidate || frame.flags & FLAG_MUST_REVALIDATE != 0;
        let mut variants = Vec::with_capacity(meta.variants.len());
        for variant in &meta.variants {
            if let Some(object) = self.object(key, variant, &own)? {
                if must_revalidate || variant.must_revalidate {
                    object.invalidate();
                }
                variants.push(Arc::new(object));
            }
        }
        Ok(Entry::new(variants))
    }

    /// A variant; `None` when a part of it has left the store.
    fn object(
        &self,
        key: &CacheKey,
        variant: &VariantMeta<'_>,
        own: &Own<'_>,
    ) -> Result<Option<Object>, Failure> {
        let mut head = variant.head(key)?;
        if variant.version < self.stale_below {
            head.freshness.expire(self.clock.now());
        }
        let Some((body, inline)) = self.body(key.hash(), &variant.parts, own)? else { return Ok(None) };
        let object = Object::new(Arc::new(head), Arc::new(body), &self.budget.gauge);
        if let Some(place) = inline {
            object.set_inline(own.segment.id, place);
        }
        if let Some(encodings) = &object.encodings {
            for meta in &variant.encodings {
                self.read_encoding(key.hash(), meta, own, encodings)?;
            }
        }
        Ok(Some(object))
    }

    /// Puts an encoding to its object, unless a part of it has left the store.
    fn read_encoding(
        &self,
        key: KeyHash,
        meta: &EncodingMeta,
        own: &Own<'_>,
        encodings: &Encodings,
    ) -> Result<(), Failure> {
        let coding = meta.coding().ok_or(Bad::Shape)?;
        let made = if meta.parts.is_empty() {
            Made::NotWorth
        } else if let Some((body, inline)) = self.body(key, &meta.parts, own)? {
            let encoded = Encoded::new(coding, meta.sum, meta.is_best, Arc::new(body), &self.budget.gauge);
            if let Some(place) = inline {
                encoded.set_inline(own.segment.id, place);
            }
            Made::Kept(Arc::new(encoded))
        } else {
            return Ok(());
        };
        match meta.dictionary() {
            Some(dictionary) => encodings.add_delta(Delta { dictionary, coding, made }),
            None => encodings.add(coding, made),
        };
        Ok(())
    }

    fn body(
        &self,
        key: KeyHash,
        parts: &[PartMeta],
        own: &Own<'_>,
    ) -> Result<Option<(Body, Option<Place>)>, Failure> {
        if let [part] = parts
            && own.has_room
            && part.segment() == OWN
            && u64::from(part.place().length) <= self.limits.inline
        {
            let place = part.place();
            let data = own.slice(place).ok_or(Bad::Shape)?;
            own.compare(data, place.sum)?;
            if let Some(charge) = self.budget.reserve(data.len() as u64 + CHUNK_OVERHEAD_BYTES) {
                let body = Body::new(vec![charged_chunk(data, charge)]);
                return Ok(Some((body, Some(own.absolute(place)))));
            }
        }
        let mut end = 0;
        let mut mapped = Vec::with_capacity(parts.len());
        for part in parts {
            let is_own = part.segment() == OWN;
            let (segment, place) = if is_own {
                (own.segment.clone(), own.absolute(part.place()))
            } else {
                let Some(segment) = self.table.get(part.segment()) else { return Ok(None) };
                (segment, part.place())
            };
            let bytes: Bytes = segment.slice(place.offset, place.length).ok_or(Bad::Shape)?;
            end += u64::from(place.length);
            let is_warm = is_own && own.is_in_memory && segment.is_compared(place);
            mapped.push(Arc::new(Part::new(segment, bytes, place, (key, end), is_warm)));
        }
        Ok(Some((Body::mapped(mapped), None)))
    }
}

/// The frame that an entry is read from.
struct Own<'a> {
    segment: &'a Arc<Segment>,
    found: Found,
    bytes: &'a [u8],
    /// Where in `bytes` its body begins.
    body_at: usize,
    /// Whether the memory tier has room for its bodies. Else they are served from the mapping: reading, comparing and
    /// copying what pushes out something else, and is soon pushed out itself, cost a quarter of a hit of 16 KiB.
    has_room: bool,
    /// Whether all of its mapped bytes are in memory.
    is_in_memory: bool,
}

impl Own<'_> {
    /// Compares bytes of it with their sum; what this process has written and is in memory is taken as it is, as large bodies
    /// are. To compare it for each hit was a tenth of one of 1 KiB.
    fn compare(&self, bytes: &[u8], sum: Sum) -> Result<(), Bad> {
        let is_known = self.is_in_memory && self.segment.is_written_here();
        if is_known || Sum::of(bytes) == sum { Ok(()) } else { Err(Bad::Sum) }
    }

    fn slice(&self, place: Place) -> Option<&[u8]> {
        let from = self.body_at + place.offset as usize;
        self.bytes.get(from..from + place.length as usize)
    }

    fn absolute(&self, place: Place) -> Place {
        Place { offset: self.found.location.offset + self.body_at as u32 + place.offset, ..place }
    }
}

/// Where a frame lies. The index rounds lengths up, so one at a segment's end goes only as far as it may.
fn range_of(segment: &Segment, found: Found) -> Range<u64> {
    let offset = u64::from(found.location.offset);
    offset..(offset + u64::from(found.length)).min(segment.length).max(offset)
}

fn read_at(segment: &Segment, found: Found) -> io::Result<Vec<u8>> {
    let range = range_of(segment, found);
    let mut bytes = vec![0; (range.end - range.start) as usize];
    segment.file().read_at(&mut bytes, range.start)?;
    Ok(bytes)
}
