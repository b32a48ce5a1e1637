//! The bytes of the log.
//!
//! ```text
//! purge.log  ┌────────┬───────┬───────┬─────┬───────┬ ─ ─ ─ ─ ─ ─ ─ ─ ┐
//!            │ header │ frame │ frame │ ... │ frame │ zeros, allocated │
//!            │  64 B  │       │       │     │       │  ahead           │
//!            └────────┴───────┴───────┴─────┴───────┴ ─ ─ ─ ─ ─ ─ ─ ─ ┘
//! frame      ┌────────┬────────┬────────┬─────┬─────────┐   begins at a multiple of 16
//!            │ header │ record │ record │ ... │ padding │
//!            │  64 B  │        │        │     │  < 16 B │
//!            └────────┴────────┴────────┴─────┴─────────┘
//! record     ┌────────────┬──────────┐
//!            │ length u32 │ postcard │
//!            └────────────┴──────────┘
//! ```
//!
//! All numbers are little-endian. Checksums are BLAKE3, cut to 128 bits.
//!
//! ```text
//! header         0 magic "LARDRPRG"   8 format u32   12 zero u32   16 log u64   24 zero   48 sum [16]
//! frame header   0 sum of all that follows but the padding [16]   16 magic u32   20 bytes of records u32
//!               24 log u64   32 offset in the file u64   40 records u32   44 zero   48 sum of the frame before [16]
//! ```
//!
//! **A frame is what one sync made durable**, so a torn one is the last, and nobody was told of it; a damaged one with a
//! valid one behind it was lost later. `log` is random: nobody can put the bytes of a frame into a note or a tag. The
//! first frame has the header's sum as that of the frame before. A frame without records says that the log was closed.

use serde::{Deserialize, Serialize};

use super::selector::Request;

/// What this version writes, and the only one it reads.
pub(super) const FORMAT: u32 = 1;
/// Of the file and of a frame.
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const ALIGN: u64 = 16;
/// More is no frame: a group is closed before it is half as long.
pub(super) const MAX_PAYLOAD: usize = 96 << 20;

const MAGIC: [u8; 8] = *b"LARDRPRG";
const FRAME_MAGIC: [u8; 4] = *b"LPRG";

/// Bytes of an id.
pub(super) const ID_BYTES: usize = 12;

/// The sum of a header or a frame.
pub(super) type Sum = [u8; 16];

/// What is logged. `R` is a request: borrowed to be written, with borrowed strings or owned to be read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Record<R> {
    /// A purge.
    Purge {
        /// Its number; larger than all before it.
        seq: u64,
        /// Random.
        id: [u8; ID_BYTES],
        /// Node time in milliseconds.
        at: i64,
        /// What it is.
        request: R,
    },
    /// No object that is to be kept can have noted these numbers. From 0: older objects are not to be kept either.
    Gap {
        /// The first of them.
        from: u64,
        /// The first that is valid again.
        until: u64,
    },
}

/// Why bytes are not what they should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Bad {
    #[error(
        "it was written by another version of this program: its format is {0}, and this one reads {FORMAT}"
    )]
    Format(u32),
    #[error("it is no log of purges, or its beginning is damaged")]
    Header,
    #[error("a record can't be read")]
    Record,
}

/// The file's header, and its sum.
pub(super) fn header(log: u64) -> ([u8; HEADER_BYTES], Sum) {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[16..24].copy_from_slice(&log.to_le_bytes());
    let sum = sum(&bytes[..48]);
    bytes[48..].copy_from_slice(&sum);
    (bytes, sum)
}

/// The log's number, and the header's sum.
pub(super) fn read_header(bytes: &[u8]) -> Result<(u64, Sum), Bad> {
    let (Some(rest), Some(format), Some(log)) =
        (bytes.get(..HEADER_BYTES), number(bytes, 8), number(bytes, 16))
    else {
        return Err(Bad::Header);
    };
    let expected = sum(&rest[..48]);
    if rest[..8] != MAGIC || rest[48..] != expected {
        return Err(Bad::Header);
    }
    // Beside four zeros.
    match format as u32 {
        FORMAT => Ok((log, expected)),
        other => Err(Bad::Format(other)),
    }
}

