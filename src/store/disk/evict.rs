//! Making room: the oldest segment goes; what was asked for since it was written is written again.
//!
//! First in, first out with a second chance: reads change nothing on disk, writes stay large and in
//! order, and what is in demand moves ahead with the log. How much is written again is bounded by what
//! fills write, so that the medium is never worn by it, and happens in small steps between the fills'
//! writes, ahead of the need.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::Tier;
use super::format::{self, FLAG_MUST_REVALIDATE, Frame, Kind};
use super::health::Mode;
use super::index::Found;
use super::log::{NotWritten, Writer};
use super::meta::{Meta, OWN, PartMeta, VariantMeta};
use super::segment::Segment;
use crate::object::{Place, Sum};
use crate::rules::key::KeyHash;
use crate::store::Entry;

/// Keys that are looked at between two writes of fills.
const STEP_KEYS: usize = 32;
/// Of 100 bytes that fills write, so many more may be written again.
const REINSERT_PERCENT: i64 = 25;
/// An eviction begins when less than this share of the active segment is left: with room for what is
/// written again, which evicts nothing itself.
const AHEAD_DIVISOR: u64 = 2;
/// Copied parts up to here become part of the new response frame.
const INLINE_BYTES: u32 = 64 * 1024;
/// A segment with less than this share of live bytes goes before older ones.
const DEAD_DIVISOR: u64 = 64;

impl Tier {
    /// Notes of each variant what it outlived; false: all are purged, and not held any more.
    fn renew(&self, key: KeyHash, meta: &mut Meta<'_>) -> bool {
        let (mut is_any_left, mut all_tags) = (false, Vec::new());
        for variant in &mut meta.variants {
            let tags: Vec<Box<str>> = variant.tags().iter().map(|tag| Box::from(*tag)).collect();
            if let Some(as_of) = self.comparison.outlived(meta.key, &tags, variant.as_of) {
                (variant.as_of, is_any_left) = (as_of, true);
            }
            all_tags.push(tags);
        }
        if !is_any_left {
            self.holds.end_of_purged(key, meta.key, all_tags.iter().map(Vec::as_slice));
        }
        is_any_left
    }
}

/// A segment on its way out.
pub(super) struct Eviction {
    segment: Arc<Segment>,
    /// Its keys that are to be decided on, those asked for most at the end: on disk, or in memory.
    keys: Vec<(u8, KeyHash)>,
    /// All of them.
    all: Vec<KeyHash>,
}

/// What a key has to do with a segment.
struct Stake {
    found: Found,
    /// Bytes that would have to be written again.
    bytes: i64,
}

impl Writer {
    /// Goes on with an eviction, or begins one when the next segment would have no room.
    pub(super) fn evict_ahead(&mut self) {
        // What can't be replaced stays.
        if self.tier.health.mode() != Mode::Ok {
            return;
        }
        if self.eviction.is_none() {
            let shared = &self.tier.shared;
            let has_room = shared.kept_bytes() + self.spare_bytes() <= self.tier.limits.capacity();
            let is_due = !self.tier.holds.is_empty() || self.is_next_due();
            if has_room || !is_due || !self.begin() {
                return;
            }
        }
        self.step(STEP_KEYS);
    }

    /// What is kept free: the next segment, and where something is held, one more to write it again to.
    fn spare_bytes(&self) -> u64 {
        let segments = if self.tier.holds.is_empty() { 1 } else { 2 };
        segments * self.tier.limits.segment
    }

    /// Where something is held, makes room for it and for the next segment before that is opened.
    pub(super) fn evict_for_held(&mut self) {
        if self.tier.holds.is_empty() {
            return;
        }
        // Half of the store is not held, so one round frees room. Counted first: who has the list keeps the segments.
        let segments = self.tier.table.all().len();
        for _ in 0..segments {
            let kept = self.tier.shared.kept_bytes();
            let has_room = kept + self.spare_bytes() <= self.tier.limits.capacity();
            if has_room || !self.evict_now() {
                return;
            }
        }
    }

    /// Whether the next segment will be needed soon: what goes too early is missed.
    fn is_next_due(&self) -> bool {
        let left = self.active.as_ref().map(|active| active.segment.length - active.segment.used_bytes());
        left.is_none_or(|left| left < self.tier.limits.segment / AHEAD_DIVISOR)
    }

    /// Evicts a segment to the end; false: there is none to evict.
    pub(super) fn evict_now(&mut self) -> bool {
        if self.eviction.is_none() && !self.begin() {
            return false;
        }
        while self.eviction.is_some() {
            self.step(usize::MAX);
        }
        true
    }

    /// Grants what a fill's bytes earn for writing again.
    pub(super) fn earn(&mut self, filled: u64) {
        let limit = 2 * self.tier.limits.segment as i64;
        let earned = filled as i64 * REINSERT_PERCENT / 100;
        self.reinsertion_credit = (self.reinsertion_credit + earned).min(limit);
    }

