//! The bytes of a segment.
//!
//! ```text
//! segment   ┌────────┬───────┬───────┬─────┬───────┬ ─ ─ ─ ─ ─ ┬────────┬─────────┐
//!           │ header │ frame │ frame │ ... │ frame │  unused   │ footer │ trailer │
//!           │  64 B  │       │       │     │       │           │        │  64 B   │
//!           └────────┴───────┴───────┴─────┴───────┴ ─ ─ ─ ─ ─ ┴────────┴─────────┘
//! frame     ┌────────┬──────┬──────┬─────────┐   begins at a multiple of 64
//!           │ header │ meta │ body │ padding │
//!           │  64 B  │      │      │  < 64 B │
//!           └────────┴──────┴──────┴─────────┘
//! ```
//!
//! The body of a large part begins with a page: a kernel that sends pages from the middle of one to the middle of the
//! next took twice as long for 1 MiB. A frame of padding before it fills what is between.
//!
//! All numbers are little-endian. Checksums are BLAKE3, cut to 128 or 64 bits.
//!
//! ```text
//! segment header   0 magic "LARDRSEG"   8 format u32   12 id u32   16 length u64   24 zero   48 sum [16]
//! frame header     0 magic u32   4 kind u8   5 flags u8   6 zero u16   8 key u128   24 meta length u32
//!                 28 body length u32   32 version u64   40 sum of meta and body [16]   56 sum [8]
//! footer entry     0 key u128   16 version u64   24 offset u32   28 length u32   32 kind u8   33 flags u8   34 zero
//! trailer          0 magic "LARDREND"   8 id u32   12 entries u32   16 sum of the footer [16]
//!                 32 zero   48 sum [16]
//! ```
//!
//! A frame's own sum covers the segment's number and the frame's offset too, so that a frame that
//! turns up anywhere else is none. A *response* frame's sum covers its meta; its body, when it has one
//! inline, has a sum in the meta, like every part. What a response is made of stands in its meta
//! (`meta.rs`), which is written last: a response that is there is complete.
//!
//! A trailer says that the footer lists every frame. Without a valid one the frames are walked, and
//! where the walk meets a damaged one, the next valid header is searched for.

use crate::object::Sum;
use crate::rules::key::KeyHash;

/// What this version writes, and the only one it reads.
pub(super) const FORMAT: u32 = 2;
/// Everything begins at a multiple of this.
pub(super) const ALIGN: u64 = 64;
/// The bodies of parts of [`PAGED_BYTES`] and more do at a multiple of this.
pub(super) const PAGE_BYTES: u64 = 4096;
pub(super) const PAGED_BYTES: u32 = 32 * 1024;
/// Of a segment, a frame, and a trailer.
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const ENTRY_BYTES: usize = 40;

const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"LARDRSEG");
const TRAILER_MAGIC: u64 = u64::from_le_bytes(*b"LARDREND");
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"LFRM");

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key and all its variants, perhaps with a body.
    Response = 1,
    /// A part of a body.
    Part = 2,
    /// The key is not stored any more.
    Tombstone = 3,
    /// The key is to be revalidated before its next use.
    MustRevalidate = 4,
    /// Nothing, and in no footer.
    Padding = 5,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Response, Self::Part, Self::Tombstone, Self::MustRevalidate, Self::Padding]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Of a response frame: all its variants are to be revalidated before use.
pub(super) const FLAG_MUST_REVALIDATE: u8 = 1;

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Bad {
    #[error("no segment of this program")]
    Magic,
    #[error("written by another version of this program: its format is {0}, and this one reads {FORMAT}")]
    Format(u32),
    #[error("a checksum does not match")]
    Sum,
    #[error("a length or a number can't be right")]
    Shape,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) key: KeyHash,
    pub(super) meta_bytes: u32,
    pub(super) body_bytes: u32,
    pub(super) version: u64,
    /// Of the meta, or of a part's body.
    pub(super) sum: Sum,
}

impl Frame {
    /// Its length in the segment, with header and padding.
    pub(super) fn length(&self) -> u64 {
        frame_length(u64::from(self.meta_bytes) + u64::from(self.body_bytes))
    }

    /// Bytes between `offset`, where the last frame has ended, and this one.
    pub(super) fn gap_at(&self, offset: u64) -> u64 {
        if self.kind != Kind::Part || self.body_bytes < PAGED_BYTES {
            return 0;
        }
        let body_at = offset + HEADER_BYTES as u64;
        body_at.next_multiple_of(PAGE_BYTES) - body_at
    }

    /// What fills a gap, if there is one.
    pub(super) fn padding(gap: u64) -> Option<Self> {
        let body_bytes = gap.checked_sub(HEADER_BYTES as u64)? as u32;
        let (key, sum) = (KeyHash(0), Sum::default());
        Some(Self { kind: Kind::Padding, flags: 0, key, meta_bytes: 0, body_bytes, version: 0, sum })
    }

