//! Appending: frames into the active segment, and the next segment when it is full.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::format::{self, ENTRY_BYTES, Entry as FrameEntry, Frame, HEADER_BYTES};
use super::health::Mode;
use super::index::Location;
use super::log::{NotWritten, Writer};
use super::segment::{Origin, Segment};

/// How long the writer waits for the room of an evicted segment before it ends who still reads it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Readers of evicted segments may hold one part in so many of the store before they are in the way.
const HELD_SHARE: u64 = 4;
/// Times that it waits so before it gives up on a write.
const ATTEMPTS: usize = 10;
/// More pieces than this are copied together before they are written.
const PIECES: usize = 64;

/// The segment that is written to.
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    used: u64,
    frames: Vec<FrameEntry>,
}

impl Active {
    /// Makes it whole, at once.
    pub(super) fn seal(self) {
        self.segment.keep_frames(self.frames);
        self.segment.seal();
    }

    /// With the footer that will list the frame.
    fn has_room_for(&self, length: u64) -> bool {
        let footer = (self.frames.len() + 1) * ENTRY_BYTES + HEADER_BYTES;
        self.used + length + footer as u64 <= self.segment.length
    }
}

impl Writer {
    /// Appends a frame. Nothing is ever written where something was tried before.
    pub(super) fn frame(
        &mut self,
        frame: &Frame,
        pieces: &[Bytes],
    ) -> Result<(Arc<Segment>, Location), NotWritten> {
        let health = &self.tier.health;
        if health.mode() == Mode::Off || (health.mode() == Mode::ReadOnly && !health.is_retry_due()) {
            return Err(NotWritten);
        }
        self.make_room(frame.length())?;
        // A write behind the end of a file that was cut short would make its loss a hole of zeroes.
        if let Some(active) = &self.active {
            active.segment.check_length();
            if active.segment.is_bad() {
                self.look_after_segments();
                return Err(NotWritten);
            }
        }
        let Some(active) = &mut self.active else { return Err(NotWritten) };
        let offset = active.used as u32;
        let header = frame.encode(active.segment.id, offset);
        let padding = [0; format::ALIGN as usize];
        let payload: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let padding = &padding[..(frame.length() - payload) as usize - HEADER_BYTES];
        let together;
        let mut slices = vec![IoSlice::new(&header)];
        if pieces.len() > PIECES {
            together = pieces.concat();
            slices.push(IoSlice::new(&together));
        } else {
            slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
        }
        slices.push(IoSlice::new(padding));
        let written = active.segment.file().write_at(&slices, u64::from(offset));
        active.used += frame.length();
        active.segment.set_used_bytes(active.used);
        self.tier.health.wrote(&written);
        written.map_err(|_| NotWritten)?;
        self.tier.health.recover();
        self.tier.counters.wrote_bytes(frame.length(), payload);
        active.segment.set_first_version(frame.version);
        active.frames.push(FrameEntry {
            kind: frame.kind,
            flags: frame.flags,
            key: frame.key,
            version: frame.version,
            offset,
            length: frame.length() as u32,
        });
        Ok((active.segment.clone(), Location { slot: active.segment.slot(), offset }))
    }

    /// Sees to it that a frame of `length` fits into the active segment.
    fn make_room(&mut self, length: u64) -> Result<(), NotWritten> {
        let overhead = (2 * HEADER_BYTES + ENTRY_BYTES) as u64;
        if length + overhead > self.tier.limits.segment {
            return Err(NotWritten);
        }
        while !self.active.as_ref().is_some_and(|active| active.has_room_for(length)) {
            if let Some(active) = self.active.take() {
                active.segment.keep_frames(active.frames);
                let segment = active.segment;
                self.tier.shared.pool.run(move || segment.seal());
            }
            self.free_a_segment()?;
            // What an eviction wrote again may have opened one.
            if self.active.is_none() {
                self.active = Some(self.open()?);
            }
        }
        Ok(())
    }

    /// Evicts until another segment is within the limit.
    fn free_a_segment(&mut self) -> Result<(), NotWritten> {
        let length = self.tier.limits.segment;
        if self.tier.health.is_full() && !self.is_relocating {
            // A full disk, tried again: live within what there is.
            self.evict_now();
        }
        let mut waits = 0;
        while waits < ATTEMPTS {
            if self.tier.shared.file_bytes() + length <= self.tier.limits.capacity() {
                return Ok(());
            }
            if self.is_relocating {
                return Err(NotWritten);
            }
            // What is read stays; as long as that is little, the next one goes in its place.
            let is_little_held = self.tier.shared.given_up_bytes() * HELD_SHARE < self.tier.limits.capacity();
            if is_little_held && !self.tier.shared.is_freeing() && self.evict_now() {
                continue;
            }
            self.tier.shared.wait_until_freed(PATIENCE);
            waits += 1;
            if waits > 1 {
                self.tier.shared.revoke_oldest();
            }
        }
        tracing::warn!("no room for a new segment: readers hold what was evicted");
        Err(NotWritten)
    }

    /// A new segment to write to.
    fn open(&mut self) -> Result<Active, NotWritten> {
        match self.create(self.tier.limits.segment) {
            Ok(segment) => {
                self.tier.table.add(&segment);
                Ok(Active { segment, used: HEADER_BYTES as u64, frames: Vec::new() })
            }
            Err(error) => {
                self.tier.health.wrote(&Err(error));
                if self.tier.health.is_full() {
                    self.tier.limits.shrink_to(self.tier.shared.file_bytes());
                }
                Err(NotWritten)
            }
        }
    }

    fn create(&mut self, length: u64) -> io::Result<Arc<Segment>> {
        let tier = &self.tier;
        let charge = if tier.shared.disk.is_persistent() {
            None
        } else {
            Some(tier.budget.reserve(length).ok_or(io::ErrorKind::OutOfMemory)?)
        };
        let id = self.next_id;
        self.next_id += 1;
        let file = tier.shared.disk.create(id, length)?;
        file.write_at(&[IoSlice::new(&format::encode_segment(id, length))], 0)?;
        Segment::map((id, length), file, &Origin::New, &tier.shared, tier.ops.clone(), charge)
    }
}
