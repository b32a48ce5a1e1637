//! Where a key stands among all that is held; what a list's cursor is.

use std::fmt;
use std::str::FromStr;

use super::index::SHARDS;

/// A key's place in the order in which all that is held is walked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Position {
    shard: u16,
    fingerprint: u64,
}

impl Position {
    /// Of a shard of the index and a fingerprint.
    pub(super) fn new(shard: u16, fingerprint: u64) -> Self {
        Self { shard, fingerprint }
    }

    /// The index's.
    pub(super) fn shard(self) -> u16 {
        self.shard
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03x}{:016x}", self.shard, self.fingerprint)
    }
}

impl FromStr for Position {
    type Err = ();

    /// Reads what was displayed.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (shard, fingerprint) = text.split_at_checked(3).filter(|(_, rest)| rest.len() == 16).ok_or(())?;
        let shard = u16::from_str_radix(shard, 16).map_err(drop)?;
        let fingerprint = u64::from_str_radix(fingerprint, 16).map_err(drop)?;
        if usize::from(shard) < SHARDS { Ok(Self { shard, fingerprint }) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_and_nonsense_is_not() {
        let position = Position::new(SHARDS as u16 - 1, 7);
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "3ff", "4000000000000000000", "3ff000000000000000x", "3ff00000000000000007", "é"] {
            assert_eq!(bad.parse::<Position>(), Err(()), "{bad}");
        }
    }
}