    /// The header's bytes for a frame at `offset` of segment `id`.
    pub(super) fn encode(&self, id: u32, offset: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        bytes[4] = self.kind as u8;
        bytes[5] = self.flags;
        bytes[8..24].copy_from_slice(&self.key.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.meta_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.version.to_le_bytes());
        bytes[40..56].copy_from_slice(&self.sum.0);
        let sum = place_sum(&bytes[..56], id, offset);
        bytes[56..].copy_from_slice(&sum);
        bytes
    }

    /// Reads the header of a frame at `offset` of segment `id`.
    pub(super) fn decode(bytes: &[u8], id: u32, offset: u32) -> Result<Self, Bad> {
        let bytes: &[u8; HEADER_BYTES] =
            bytes.get(..HEADER_BYTES).and_then(|b| b.try_into().ok()).ok_or(Bad::Shape)?;
        if u32_at(bytes, 0) != FRAME_MAGIC {
            return Err(Bad::Magic);
        }
        if bytes[56..] != place_sum(&bytes[..56], id, offset) {
            return Err(Bad::Sum);
        }
        Ok(Self {
            kind: Kind::from_byte(bytes[4]).ok_or(Bad::Shape)?,
            flags: bytes[5],
            key: KeyHash(u128_at(bytes, 8)),
            meta_bytes: u32_at(bytes, 24),
            body_bytes: u32_at(bytes, 28),
            version: u64_at(bytes, 32),
            sum: sum_at(bytes, 40),
        })
    }

    /// Whether bytes may be the begin of a frame; for a search.
    pub(super) fn may_begin(bytes: &[u8]) -> bool {
        bytes.len() >= HEADER_BYTES && u32_at(bytes, 0) == FRAME_MAGIC
    }
}

/// The length of a frame with so many bytes of meta and body.
pub(super) fn frame_length(payload: u64) -> u64 {
    (HEADER_BYTES as u64 + payload).next_multiple_of(ALIGN)
}

/// The header of a segment.
pub(super) fn encode_segment(id: u32, length: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&SEGMENT_MAGIC.to_le_bytes());
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&id.to_le_bytes());
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    let sum = Sum::of(&bytes[..48]);
    bytes[48..].copy_from_slice(&sum.0);
    bytes
}

/// Checks a segment's header. Every version computes its sum like this, so that damage is never taken for
/// another version, which keeps the node from starting.
pub(super) fn check_segment(bytes: &[u8], id: u32, length: u64) -> Result<(), Bad> {
    if bytes.len() < HEADER_BYTES || u64_at(bytes, 0) != SEGMENT_MAGIC {
        return Err(Bad::Magic);
    }
    if sum_at(bytes, 48) != Sum::of(&bytes[..48]) {
        return Err(Bad::Sum);
    }
    let format = u32_at(bytes, 8);
    if format != FORMAT {
        return Err(Bad::Format(format));
    }
    if u32_at(bytes, 12) != id || u64_at(bytes, 16) != length {
        return Err(Bad::Shape);
    }
    Ok(())
}

/// A frame as the footer lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) key: KeyHash,
    pub(super) version: u64,
    pub(super) offset: u32,
    /// With header and padding.
    pub(super) length: u32,
}

/// Footer and trailer of a segment of `length` bytes: where they begin, and their bytes.
pub(super) fn encode_footer(id: u32, length: u64, entries: &[Entry]) -> (u64, Vec<u8>) {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES + HEADER_BYTES);
    for entry in entries {
        bytes.extend_from_slice(&entry.key.0.to_le_bytes());
        bytes.extend_from_slice(&entry.version.to_le_bytes());
        bytes.extend_from_slice(&entry.offset.to_le_bytes());
        bytes.extend_from_slice(&entry.length.to_le_bytes());
        bytes.extend_from_slice(&[entry.kind as u8, entry.flags, 0, 0, 0, 0, 0, 0]);
    }
    let mut trailer = [0; HEADER_BYTES];
    trailer[..8].copy_from_slice(&TRAILER_MAGIC.to_le_bytes());
    trailer[8..12].copy_from_slice(&id.to_le_bytes());
    trailer[12..16].copy_from_slice(&(entries.len() as u32).to_le_bytes());
    trailer[16..32].copy_from_slice(&Sum::of(&bytes).0);
    let sum = Sum::of(&trailer[..48]);
    trailer[48..].copy_from_slice(&sum.0);
    bytes.extend_from_slice(&trailer);
    (length - bytes.len() as u64, bytes)
}

/// What a trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) entries: u32,
    sum: Sum,
}

impl Trailer {
    /// Reads the last bytes of segment `id`.
    pub(super) fn decode(bytes: &[u8], id: u32) -> Result<Self, Bad> {
        if bytes.len() < HEADER_BYTES || u64_at(bytes, 0) != TRAILER_MAGIC {
            return Err(Bad::Magic);
        }
        if sum_at(bytes, 48) != Sum::of(&bytes[..48]) {
            return Err(Bad::Sum);
        }
        if u32_at(bytes, 8) != id {
            return Err(Bad::Shape);
        }
        Ok(Self { entries: u32_at(bytes, 12), sum: sum_at(bytes, 16) })
    }

