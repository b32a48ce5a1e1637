//! Reads a log from its beginning, and tells how it ends.

use std::io;

use super::file::LogFile;
use super::format::{ALIGN, Frame, HEADER_BYTES, Sum, payload_bytes};

/// Read at a time.
const WINDOW: usize = 1 << 20;

/// Where reading stopped.
#[derive(Debug)]
pub(super) struct Walk {
    /// After the last frame.
    pub(super) end: u64,
    /// Its sum.
    pub(super) sum: Sum,
    pub(super) ending: Ending,
}

/// What comes after the last frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Zeros.
    Clean,
    /// A frame that was being written when the node died: nobody was told of it.
    Torn,
    /// Something that was lost.
    Damaged,
}

/// See the module.
pub(super) struct Reader<'a> {
    file: &'a dyn LogFile,
    log: u64,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Reader<'a> {
    /// Of what is before `len`.
    pub(super) fn new(file: &'a dyn LogFile, log: u64, len: u64) -> Self {
        Self { file, log, len, window: Vec::new(), window_at: 0 }
    }

    /// Gives the records from a frame at `offset` on, whose predecessor has the sum `sum`, to `visit`; one that it does not
    /// take is damage.
    pub(super) fn walk(
        &mut self,
        (mut offset, mut sum): (u64, Sum),
        mut visit: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Walk> {
        loop {
            let Some(frame) = self.frame(offset)? else {
                let ending = self.ending(offset)?;
                return Ok(Walk { end: offset, sum, ending });
            };
            if (frame.offset, frame.before) != (offset, sum) || !frame.records().all(&mut visit) {
                return Ok(Walk { end: offset, sum, ending: Ending::Damaged });
            }
            (sum, offset) = (frame.sum, offset + frame.bytes());
        }
    }

    fn ending(&mut self, from: u64) -> io::Result<Ending> {
        let mut offset = from;
        let mut ending = Ending::Clean;
        while offset < self.len {
            let rest = self.window(offset, ALIGN as usize)?;
            let zeros = leading_zeros(rest) as u64;
            if offset + zeros == self.len {
                break;
            }
            // To the next place where a frame may begin.
            offset += zeros / ALIGN * ALIGN;
            if zeros < ALIGN {
                ending = Ending::Torn;
                if offset > from && self.frame(offset)?.is_some() {
                    return Ok(Ending::Damaged);
                }
                offset += ALIGN;
            }
        }
        Ok(ending)
    }

    /// The whole frame at an offset, if there is one, wherever it belongs.
    fn frame(&mut self, offset: u64) -> io::Result<Option<Frame<'_>>> {
        let header = self.window(offset, HEADER_BYTES)?;
        let Some(payload) = payload_bytes(&header[..header.len().min(HEADER_BYTES)]) else {
            return Ok(None);
        };
        let log = self.log;
        let bytes = self.window(offset, HEADER_BYTES + payload)?;
        Ok(bytes.get(..HEADER_BYTES + payload).and_then(|bytes| Frame::read(bytes, log)))
    }

    /// What is at an offset: at least `length` bytes, if the log has as many.
    fn window(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        if offset >= self.len {
            return Ok(&[]);
        }
        let length = (length as u64).min(self.len - offset) as usize;
        let end = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + length as u64 > end {
            let wanted = (length.max(WINDOW) as u64).min(self.len - offset);
            self.window.resize(wanted as usize, 0);
            self.file.read_at(&mut self.window, offset)?;
            self.window_at = offset;
        }
        Ok(&self.window[(offset - self.window_at) as usize..])
    }
}

/// Much is preallocated and nothing but zeros.
fn leading_zeros(bytes: &[u8]) -> usize {
    const PAGE: [u8; 4096] = [0; 4096];
    let pages = bytes.chunks(PAGE.len()).take_while(|page| **page == PAGE[..page.len()]);
    let skipped: usize = pages.map(<[u8]>::len).sum();
    skipped + bytes[skipped..].iter().take_while(|byte| **byte == 0).count()
}
