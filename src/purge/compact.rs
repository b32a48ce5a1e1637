//! Writes what is still wanted of a log to a new one, beside the one thread that goes on appending to the old one.

use std::io;
use std::sync::Arc;

use super::file::Disk;
use super::format::{HEADER_BYTES, Record, header};
use super::log::{Log, Mark, encode_gap};
use super::matcher::Gap;
use super::reader::Reader;
use super::selector::Request;

/// Records of one frame.
const GROUP_BYTES: usize = 1 << 20;

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Purges after this one; no older object is there.
    pub(super) floor: u64,
    /// And from this one on, for people.
    pub(super) history_from: u64,
}

impl Wanted {
    fn takes(self, record: &[u8]) -> Option<bool> {
        Some(match Record::<Request<&str>>::decode(record).ok()? {
            Record::Purge { seq, .. } => seq > self.floor || seq >= self.history_from,
            // Those that go down to 0 are within the new floor.
            Record::Gap { from, until } => from > 0 && until > self.floor,
        })
    }
}

/// A new log of what is before `mark`, on the medium under its own name.
pub(super) fn rewrite(disk: Arc<dyn Disk>, mark: &Mark, wanted: Wanted) -> io::Result<Log> {
    let mut new = Log::create(disk, Arc::default())?;
    let mut group = vec![encode_gap(Gap { from: 0, until: wanted.floor })];
    let mut bytes = 0;
    let mut result = Ok(());
    let start = (HEADER_BYTES as u64, header(mark.number).1);
    let walk = Reader::new(&*mark.file, mark.number, mark.end).walk(start, |record| {
        let Some(is_wanted) = wanted.takes(record) else { return false };
        if is_wanted {
            bytes += record.len();
            group.push(record.to_vec());
        }
        if bytes >= GROUP_BYTES {
            bytes = 0;
            new.push(&std::mem::take(&mut group));
            result = new.flush();
        }
        result.is_ok()
    })?;
    result?;
    if walk.end != mark.end {
        return Err(io::Error::other("the log of purges can't be read"));
    }
    new.push(&group);
    new.flush()?;
    Ok(new)
}
