//! Who may have a body encoded on its way when that is a favour: as many at once as there are cores, since it takes the time
//! of a thread that serves.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Of the whole process.
static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
/// Turns that were had, and those that were not.
static COUNTS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// The right to encode one body on its way, until it is dropped.
#[derive(Debug)]
pub struct LiveTurn(());

impl LiveTurn {
    /// `None`: enough others do.
    #[must_use]
    pub fn take() -> Option<Self> {
        static MOST: OnceLock<usize> = OnceLock::new();
        let most = *MOST.get_or_init(|| std::thread::available_parallelism().map_or(1, Into::into));
        let more = |at_once| if at_once < most { Some(at_once + 1) } else { None };
        // Only who got one may give one back: a turn that is made and thrown away would be given back, too.
        let is_had = AT_ONCE.fetch_update(Relaxed, Relaxed, more).is_ok();
        COUNTS[usize::from(!is_had)].fetch_add(1, Relaxed);
        is_had.then(|| Self(()))
    }

    /// How many were had, and how many were not, since the start.
    pub(super) fn counts() -> [(&'static str, u64); 2] {
        [("taken", COUNTS[0].load(Relaxed)), ("refused", COUNTS[1].load(Relaxed))]
    }
}

impl Drop for LiveTurn {
    fn drop(&mut self) {
        AT_ONCE.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_cores() {
        let turns: Vec<LiveTurn> = std::iter::from_fn(LiveTurn::take).collect();
        assert_eq!(turns.len(), std::thread::available_parallelism().map_or(1, Into::into));
        let most = turns.len();
        let refused = || LiveTurn::counts()[1].1;
        let before = refused();
        assert!((0..3 * most).all(|_| LiveTurn::take().is_none()), "who gets none gives none back");
        assert!(refused() >= before + 3 * most as u64);
        drop(turns);
        let again: Vec<LiveTurn> = std::iter::from_fn(LiveTurn::take).take(10 * most).collect();
        assert_eq!(again.len(), most);
    }
}
