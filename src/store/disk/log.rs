//! The log's writer: the one thread that appends frames, changes the index and evicts segments.
//!
//! Everything that changes what is on disk comes through its queue, in order; so the order of the
//! frames in the log is the order of what happened, the last frame of a key is its truth, and nothing
//! that follows needs a lock or a comparison to be right. The queue's bytes are bounded: a fill that is
//! not accepted yet is turned away when they are used up, an accepted one waits, and its origin with it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::append::Active;
use super::evict::Eviction;
use super::format::{self, FLAG_MUST_REVALIDATE, Frame, HEADER_BYTES, Kind};
use super::health::{Fault, Mode};
use super::index::Found;
use super::inline::{Inline, Owner};
use super::meta::{EncodingMeta, Meta, OWN, PartMeta, VariantMeta};
use super::ops::Op;
use super::segment::Segment;
use super::{Tier, format::Bad};
use crate::object::{Body, Growing, Object, Part, Place, Sum};
use crate::rules::key::KeyHash;
use crate::store::Entry;
use crate::store::warm::logged_bytes;

/// Between two looks at the segments.
const IDLE: Duration = Duration::from_secs(1);

/// A frame could not be written; what it was for is not stored.
#[derive(Debug)]
pub(super) struct NotWritten;

impl From<Bad> for NotWritten {
    fn from(_: Bad) -> Self {
        Self
    }
}

pub(super) struct Writer {
    pub(super) tier: Arc<Tier>,
    pub(super) active: Option<Active>,
    pub(super) eviction: Option<Eviction>,
    /// What is written again finds room, or is dropped: it evicts nothing itself.
    pub(super) is_relocating: bool,
    pub(super) next_id: u32,
    /// Bytes that may be written again without being asked for by a fill.
    pub(super) reinsertion_credit: i64,
    /// Until then nobody is waited for who reads what is given up.
    pub(super) impatient_until: Option<Instant>,
    /// Marks that could not be written. Each is of a key that had a record, and takes that out of use.
    pub(super) owed: Vec<(KeyHash, Kind)>,
    faults_seen: u64,
    /// Another process may have the store.
    pub(super) is_paused: bool,
}

impl Drop for Writer {
    /// However it ends, nobody waits for it.
    fn drop(&mut self) {
        self.tier.queue.close();
        if std::thread::panicking() {
            self.tier.health.degrade(Mode::ReadOnly, "has lost its writer");
        }
    }
}

impl Writer {
    pub(super) fn new(tier: Arc<Tier>, next_id: u32) -> Self {
        let faults_seen = crate::region::faults();
        Self {
            tier,
            active: None,
            eviction: None,
            is_relocating: false,
            next_id,
            reinsertion_credit: 0,
            impatient_until: None,
            owed: Vec::new(),
            faults_seen,
            is_paused: false,
        }
    }

