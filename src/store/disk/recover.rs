//! The start: what is on disk becomes the index again.
//!
//! Sealed segments are read by their footers, the others frame by frame; both in parallel. Then the
//! frames are applied in the order in which they were written, so that the last one of a key counts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::Tier;
use super::format::{self, Bad, Entry, FLAG_MUST_REVALIDATE, Frame, HEADER_BYTES, Kind, Trailer};
use super::health::{Fault, Mode};
use super::index::{Found, Location};
use super::io::DiskFile;
use super::segment::{Origin, Segment};
use crate::object::Sum;
use crate::region;

/// Threads that read footers.
const MAX_THREADS: usize = 8;

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recovered {
    /// The highest number a segment has, and the highest version a frame has.
    pub(super) last_id: u32,
    pub(super) last_version: u64,
    pub(super) segments: usize,
    /// Bytes of frames that could not be read.
    pub(super) lost_bytes: u64,
    /// Bytes read to find that out.
    pub(super) bytes_read: u64,
}

/// A segment and its frames.
struct Read {
    segment: Arc<Segment>,
    frames: Vec<Entry>,
    is_sealed: bool,
    lost: u64,
    looked_at: u64,
}

/// Reads every segment and fills the index. An error: the store is of another version.
pub(super) fn recover(tier: &Arc<Tier>) -> io::Result<Recovered> {
    let mut files = tier.shared.disk.list()?;
    let mut recovered = Recovered { last_id: files.last().map_or(0, |file| file.0), ..Recovered::default() };
    let surplus = surplus(tier, &mut files);
    for (id, length) in &surplus {
        refuse_other_format(tier, *id, *length)?;
    }
    let next = AtomicUsize::new(0);
    let reads: Mutex<Vec<Read>> = Mutex::default();
    let useless: Mutex<Vec<(u32, u64)>> = Mutex::default();
    let refused: Mutex<Option<io::Error>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&(id, length)) = files.get(next.fetch_add(1, Relaxed)) {
                    match read_segment(tier, id, length) {
                        Ok(Some(read)) => reads.lock().push(read),
                        Ok(None) => useless.lock().push((id, length)),
                        Err(error) => *refused.lock() = Some(error),
                    }
                }
            });
        }
    });
    if let Some(error) = refused.into_inner() {
        return Err(error);
    }
    // Nothing is deleted before all of it is known to be ours.
    for (id, length) in surplus.into_iter().chain(useless.into_inner()) {
        tier.shared.discard(id, length);
    }
    let mut reads = reads.into_inner();
    reads.sort_unstable_by_key(|read| read.segment.id);
    let responses = |read: &Read| read.frames.iter().filter(|frame| frame.kind == Kind::Response).count();
    tier.index.reserve(reads.iter().map(responses).sum());
    for read in reads {
        recovered.segments += 1;
        recovered.lost_bytes += read.lost;
        recovered.bytes_read += read.looked_at;
        tier.table.add(&read.segment);
        for frame in &read.frames {
            recovered.last_version = recovered.last_version.max(frame.version);
            apply(tier, &read.segment, frame);
        }
        finish(tier, read);
    }
    Ok(recovered)
}

/// A smaller limit than before: takes out the oldest, which go.
fn surplus(tier: &Tier, files: &mut Vec<(u32, u64)>) -> Vec<(u32, u64)> {
    let mut bytes: u64 = files.iter().map(|(_, length)| length).sum();
    let mut surplus = 0;
    while bytes > tier.limits.capacity() {
        tracing::info!(segment = files[surplus].0, "evicted: store.disk is smaller than before");
        bytes -= files[surplus].1;
        surplus += 1;
    }
    files.drain(..surplus).collect()
}

fn refuse_other_format(tier: &Tier, id: u32, length: u64) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    let read = tier.shared.disk.open(id).and_then(|file| file.read_at(&mut header, 0));
    match read.map(|()| format::check_segment(&header, id, length)) {
        Ok(Err(bad @ Bad::Format(_))) => Err(other_format(&bad)),
        _ => Ok(()),
    }
}

fn other_format(bad: &Bad) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, bad.to_string())
}

/// `None`: its file is to be removed.
fn read_segment(tier: &Arc<Tier>, id: u32, length: u64) -> io::Result<Option<Read>> {
    match open_segment(tier, id, length) {
        Ok(Some(read)) => return Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(error),
        Ok(None) => tracing::warn!(segment = id, "no part of this segment can be read"),
        Err(error) => {
            tracing::warn!(segment = id, %error, "a segment can't be read; what was in it is lost");
        }
    }
    // Not left for a later start either: its records would be older than what they are then taken for.
    tier.health.note(Fault::Damaged);
    Ok(None)
}