    /// The length of the footer, without the trailer.
    pub(super) fn footer_bytes(&self) -> u64 {
        u64::from(self.entries) * ENTRY_BYTES as u64
    }

    /// Reads the footer's entries; all frames lie before `end`.
    pub(super) fn decode_entries(&self, bytes: &[u8], end: u64) -> Result<Vec<Entry>, Bad> {
        if bytes.len() as u64 != self.footer_bytes() {
            return Err(Bad::Shape);
        }
        if Sum::of(bytes) != self.sum {
            return Err(Bad::Sum);
        }
        let entry = |bytes: &[u8]| {
            let entry = Entry {
                key: KeyHash(u128_at(bytes, 0)),
                version: u64_at(bytes, 16),
                offset: u32_at(bytes, 24),
                length: u32_at(bytes, 28),
                kind: Kind::from_byte(bytes[32]).ok_or(Bad::Shape)?,
                flags: bytes[33],
            };
            let is_inside = u64::from(entry.offset) + u64::from(entry.length) <= end;
            if is_inside { Ok(entry) } else { Err(Bad::Shape) }
        };
        bytes.chunks_exact(ENTRY_BYTES).map(entry).collect()
    }
}

/// 64 bits over a header and its place.
fn place_sum(header: &[u8], id: u32, offset: u32) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(&id.to_le_bytes()).update(&offset.to_le_bytes());
    let mut sum = [0; 8];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    sum
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(array_at(bytes, at))
}

fn sum_at(bytes: &[u8], at: usize) -> Sum {
    Sum(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> Frame {
        Frame {
            kind: Kind::Response,
            flags: FLAG_MUST_REVALIDATE,
            key: KeyHash(7 << 100),
            meta_bytes: 300,
            body_bytes: 1024,
            version: 99,
            sum: Sum::of(b"meta"),
        }
    }

    #[test]
    fn a_frame_header_is_read_back_only_at_its_place() {
        let bytes = frame().encode(3, 640);
        assert_eq!(Frame::decode(&bytes, 3, 640), Ok(frame()));
        assert_eq!(Frame::decode(&bytes, 3, 704), Err(Bad::Sum));
        assert_eq!(Frame::decode(&bytes, 4, 640), Err(Bad::Sum));
        assert_eq!(Frame::decode(&bytes[..63], 3, 640), Err(Bad::Shape));
        assert_eq!(frame().length(), 1408, "64 + 1324, rounded up");
    }

    #[test]
    fn a_segment_header_names_another_format_only_when_it_is_whole() {
        let mut bytes = encode_segment(5, 1 << 20);
        assert_eq!(check_segment(&bytes, 5, 1 << 20), Ok(()));
        assert_eq!(check_segment(&bytes, 6, 1 << 20), Err(Bad::Shape));
        bytes[8] = 9;
        assert_eq!(check_segment(&bytes, 5, 1 << 20), Err(Bad::Sum), "a damaged number is no other format");
        let sum = Sum::of(&bytes[..48]);
        bytes[48..].copy_from_slice(&sum.0);
        assert_eq!(check_segment(&bytes, 5, 1 << 20), Err(Bad::Format(9)));
    }

    #[test]
    fn a_footer_is_read_back() {
        let entries: Vec<Entry> = (0..5)
            .map(|n| Entry {
                kind: Kind::Part,
                flags: 0,
                key: KeyHash(n),
                version: n as u64,
                offset: 64 + 128 * n as u32,
                length: 128,
            })
            .collect();
        let (at, bytes) = encode_footer(2, 4096, &entries);
        assert_eq!(at + bytes.len() as u64, 4096);
        let (footer, trailer) = bytes.split_at(bytes.len() - HEADER_BYTES);
        let trailer = Trailer::decode(trailer, 2).unwrap();
        assert_eq!(trailer.entries, 5);
        assert_eq!(trailer.decode_entries(footer, at), Ok(entries));
        assert_eq!(trailer.decode_entries(footer, 600), Err(Bad::Shape), "the last one ends at 704");
    }

    proptest! {
        #[test]
        fn no_flipped_bit_goes_unnoticed(bit in 0_usize..512) {
            for mut bytes in [frame().encode(3, 640), encode_segment(3, 640)] {
                bytes[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(Frame::decode(&bytes, 3, 640).is_err());
                prop_assert!(check_segment(&bytes, 3, 640).is_err());
            }
            let (_, mut footer) = encode_footer(3, 640, &[]);
            footer[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Trailer::decode(&footer, 3).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_no_frame(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Frame::decode(&bytes, 1, 64).is_err());
            prop_assert!(check_segment(&bytes, 1, 64).is_err());
            prop_assert!(Trailer::decode(&bytes, 1).is_err());
        }
    }
}