    /// Works until it is told to close.
    pub(super) fn run(mut self, ops: &Receiver<Op>) {
        let mut looked = Instant::now();
        loop {
            match ops.recv_timeout(IDLE) {
                Ok(Op::Close(done)) => {
                    self.settle_debts();
                    if let Some(active) = self.active.take() {
                        active.seal();
                    }
                    // Those before it are sealed, and removed, by then.
                    self.tier.shared.chores.run(move || {
                        let _ = done.send(());
                    });
                    return;
                }
                Ok(Op::Pause(done)) => self.pause(done),
                Ok(Op::Resume(done)) => self.resume(done),
                Ok(op) => self.take(op),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.is_paused {
                continue;
            }
            if looked.elapsed() >= IDLE {
                self.look_after_segments();
                looked = Instant::now();
            }
            self.evict_ahead();
        }
    }

    fn take(&mut self, op: Op) {
        self.settle_debts();
        match op {
            Op::Put { entry, replaces, number, permit } => {
                let key = entry.key().hash();
                let written = self.put(&entry, replaces.as_deref());
                self.tier.counters.wrote(written.is_ok());
                if written.is_err() {
                    // What stood there is outdated.
                    self.take_out(key);
                }
                self.forget_dead_parts(&entry);
                self.tier.settled(key, number);
                drop(permit);
            }
            Op::Part { mut growing, chunks, permit } => {
                if let Some(body) = growing.0.as_deref()
                    && !body.has_failed()
                    && self.part(body, &chunks).is_ok()
                {
                    growing.0 = None;
                }
                drop(permit);
            }
            Op::Remove { key, number } => {
                self.take_out(key);
                self.tier.settled(key, number);
            }
            Op::MustRevalidate(key) => {
                let is_stored = self.tier.index.mark_must_revalidate(key);
                // It may have been read into memory while the record was written without the mark.
                if let Some(entry) = self.tier.budget.memory.get(key) {
                    entry.variants().iter().for_each(|object| object.invalidate());
                }
                if is_stored {
                    self.mark(key, Kind::MustRevalidate);
                }
            }
            Op::Lost { key, segment, told } => {
                // Unless something newer stands there.
                if self.has_stake(key, segment) {
                    self.take_out(key);
                }
                self.tier.budget.memory.forget_mapped(key, segment);
                drop(told);
            }
            Op::Close(_) | Op::Pause(_) | Op::Resume(_) => {}
        }
    }

    fn put(&mut self, entry: &Entry, replaces: Option<&Entry>) -> Result<(), NotWritten> {
        let objects: Vec<&Arc<Object>> = entry.variants().iter().collect();
        let fields: Vec<_> = objects.iter().map(|object| object.head.fields()).collect();
        let mut inline = Inline::default();
        let mut variants = Vec::with_capacity(objects.len());
        for (object, fields) in objects.iter().zip(&fields) {
            let owner = Owner::Object((*object).clone());
            let Some(parts) = self.parts_of(&object.body, owner, &mut inline) else { continue };
            let encodings = object.encodings.as_deref().map_or_else(Vec::new, |encodings| {
                EncodingMeta::of(encodings, |encoded| {
                    self.parts_of(&encoded.body, Owner::Encoded(encoded.clone()), &mut inline)
                })
            });
            let mut variant = VariantMeta::new(&object.head, fields, parts, encodings);
            variant.as_of = object.as_of();
            variant.must_revalidate = object.is_invalidated();
            variant.last_used = object.last_used_ms();
            variants.push(variant);
        }
        if variants.is_empty() {
            return Err(NotWritten);
        }
        let meta = Meta { key: entry.key().canonical(), variants };
        let (segment, body_at) = self.response(entry.key().hash(), &meta, &inline.pieces, 0)?;
        self.earn(u64::from(inline.length));
        for (owner, place) in inline.owners {
            owner.set_inline(segment, Place { offset: body_at + place.offset, ..place });
        }
        self.account_for_replaced(entry, replaces);
        self.tier.holds.keeps(entry, logged_bytes(entry));
        self.evict_once_more(entry);
        Ok(())
    }

    /// Where a body is, or will be; `None`: a part of it is gone.
    fn parts_of(&self, body: &Body, owner: Owner, inline: &mut Inline) -> Option<Vec<PartMeta>> {
        let parts = body.parts();
        if !parts.is_empty() {
            let is_there = parts.iter().all(|part| part.pages().is_live());
            let places = parts.iter().map(|part| part.place()).map(|(id, place)| PartMeta::new(id, place));
            return is_there.then(|| places.collect());
        }
        if body.is_empty() {
            return Some(Vec::new());
        }
        match owner.inline() {
            Some((id, place)) if self.tier.table.get(id).is_some() => Some(vec![PartMeta::new(id, place)]),
            _ => {
                let place = inline.add(body.chunks());
                inline.owners.push((owner, place));
                Some(vec![PartMeta::new(OWN, place)])
            }
        }
    }

    /// Writes a response frame and points the index at it; gives the segment and where the body begins.
    pub(super) fn response(
        &mut self,
        key: KeyHash,
        meta: &Meta<'_>,
        body: &[Bytes],
        flags: u8,
    ) -> Result<(u32, u32), NotWritten> {
        let meta = meta.encode()?;
        let body_bytes: usize = body.iter().map(Bytes::len).sum();
        let frame = Frame {
            kind: Kind::Response,
            flags,
            key,
            meta_bytes: meta.len() as u32,
            body_bytes: body_bytes as u32,
            version: self.tier.versions.next(),
            sum: Sum::of(&meta),
        };
        let mut pieces = vec![Bytes::from(meta)];
        pieces.extend_from_slice(body);
        let (segment, location) = self.frame(&frame, &pieces)?;
        let must_revalidate = flags & FLAG_MUST_REVALIDATE != 0;
        let asked = self.asked_so_far(key);
        let found = Found { location, length: frame.length() as u32, asked, must_revalidate };
        let old = self.tier.index.insert(key, found);
        self.account_for(old);
        segment.account(frame.length() as i64);
        Ok((segment.id, location.offset + HEADER_BYTES as u32 + frame.meta_bytes))
    }

    /// Requests for what is stored under a key; being written again at eviction is worth one of them.
    fn asked_so_far(&self, key: KeyHash) -> u8 {
        let asked = self.tier.index.get(key).map_or(0, |old| old.asked);
        asked.saturating_sub(u8::from(self.is_relocating))
    }

    fn part(&mut self, growing: &Growing, chunks: &[Bytes]) -> Result<(), NotWritten> {
        let (segment, place) = self.part_frame(growing.key(), chunks)?;
        let bytes = segment.slice(place.offset, place.length).ok_or(NotWritten)?;
        growing.add(segment, bytes, place);
        self.earn(u64::from(place.length));
        Ok(())
    }

    /// Writes a part's frame; gives where its bytes are.
    pub(super) fn part_frame(
        &mut self,
        key: KeyHash,
        chunks: &[Bytes],
    ) -> Result<(Arc<Segment>, Place), NotWritten> {
        let mut hasher = blake3::Hasher::new();
        let mut length = 0;
        for chunk in chunks {
            hasher.update(chunk);
            length += chunk.len() as u32;
        }
        let mut sum = Sum::default();
        sum.0.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        let version = self.tier.versions.next();
        let frame =
            Frame { kind: Kind::Part, flags: 0, key, meta_bytes: 0, body_bytes: length, version, sum };
        let (segment, location) = self.frame(&frame, chunks)?;
        segment.account(frame.length() as i64);
        Ok((segment, Place { offset: location.offset + HEADER_BYTES as u32, length, sum }))
    }

    /// A frame that nothing refers to any more is dead.
    pub(super) fn account_for(&self, old: Option<Found>) {
        if let Some(old) = old
            && let Some(segment) = self.tier.table.at(old.location.slot)
        {
            segment.account(-i64::from(old.length));
        }
    }

    /// So are the parts of variants that were replaced.
    fn account_for_replaced(&self, entry: &Entry, replaces: Option<&Entry>) {
        let Some(old) = replaces else { return };
        let is_kept = |part: &Arc<Part>| {
            entry.variants().iter().any(|v| v.body.parts().first().is_some_and(|p| Arc::ptr_eq(p, part)))
        };
        for object in old.variants() {
            // Smaller ones lie in the frame of their response, which was accounted for.
            let has_frames = |body: &&Arc<Body>| body.len() > self.tier.limits.inline;
            if object.body.parts().first().is_some_and(|first| !is_kept(first)) {
                for part in object.bodies().filter(has_frames).flat_map(|body| body.parts()) {
                    let (id, place) = part.place();
                    if let Some(segment) = self.tier.table.get(id) {
                        segment.account(-(format::frame_length(u64::from(place.length)) as i64));
                    }
                }
            }
        }
    }

    pub(super) fn look_after_segments(&mut self) {
        if self.tier.shared.has_names_left() {
            self.tier.shared.unlink();
        }
        let faults = crate::region::faults();
        let segments = self.tier.table.all();
        if faults != self.faults_seen {
            self.faults_seen = faults;
            for segment in &segments {
                segment.check_length();
            }
        }
        for segment in segments.iter().filter(|segment| segment.is_bad()) {
            tracing::error!(
                segment = segment.id,
                "a segment's file has become shorter; what was in it is lost"
            );
            self.tier.health.note(Fault::Truncated);
            if self.active.as_ref().is_some_and(|active| active.segment.id == segment.id) {
                self.active.take().into_iter().for_each(Active::keep_frames);
            }
            self.drop_segment(segment);
        }
    }

    /// The segment that is written to.
    pub(super) fn active_id(&self) -> Option<u32> {
        self.active.as_ref().map(|active| active.segment.id)
    }
}
