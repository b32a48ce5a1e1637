//! Appending: frames into the active segment, and the next segment when it is full.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::format::{self, ENTRY_BYTES, Entry as FrameEntry, Frame, HEADER_BYTES};
use super::health::{self, Mode};
use super::index::Location;
use super::log::{NotWritten, Writer};
use super::segment::{Origin, Segment};

/// How long the writer waits for the room of an evicted segment before it ends who still reads it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Readers of evicted segments may hold one part in so many of the store before they are in the way.
const HELD_SHARE: u64 = 4;
/// Times that it waits so before it gives up on a write.
const ATTEMPTS: usize = 10;
/// How long it does not wait again after that: what is queued fails at once instead of one by one.
const IMPATIENCE: Duration = Duration::from_secs(10);
/// More pieces than this are copied together before they are written.
const PIECES: usize = 64;

/// What there is between frames and behind their ends.
static ZEROES: [u8; format::PAGE_BYTES as usize] = [0; format::PAGE_BYTES as usize];

/// The segment that is written to.
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    used: u64,
    frames: Vec<FrameEntry>,
}

impl Active {
    pub(super) fn new(segment: Arc<Segment>) -> Self {
        Self { segment, used: HEADER_BYTES as u64, frames: Vec::new() }
    }

    /// Makes it whole, at once.
    pub(super) fn seal(self) {
        let segment = self.segment.clone();
        self.keep_frames();
        segment.seal();
    }

    /// Writes nothing more to it.
    pub(super) fn keep_frames(self) {
        self.segment.keep_frames(self.frames);
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
        if self.is_paused && frame.kind != format::Kind::Part {
            return Err(NotWritten);
        }
        if health.mode() == Mode::Off || (health.mode() == Mode::ReadOnly && !health.is_retry_due()) {
            return Err(NotWritten);
        }
        self.make_room(frame.length() + frame.gap_at(0))?;
        // A write behind the end of a file that was cut short would make its loss a hole of zeroes.
        if let Some(active) = &self.active {
            active.segment.check_length();
            if active.segment.is_bad() {
                self.look_after_segments();
                return Err(NotWritten);
            }
        }
        let Some(active) = &mut self.active else { return Err(NotWritten) };
        let (begin, gap) = (active.used, frame.gap_at(active.used));
        let offset = (begin + gap) as u32;
        let filler = Frame::padding(gap).map(|filler| filler.encode(active.segment.id, begin as u32));
        let header = frame.encode(active.segment.id, offset);
        let payload: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let padding = &ZEROES[..(frame.length() - payload) as usize - HEADER_BYTES];
        let together;
        let mut slices = Vec::with_capacity(pieces.len().min(PIECES) + 4);
        if let Some(filler) = &filler {
            slices.extend([IoSlice::new(filler), IoSlice::new(&ZEROES[..gap as usize - HEADER_BYTES])]);
        }
        slices.push(IoSlice::new(&header));
        if pieces.len() > PIECES {
            together = pieces.concat();
            slices.push(IoSlice::new(&together));
        } else {
            slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
        }
        slices.push(IoSlice::new(padding));
        let written = active.segment.file().write_at(&slices, begin);
        active.used = u64::from(offset) + frame.length();
        active.segment.set_used_bytes(active.used);
        self.tier.health.wrote(&written);
        written.map_err(|_| NotWritten)?;
        self.tier.health.recover();
        self.tier.counters.wrote_bytes(gap + frame.length(), payload);
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
                let segment = active.segment.clone();
                active.keep_frames();
                if !self.is_paused {
                    self.tier.shared.chores.run(move || segment.seal());
                }
            }
            if self.is_paused {
                let segment = self.nameless()?;
                self.active = Some(Active::new(segment));
                continue;
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
        let tier = self.tier.clone();
        let (shared, length) = (&tier.shared, tier.limits.segment);
        if tier.health.is_full() && !self.is_relocating {
            // A full disk, tried again: live within what there is.
            self.evict_now();
        }
        if !self.is_relocating {
            self.evict_for_held();
        }
        let mut waits = 0;
        while waits < ATTEMPTS {
            let room = tier.limits.capacity().saturating_sub(length);
            if shared.file_bytes() <= room {
                return Ok(());
            }
            if self.is_relocating && !tier.holds.is_empty() && shared.is_freeing() {
                // What is held is worth the wait for the file that is on its way out.
                shared.wait_for_room(room, PATIENCE);
                waits += 1;
                continue;
            }
            if self.is_relocating || self.impatient_until.is_some_and(|until| Instant::now() < until) {
                return Err(NotWritten);
            }
            // What readers hold stays; as long as that is little, the next one goes in its place.
            let is_little_held = shared.given_up_bytes() * HELD_SHARE < tier.limits.capacity();
            let is_needed = shared.kept_bytes() > room || is_little_held && !shared.is_freeing();
            if is_needed && self.evict_now() && waits == 0 {
                continue;
            }
            if waits > 0 {
                shared.revoke_oldest();
            }
            if shared.has_names_left() {
                shared.unlink();
            }
            shared.wait_for_room(room, PATIENCE);
            waits += 1;
        }
        tracing::warn!("no room for a new segment: readers hold what was evicted");
        self.impatient_until = Some(Instant::now() + IMPATIENCE);
        Err(NotWritten)
    }

    /// A new segment to write to.
    fn open(&mut self) -> Result<Active, NotWritten> {
        match self.create(self.tier.limits.segment) {
            Ok(segment) => {
                self.tier.table.add(&segment);
                Ok(Active::new(segment))
            }
            Err(error) if !self.tier.is_persistent() && error.kind() == io::ErrorKind::OutOfMemory => {
                // The budget is used up for the moment: the log gives way.
                if !self.is_relocating {
                    self.evict_now();
                }
                Err(NotWritten)
            }
            Err(error) => {
                if health::is_full(&error) {
                    self.tier.limits.shrink_to(self.tier.shared.file_bytes());
                }
                self.tier.health.wrote(&Err(error));
                Err(NotWritten)
            }
        }
    }

    fn create(&mut self, length: u64) -> io::Result<Arc<Segment>> {
        let tier = &self.tier;
        let charge = if tier.is_persistent() {
            None
        } else {
            Some(tier.budget.reserve(length).ok_or(io::ErrorKind::OutOfMemory)?)
        };
        let id = self.next_id;
        self.next_id += 1;
        let file = tier.shared.disk.create(id, length)?;
        let written = file.write_at(&[IoSlice::new(&format::encode_segment(id, length))], 0);
        let segment = written.and_then(|()| {
            Segment::map((id, length), file, &Origin::New, &tier.shared, tier.ops.clone(), charge)
        });
        segment.inspect_err(|_| tier.shared.discard(id, length))
    }
}
