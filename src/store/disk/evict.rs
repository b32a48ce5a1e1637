//! Making room: the oldest segment goes; what was asked for since it was written is written again.
//!
//! First in, first out with a second chance: reads change nothing on disk, writes stay large and in
//! order, and what is in demand moves ahead with the log. How much is written again is bounded by what
//! fills write, so that the medium is never worn by it, and happens in small steps between the fills'
//! writes, ahead of the need.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, FLAG_MUST_REVALIDATE, Frame, Kind};
use super::index::Found;
use super::log::{NotWritten, Writer};
use super::meta::{Meta, OWN, PartMeta};
use super::segment::Segment;
use crate::object::{Place, Sum};
use crate::rules::key::KeyHash;

/// Keys that are looked at between two writes of fills.
const STEP_KEYS: usize = 32;
/// Of 100 bytes that fills write, so many more may be written again.
const REINSERT_PERCENT: i64 = 25;
/// An eviction begins when less than this share of the active segment is left.
const AHEAD_DIVISOR: u64 = 4;
/// Copied parts up to here become part of the new response frame.
const INLINE_BYTES: u32 = 64 * 1024;
/// A segment with less than this share of live bytes goes before older ones.
const DEAD_DIVISOR: u64 = 64;

/// A segment on its way out.
pub(super) struct Eviction {
    segment: Arc<Segment>,
    /// Its keys, those asked for most at the end: on disk, or in memory.
    keys: Vec<(u8, KeyHash)>,
}

/// What a key has to do with a segment.
struct Stake {
    found: Found,
    /// Bytes that would have to be written again.
    bytes: u64,
}

impl Writer {
    /// Goes on with an eviction, or begins one when the next segment would have no room.
    pub(super) fn evict_ahead(&mut self) {
        if self.eviction.is_none() {
            let shared = &self.tier.shared;
            let held = shared.file_bytes() - shared.given_up_bytes();
            let has_room = held + self.tier.limits.segment <= self.tier.limits.capacity();
            if has_room || !self.is_next_due() || !self.begin() {
                return;
            }
        }
        self.step(STEP_KEYS);
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
        let is_dead = |segment: &&Arc<Segment>| segment.live_bytes() < segment.length / DEAD_DIVISOR;
        let mut candidates = segments.iter().filter(|segment| Some(segment.id) != active);
        let Some(segment) = candidates.clone().find(is_dead).or_else(|| candidates.next()) else {
            return false;
        };
        let keys = self.keys_of(segment);
        self.eviction = Some(Eviction { segment: segment.clone(), keys });
        true
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
        let asked = |key| Some(self.tier.index.get(key)?.asked + self.tier.budget.memory.asked(key));
        let mut keys: Vec<(u8, KeyHash)> =
            keys.into_iter().filter_map(|key| Some((asked(key)?, key))).collect();
        keys.sort_unstable_by_key(|(asked, key)| (*asked, key.0));
        keys
    }

    fn step(&mut self, keys: usize) {
        let Some(mut eviction) = self.eviction.take() else { return };
        let segment = eviction.segment.clone();
        for _ in 0..keys {
            let Some((asked, key)) = eviction.keys.pop() else {
                self.tier.table.remove(segment.id);
                self.tier.counters.evicted_segment();
                return;
            };
            self.decide(key, asked, &segment);
        }
        self.eviction = Some(eviction);
    }

    /// Writes a key again or drops it.
    fn decide(&mut self, key: KeyHash, asked: u8, from: &Arc<Segment>) {
        let Some(stake) = self.stake(key, from) else { return };
        if asked > 0 && self.reinsertion_credit >= stake.bytes as i64 {
            self.is_relocating = true;
            let relocated = self.relocate(key, &stake, from);
            self.is_relocating = false;
            if let Ok(written) = relocated {
                self.reinsertion_credit -= written as i64;
                self.tier.counters.reinserted(written);
                self.tier.budget.memory.forget_mapped(key, from.id);
                return;
            }
        }
        if let Some(old) = self.tier.index.remove_at(key, stake.found.location) {
            self.account_for(Some(old));
            self.tier.counters.evicted_key();
        }
        self.tier.budget.memory.forget_mapped(key, from.id);
    }

    /// Whether anything of a key is in a segment; `None`: not, or not any more.
    fn stake(&self, key: KeyHash, from: &Arc<Segment>) -> Option<Stake> {
        let found = self.tier.index.get(key)?;
        let (record, bytes) = self.tier.read_frame(found).ok()?;
        let frame = Frame::decode(&bytes, record.id, found.location.offset).ok()?;
        let is_here = found.location.slot == from.slot();
        if frame.key != key {
            return is_here.then_some(Stake { found, bytes: u64::MAX });
        }
        let Ok(meta) = Meta::decode(meta_bytes(&frame, &bytes)?) else {
            return is_here.then_some(Stake { found, bytes: u64::MAX });
        };
        let parts = meta.variants.iter().flat_map(|variant| &variant.parts);
        let parts = parts.filter(|part| part.segment() == from.id);
        let elsewhere: u64 = parts.map(|part| format::frame_length(u64::from(part.place().length))).sum();
        if !is_here && elsewhere == 0 {
            return None;
        }
        Some(Stake { found, bytes: elsewhere + frame.length() })
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
        let (mut inline, mut inline_bytes, mut written) = (Vec::new(), 0_u32, 0);
        for variant in &mut meta.variants {
            for part in &mut variant.parts {
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

    /// Gives a segment up with all that is in it.
    pub(super) fn drop_segment(&mut self, segment: &Arc<Segment>) {
        for (_, key) in self.keys_of(segment) {
            if let Some(found) = self.tier.index.get(key)
                && found.location.slot == segment.slot()
            {
                self.tier.index.remove_at(key, found.location);
            }
            self.tier.budget.memory.forget_mapped(key, segment.id);
        }
        if self.eviction.as_ref().is_some_and(|eviction| eviction.segment.id == segment.id) {
            self.eviction = None;
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
    segment.file().read_at(&mut bytes, u64::from(place.offset), false).ok()?;
    (Sum::of(&bytes) == place.sum).then(|| Bytes::from(bytes))
}