/// `None`: nothing in it is of any use.
fn open_segment(tier: &Arc<Tier>, id: u32, length: u64) -> io::Result<Option<Read>> {
    if length < 2 * HEADER_BYTES as u64 {
        return Ok(None);
    }
    let file = tier.shared.disk.open(id)?;
    let mut header = [0; HEADER_BYTES];
    file.read_at(&mut header, 0)?;
    let checked = format::check_segment(&header, id, length);
    if let Err(bad @ Bad::Format(_)) = &checked {
        return Err(other_format(bad));
    }
    let segment =
        Segment::map((id, length), file.clone(), &Origin::Found, &tier.shared, tier.ops.clone(), None)?;
    let mut bytes_read = HEADER_BYTES as u64;
    if checked.is_ok()
        && let Ok(frames) = read_frames(id, length, &*file)
    {
        bytes_read += (frames.len() * format::ENTRY_BYTES + HEADER_BYTES) as u64;
        return Ok(Some(Read { segment, frames, is_sealed: true, lost: 0, looked_at: bytes_read }));
    }
    let Some(bytes) = segment.slice(0, length.min(u64::from(u32::MAX)) as u32) else { return Ok(None) };
    let Ok(scan) = region::guarded(|| scan(&bytes, id)) else { return Ok(None) };
    if let Err(bad) = &checked {
        tracing::warn!(segment = id, %bad, "a segment's header is damaged; its frames are searched for");
        tier.health.note(Fault::Damaged);
    }
    if scan.frames.is_empty() && checked.is_err() {
        return Ok(None);
    }
    if scan.lost_bytes > 0 {
        let lost = scan.lost_bytes;
        tracing::warn!(
            segment = id,
            bytes = lost,
            frames = scan.frames.len(),
            "a part of a segment is damaged; the other frames are kept"
        );
        tier.health.note(Fault::Damaged);
    }
    Ok(Some(Read {
        segment,
        frames: scan.frames,
        is_sealed: false,
        lost: scan.lost_bytes,
        looked_at: length,
    }))
}

/// The frames that a sealed segment's footer lists.
pub(super) fn read_frames(id: u32, length: u64, file: &dyn DiskFile) -> io::Result<Vec<Entry>> {
    let invalid = |bad: Bad| io::Error::new(io::ErrorKind::InvalidData, bad.to_string());
    let mut trailer = [0; HEADER_BYTES];
    let trailer_at = length.saturating_sub(HEADER_BYTES as u64);
    file.read_at(&mut trailer, trailer_at)?;
    let trailer = Trailer::decode(&trailer, id).map_err(invalid)?;
    let footer_at = trailer_at.checked_sub(trailer.footer_bytes()).ok_or_else(|| invalid(Bad::Shape))?;
    let mut footer = vec![0; trailer.footer_bytes() as usize];
    file.read_at(&mut footer, footer_at)?;
    trailer.decode_entries(&footer, footer_at).map_err(invalid)
}

/// What a walk over a segment finds.
struct Scan {
    frames: Vec<Entry>,
    /// Bytes between frames that are no frames.
    lost_bytes: u64,
}

fn scan(bytes: &[u8], id: u32) -> Scan {
    let mut found = Scan { frames: Vec::new(), lost_bytes: 0 };
    let mut at = HEADER_BYTES;
    while at + HEADER_BYTES <= bytes.len() {
        match frame_at(bytes, id, at) {
            Ok((frame, is_whole)) => {
                if !is_whole {
                    found.lost_bytes += frame.length();
                } else if frame.kind != Kind::Padding {
                    found.frames.push(Entry {
                        kind: frame.kind,
                        flags: frame.flags,
                        key: frame.key,
                        version: frame.version,
                        offset: at as u32,
                        length: frame.length() as u32,
                    });
                }
                at += frame.length() as usize;
            }
            Err(_) => match next_frame(bytes, id, at) {
                Some(next) => {
                    found.lost_bytes += (next - at) as u64;
                    at = next;
                }
                None => break,
            },
        }
    }
    found
}

/// The frame at an offset, and whether its meta is what was written.
fn frame_at(bytes: &[u8], id: u32, at: usize) -> Result<(Frame, bool), Bad> {
    let frame = Frame::decode(&bytes[at..], id, at as u32)?;
    if at as u64 + frame.length() > bytes.len() as u64 {
        return Err(Bad::Shape);
    }
    let is_whole = frame.kind != Kind::Response || {
        let meta_at = at + HEADER_BYTES;
        Sum::of(&bytes[meta_at..meta_at + frame.meta_bytes as usize]) == frame.sum
    };
    Ok((frame, is_whole))
}

fn next_frame(bytes: &[u8], id: u32, after: usize) -> Option<usize> {
    let step = format::ALIGN as usize;
    let mut candidates = (after + step..bytes.len()).step_by(step);
    candidates
        .find(|&at| Frame::may_begin(&bytes[at..]) && Frame::decode(&bytes[at..], id, at as u32).is_ok())
}

fn apply(tier: &Tier, segment: &Arc<Segment>, frame: &Entry) {
    let old = match frame.kind {
        Kind::Response => {
            segment.account(i64::from(frame.length));
            let location = Location { slot: segment.slot(), offset: frame.offset };
            let must_revalidate = frame.flags & FLAG_MUST_REVALIDATE != 0;
            tier.index.insert(frame.key, Found { location, length: frame.length, asked: 0, must_revalidate })
        }
        Kind::Part => {
            segment.account(i64::from(frame.length));
            None
        }
        Kind::Tombstone => tier.index.remove(frame.key),
        Kind::MustRevalidate => {
            tier.index.mark_must_revalidate(frame.key);
            None
        }
        Kind::Padding => None,
    };
    if let Some(old) = old
        && let Some(segment) = tier.table.at(old.location.slot)
    {
        segment.account(-i64::from(old.length));
    }
}

/// A segment that was being written when the process ended is sealed now, if there is room for a footer.
fn finish(tier: &Tier, read: Read) {
    let used = read
        .frames
        .last()
        .map_or(HEADER_BYTES as u64, |frame| u64::from(frame.offset) + u64::from(frame.length));
    read.segment.set_used_bytes(used);
    if let Some(first) = read.frames.first() {
        read.segment.set_first_version(first.version);
    }
    if read.is_sealed {
        return;
    }
    read.segment.keep_frames(read.frames);
    if tier.health.mode() != Mode::Ok {
        return;
    }
    let segment = read.segment;
    tier.shared.chores.run(move || segment.seal());
}