    fn begin(&mut self) -> bool {
        let active = self.active_id();
        let segments = self.tier.table.all();
        // On disk, strictly the oldest: what is dead in it may be all that says that older records are.
        let is_dead = |segment: &&Arc<Segment>| {
            !self.tier.is_persistent() && segment.live_bytes() < segment.length / DEAD_DIVISOR
        };
        let mut candidates = segments.iter().filter(|segment| Some(segment.id) != active);
        let Some(segment) = candidates.clone().find(is_dead).or_else(|| candidates.next()) else {
            return false;
        };
        let keys = self.keys_of(segment);
        let all = keys.iter().map(|(_, key)| *key).collect();
        self.eviction = Some(Eviction { segment: segment.clone(), keys, all });
        true
    }

    /// Has a key decided on again that was put while its segment is on its way out.
    pub(super) fn evict_once_more(&mut self, entry: &Entry) {
        let Some(eviction) = &mut self.eviction else { return };
        let mut parts = entry.variants().iter().flat_map(|object| object.parts());
        if parts.any(|part| part.place().0 == eviction.segment.id) {
            eviction.keys.push((1, entry.key().hash()));
        }
    }

    /// Of what memory holds, forgets what left the store before it could be written: nobody else will.
    pub(super) fn forget_dead_parts(&self, entry: &Entry) {
        let parts = entry.variants().iter().flat_map(|object| object.parts());
        let dead = parts.filter(|part| !part.pages().is_live()).map(|part| part.place().0);
        let dead: BTreeSet<u32> = dead.collect();
        for segment in dead {
            self.tier.budget.memory.forget_mapped(entry.key().hash(), segment);
        }
    }

    fn keys_of(&self, segment: &Arc<Segment>) -> Vec<(u8, KeyHash)> {
        let frames = segment.frames().unwrap_or_else(|error| {
            // Nobody finds what was in it: each key is dropped when it is looked up next.
            tracing::warn!(segment = segment.id, %error, "an evicted segment's footer can't be read");
            Vec::new()
        });
        let keys: HashSet<KeyHash> = frames
            .iter()
            .filter(|frame| matches!(frame.kind, Kind::Response | Kind::Part))
            .map(|frame| frame.key)
            .collect();
        let asked = |key| {
            let on_disk = self.tier.index.get(key).map_or(0, |found| found.asked);
            on_disk.saturating_add(self.tier.budget.memory.asked(key))
        };
        let mut keys: Vec<(u8, KeyHash)> = keys.into_iter().map(|key| (asked(key), key)).collect();
        keys.sort_unstable_by_key(|(asked, key)| (*asked, key.0));
        keys
    }

    fn step(&mut self, keys: usize) {
        let Some(mut eviction) = self.eviction.take() else { return };
        let segment = eviction.segment.clone();
        for _ in 0..keys {
            let Some((asked, key)) = eviction.keys.pop() else {
                self.tier.table.remove(segment.id);
                // Also of keys whose response was not written.
                eviction.all.iter().for_each(|key| self.tier.budget.memory.forget_mapped(*key, segment.id));
                self.tier.counters.evicted_segment();
                return;
            };
            self.decide(key, asked, &segment);
        }
        self.eviction = Some(eviction);
    }

    /// Writes a key again or drops it.
    fn decide(&mut self, key: KeyHash, asked: u8, from: &Arc<Segment>) {
        let Some(found) = self.tier.index.get(key) else { return };
        let is_here = found.location.slot == from.slot();
        let is_held = self.tier.holds.has(key);
        let is_wanted = asked > 0 || is_held;
        // What goes in any case need not be read.
        let stake = if is_here && !is_wanted { None } else { self.stake(key, found, from) };
        if stake.is_none() && !is_here {
            return;
        }
        if let Some(stake) = stake
            && is_wanted
            && (is_held || self.reinsertion_credit >= stake.bytes)
        {
            self.is_relocating = true;
            let relocated = self.relocate(key, &stake, from);
            self.is_relocating = false;
            if let Ok(written) = relocated {
                if !is_held {
                    self.reinsertion_credit -= written as i64;
                }
                self.tier.counters.reinserted(written);
                self.tier.budget.memory.forget_mapped(key, from.id);
                return;
            }
        }
        if let Some(old) = self.tier.index.remove_at(key, found.location) {
            self.account_for(Some(old));
            self.tier.counters.evicted_key();
            if !is_here {
                // Its record outlives the segment, and must not be found by a start.
                self.is_relocating = true;
                self.mark(key, Kind::Tombstone);
                self.is_relocating = false;
            }
        }
        self.tier.budget.memory.forget_mapped(key, from.id);
    }