/// Appends a frame that will stand at `offset`; gives its sum.
pub(super) fn put_frame(out: &mut Vec<u8>, records: &[Vec<u8>], place: (u64, u64), before: &Sum) -> Sum {
    let start = out.len();
    let payload: usize = records.iter().map(|record| record.len() + 4).sum();
    let (log, offset) = place;
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&FRAME_MAGIC);
    out.extend_from_slice(&(payload as u32).to_le_bytes());
    out.extend_from_slice(&log.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&(records.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(before);
    for record in records {
        out.extend_from_slice(&(record.len() as u32).to_le_bytes());
        out.extend_from_slice(record);
    }
    let sum = sum(&out[start + 16..]);
    out[start..start + 16].copy_from_slice(&sum);
    out.resize(start + frame_bytes(payload) as usize, 0);
    sum
}

/// With header and padding.
fn frame_bytes(payload: usize) -> u64 {
    (HEADER_BYTES as u64 + payload as u64).next_multiple_of(ALIGN)
}

/// Of the frame that begins here, if one may: that of its records.
pub(super) fn payload_bytes(header: &[u8]) -> Option<usize> {
    let length = number(header, 20)? as u32 as usize;
    (header.get(16..20)? == FRAME_MAGIC && length <= MAX_PAYLOAD).then_some(length)
}

/// A frame that is whole.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// Where it belongs.
    pub(super) offset: u64,
    pub(super) sum: Sum,
    /// Of the one before it.
    pub(super) before: Sum,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame of this log without its padding.
    pub(super) fn read(bytes: &'a [u8], log: u64) -> Option<Self> {
        let (header, payload) = bytes.split_at_checked(HEADER_BYTES)?;
        if number(header, 24)? != log {
            return None;
        }
        let sum = sum(&bytes[16..]);
        let (offset, before) = (number(header, 32)?, header[48..].try_into().ok()?);
        (header[..16] == sum).then_some(Self { offset, sum, before, payload })
    }

    /// With header and padding.
    pub(super) fn bytes(&self) -> u64 {
        frame_bytes(self.payload.len())
    }

    /// The bytes of its records.
    pub(super) fn records(&self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.payload;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (record, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(record)
        })
    }
}

impl Record<&Request> {
    pub(super) fn encode(&self) -> Result<Vec<u8>, Bad> {
        postcard::to_stdvec(self).map_err(|_| Bad::Record)
    }
}

/// Whether a record is one of people's, by its first byte: the number of the enum's variant.
pub(super) fn is_purge(record: &[u8]) -> bool {
    record.first() == Some(&0)
}

impl<'a, R: Deserialize<'a>> Record<R> {
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Bad> {
        postcard::from_bytes(bytes).map_err(|_| Bad::Record)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|number| u64::from_le_bytes(*number))
}

fn sum(bytes: &[u8]) -> Sum {
    let hash = blake3::hash(bytes);
    let mut sum = [0; 16];
    sum.copy_from_slice(&hash.as_bytes()[..16]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::{Selector, Source};
    use proptest::prelude::*;

    fn request() -> Request {
        Request {
            site: Some("shop".into()),
            selectors: vec![
                Selector::Url { host: "h".into(), path: "/p".into(), query: Some("q".into()) },
                Selector::Prefix { host: "h".into(), path: "/p".into() },
                Selector::Tag("t".into()),
                Selector::Host("h".into()),
                Selector::All,
            ],
            soft: true,
            note: Some("why".into()),
            who: "ci".into(),
            from: Some([10, 0, 0, 1].into()),
            source: Source::Fastly,
        }
    }

    #[test]
    fn a_frame_is_read_back() {
        let request = request();
        let purge = Record::Purge { seq: 7, id: [3; ID_BYTES], at: -5, request: &request };
        let records = [purge.encode().unwrap(), Record::Gap { from: 1, until: 2 }.encode().unwrap()];
        let mut bytes = vec![1; 5];
        let sum = put_frame(&mut bytes, &records, (9, 64), &[4; 16]);
        let bytes = &bytes[5..];
        assert_eq!(bytes.len() as u64 % ALIGN, 0);
        let length = payload_bytes(bytes).unwrap();
        let whole = &bytes[..HEADER_BYTES + length];
        let frame = Frame::read(whole, 9).unwrap();
        assert_eq!((frame.offset, frame.sum, frame.before), (64, sum, [4; 16]));
        assert_eq!(frame.bytes(), bytes.len() as u64);
        let read: Vec<_> = frame.records().collect();
        assert_eq!((is_purge(read[0]), is_purge(read[1])), (true, false));
        assert_eq!(read, records);
        let Ok(Record::Purge { seq: 7, at: -5, request: again, .. }) = Record::<Request>::decode(read[0])
        else {
            panic!("no purge");
        };
        assert_eq!(again, request);
        assert!(matches!(Record::<Request<&str>>::decode(read[1]), Ok(Record::Gap { from: 1, until: 2 })));
        assert!(Frame::read(whole, 8).is_none(), "of another log");
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let (mut bytes, sum_of_header) = header(5);
        assert_eq!(read_header(&bytes), Ok((5, sum_of_header)));
        assert_eq!(read_header(&bytes[..60]), Err(Bad::Header));
        bytes[8] = 2;
        assert_eq!(read_header(&bytes), Err(Bad::Header));
        let other = sum(&bytes[..48]);
        bytes[48..].copy_from_slice(&other);
        assert_eq!(read_header(&bytes), Err(Bad::Format(2)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_header(&bytes);
            let _ = payload_bytes(&bytes);
            let _ = Record::<Request<&str>>::decode(&bytes);
            if let Some(frame) = Frame::read(&bytes, 0) {
                frame.records().for_each(drop);
            }
            Frame { offset: 0, sum: [0; 16], before: [0; 16], payload: &bytes }.records().for_each(drop);
        }
    }
}
