//! From the log back into memory.

use std::io;
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

/// What is read of a frame first: its meta is in it nearly always, and a body that costs less to copy than to leave there.
const FIRST_BYTES: u64 = 4096;

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
        let bytes = read_at(&segment, found, u64::MAX, false)?;
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
        let read = self.read_from(&segment, key, found, no_wait);
        Some((segment, read))
    }

    fn read_from(
        &self,
        segment: &Arc<Segment>,
        key: &CacheKey,
        found: Found,
        no_wait: bool,
    ) -> Result<Option<Entry>, Failure> {
        let length = u64::from(found.length);
        // Twice, since it weighs more in memory, and the last place of a full tier is not for who comes by chance.
        let has_room = length <= FIRST_BYTES || self.budget.has_room(2 * length);
        // What waits for the disk brings in all at once.
        let first = if has_room || !no_wait { length } else { FIRST_BYTES };
        let mut bytes = read_at(segment, found, first, no_wait)?;
        let frame = Frame::decode(&bytes, segment.id, found.location.offset)?;
        let body_at = format::HEADER_BYTES + frame.meta_bytes as usize;
        if body_at > bytes.len() {
            bytes = read_at(segment, found, body_at as u64, no_wait)?;
        }
        let meta = bytes.get(format::HEADER_BYTES..body_at).ok_or(Bad::Shape)?;
        if Sum::of(meta) != frame.sum {
            return Err(Bad::Sum.into());
        }
        let meta = Meta::decode(meta)?;
        if meta.key != key.canonical() {
            // Two keys with one fingerprint: the other one is stored.
            return Ok(None);
        }
        let must_revalidate = found.must_revalidate || frame.flags & FLAG_MUST_REVALIDATE != 0;
        let own = Own { segment, bytes: &bytes, body_at, frame_at: found.location.offset, has_room };
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
            if Sum::of(data) != place.sum {
                return Err(Bad::Sum.into());
            }
            if let Some(charge) = self.budget.reserve(data.len() as u64 + CHUNK_OVERHEAD_BYTES) {
                let body = Body::new(vec![charged_chunk(data, charge)]);
                return Ok(Some((body, Some(own.absolute(place)))));
            }
        }
        let mut end = 0;
        let mut mapped = Vec::with_capacity(parts.len());
        for part in parts {
            let (segment, place) = if part.segment() == OWN {
                (own.segment.clone(), own.absolute(part.place()))
            } else {
                let Some(segment) = self.table.get(part.segment()) else { return Ok(None) };
                (segment, part.place())
            };
            let bytes: Bytes = segment.slice(place.offset, place.length).ok_or(Bad::Shape)?;
            end += u64::from(place.length);
            mapped.push(Arc::new(Part::new(segment, bytes, place, (key, end), false)));
        }
        Ok(Some((Body::mapped(mapped), None)))
    }
}

/// The frame that an entry was read from.
struct Own<'a> {
    segment: &'a Arc<Segment>,
    bytes: &'a [u8],
    body_at: usize,
    frame_at: u32,
    /// Whether the memory tier has room for its bodies. Else they are served from the mapping: reading, comparing and
    /// copying what pushes out something else, and is soon pushed out itself, cost a quarter of a hit of 16 KiB.
    has_room: bool,
}

impl Own<'_> {
    fn slice(&self, place: Place) -> Option<&[u8]> {
        let from = self.body_at + place.offset as usize;
        self.bytes.get(from..from + place.length as usize)
    }

    fn absolute(&self, place: Place) -> Place {
        Place { offset: self.frame_at + self.body_at as u32 + place.offset, ..place }
    }
}

/// A frame, or the first `bytes` of it. The index rounds lengths up, so a frame at a segment's end is asked for only as far
/// as it may go.
fn read_at(segment: &Segment, found: Found, bytes: u64, no_wait: bool) -> io::Result<Vec<u8>> {
    let offset = u64::from(found.location.offset);
    let length = u64::from(found.length).min(bytes).min(segment.length.saturating_sub(offset));
    let mut bytes = vec![0; length as usize];
    segment.file().read_at(&mut bytes, offset, no_wait)?;
    Ok(bytes)
}