    /// Whether what is stored under a key has something in a segment, as far as that can be read.
    pub(super) fn has_stake(&self, key: KeyHash, segment: u32) -> bool {
        let Some(found) = self.tier.index.get(key) else { return false };
        match (self.tier.table.at(found.location.slot), self.tier.table.get(segment)) {
            (Some(record), Some(segment)) => {
                record.id == segment.id || self.stake(key, found, &segment).is_some()
            }
            (None, _) => true,
            (_, None) => false,
        }
    }

    /// Whether anything of a key is in a segment; `None`: not, or it can't be read.
    fn stake(&self, key: KeyHash, found: Found, from: &Arc<Segment>) -> Option<Stake> {
        let (record, bytes) = self.tier.read_frame(found).ok()?;
        let frame = Frame::decode(&bytes, record.id, found.location.offset).ok()?;
        let is_here = found.location.slot == from.slot();
        let meta = Meta::decode(meta_bytes(&frame, &bytes)?).ok().filter(|_| frame.key == key)?;
        let parts = meta.variants.iter().flat_map(VariantMeta::all_parts);
        let parts = parts.filter(|part| part.segment() == from.id);
        let elsewhere: u64 = parts.map(|part| format::frame_length(u64::from(part.place().length))).sum();
        if !is_here && elsewhere == 0 {
            return None;
        }
        Some(Stake { found, bytes: (elsewhere + frame.length()) as i64 })
    }

    /// Writes what a key has in a segment to the head of the log; gives the bytes written.
    fn relocate(&mut self, key: KeyHash, stake: &Stake, from: &Arc<Segment>) -> Result<u64, NotWritten> {
        let (record, bytes) = self.tier.read_frame(stake.found).map_err(|_| NotWritten)?;
        let at = stake.found.location.offset;
        let frame = Frame::decode(&bytes, record.id, at)?;
        let meta = meta_bytes(&frame, &bytes).ok_or(NotWritten)?;
        if frame.key != key || Sum::of(meta) != frame.sum {
            return Err(NotWritten);
        }
        let body_at = at + format::HEADER_BYTES as u32 + frame.meta_bytes;
        let mut meta = Meta::decode(meta)?;
        if !self.tier.renew(key, &mut meta) {
            return Err(NotWritten);
        }
        let (mut inline, mut inline_bytes, mut written) = (Vec::new(), 0_u32, 0);
        for variant in &mut meta.variants {
            for part in variant.all_parts_mut() {
                let mut place = part.place();
                let mut segment = part.segment();
                if segment == OWN {
                    (segment, place.offset) = (record.id, place.offset + body_at);
                }
                if segment != from.id {
                    *part = PartMeta::new(segment, place);
                    continue;
                }
                let data = read_part(from, place).ok_or(NotWritten)?;
                if place.length <= INLINE_BYTES {
                    *part = PartMeta::new(OWN, Place { offset: inline_bytes, ..place });
                    inline_bytes += place.length;
                    inline.push(data);
                } else {
                    let (segment, place) = self.part_frame(key, &[data])?;
                    *part = PartMeta::new(segment.id, place);
                }
                written += u64::from(place.length);
            }
        }
        let flags = if stake.found.must_revalidate { FLAG_MUST_REVALIDATE } else { frame.flags };
        self.response(key, &meta, &inline, flags)?;
        Ok(written + u64::from(frame.meta_bytes))
    }

    /// Gives a segment up with all that is in it, whatever its age: what it says of keys is said again.
    pub(super) fn drop_segment(&mut self, segment: &Arc<Segment>) {
        if self.eviction.as_ref().is_some_and(|eviction| eviction.segment.id == segment.id) {
            self.eviction = None;
        }
        let frames = segment.frames().unwrap_or_default();
        let keys: HashSet<KeyHash> = frames.iter().map(|frame| frame.key).collect();
        for key in keys {
            if self.has_stake(key, segment.id) {
                let old = self.tier.index.remove(key);
                self.account_for(old);
            }
            match self.tier.index.get(key) {
                None => self.mark(key, Kind::Tombstone),
                Some(found) if found.must_revalidate => self.mark(key, Kind::MustRevalidate),
                Some(_) => {}
            }
            self.tier.budget.memory.forget_mapped(key, segment.id);
        }
        self.tier.table.remove(segment.id);
    }
}

fn meta_bytes<'a>(frame: &Frame, bytes: &'a [u8]) -> Option<&'a [u8]> {
    bytes.get(format::HEADER_BYTES..format::HEADER_BYTES + frame.meta_bytes as usize)
}

/// The bytes of a part, if they are what was written.
fn read_part(segment: &Segment, place: Place) -> Option<Bytes> {
    let mut bytes = vec![0; place.length as usize];
    segment.file().read_at(&mut bytes, u64::from(place.offset)).ok()?;
    (Sum::of(&bytes) == place.sum).then(|| Bytes::from(bytes))
}
