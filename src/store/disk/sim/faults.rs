//! When the simulated disk fails, and what it leaves to chance.

use std::ops::{Bound, RangeBounds};

use rustix::io::{Errno, Result};

/// What can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store::disk) enum Operation {
    Create,
    Write,
    Sync,
    Remove,
    /// The only one that changes nothing.
    Read,
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Go,
    Fail(Errno),
    /// It is under way when everything stops.
    Stop(Errno),
}

/// What a process that is about to die is told.
const STOPPED: Errno = Errno::NXIO;

impl Outcome {
    /// Everything had stopped before: nobody did anything.
    pub(super) fn is_after_stop(self) -> bool {
        self == Outcome::Fail(STOPPED)
    }
}

/// The operations of a kind that fail.
#[derive(Debug)]
struct Planned {
    operation: Operation,
    which: (Bound<u64>, Bound<u64>),
    error: Errno,
}

/// The plan, and how far it got.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) capacity: Option<u64>,
    pub(super) writable: Option<u64>,
    pub(super) short_writes: bool,
    pub(super) cold: bool,
    counts: [u64; 5],
    planned: Vec<Planned>,
    stop_at: Option<u64>,
    is_stopped: bool,
}

impl Faults {
    pub(super) fn changes(&self) -> u64 {
        self.counts[..Operation::Read as usize].iter().sum()
    }

    pub(super) fn count(&self, operation: Operation) -> u64 {
        self.counts[operation as usize]
    }

    pub(super) fn fail(&mut self, operation: Operation, which: impl RangeBounds<u64>, error: Errno) {
        let which = (which.start_bound().cloned(), which.end_bound().cloned());
        self.planned.push(Planned { operation, which, error });
    }

    pub(super) fn stop_at(&mut self, change: u64) {
        self.stop_at = Some(change);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    pub(super) fn check_power(&self) -> Result<()> {
        if self.is_stopped { Err(STOPPED) } else { Ok(()) }
    }

    /// Counts an operation and says how it goes.
    pub(super) fn begin(&mut self, operation: Operation) -> Outcome {
        if self.is_stopped {
            return Outcome::Fail(STOPPED);
        }
        if operation != Operation::Read && self.stop_at == Some(self.changes()) {
            self.is_stopped = true;
        }
        let nth = self.count(operation);
        self.counts[operation as usize] += 1;
        if self.is_stopped {
            return Outcome::Stop(STOPPED);
        }
        let is_meant = |planned: &&Planned| planned.operation == operation && planned.which.contains(&nth);
        self.planned.iter().find(is_meant).map_or(Outcome::Go, |planned| Outcome::Fail(planned.error))
    }

    /// How many bytes a write of `len` takes.
    pub(super) fn take(&mut self, len: usize, outcome: Outcome, random: &mut Random) -> Result<usize> {
        let mut len = len as u64;
        if self.short_writes {
            len = 1 + random.below(len);
        }
        if let Some(left) = &mut self.writable {
            len = len.min(*left);
            *left -= len;
            if len == 0 {
                return Err(Errno::NOSPC);
            }
        }
        if matches!(outcome, Outcome::Stop(_)) && random.one_in(2) {
            len = random.below(len + 1);
        }
        Ok(len as usize)
    }
}

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and every seed is good.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another one that its state decides, without moving on.
    pub(super) fn fork(&self) -> Self {
        Self(Self(!self.0).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From 0 up to, but not including, the end.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Fisher and Yates.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}
