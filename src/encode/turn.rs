//! Who may have a body encoded on its way when that is a favour: as many at once as there are cores, since it takes the time
//! of a thread that serves, and no more of that time than a share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Of the whole process.
static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
/// Turns that were had, and those that were not.
static COUNTS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
static ACCOUNT: Account = Account::new();

/// What favours may take of the time of all cores: one part in so many.
const SHARE: u64 = 10;
/// What they may take beyond that at once, of one core: the first clients of a page are not turned away.
const AT_ONCE_US: u64 = 50_000;

/// Time that was taken and is to be made up for by waiting.
#[derive(Debug)]
struct Account {
    /// Until when what was taken is more than the share, in microseconds of the process's time.
    even_at_us: AtomicU64,
}

impl Account {
    const fn new() -> Self {
        Self { even_at_us: AtomicU64::new(0) }
    }

    /// Whether anything may be taken now.
    fn is_open(&self, now_us: u64, cores: u64) -> bool {
        self.even_at_us.load(Relaxed) <= now_us + AT_ONCE_US * SHARE / cores
    }

    fn take(&self, took: Duration, now_us: u64, cores: u64) {
        let took_us = took.as_micros() as u64 * SHARE / cores;
        let paid = |even_at: u64| Some(even_at.max(now_us) + took_us);
        let _ = self.even_at_us.fetch_update(Relaxed, Relaxed, paid);
    }
}

/// Since the first call.
fn now_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, Into::into))
}

/// The right to encode one body on its way, until it is dropped.
#[derive(Debug)]
pub struct LiveTurn(());

impl LiveTurn {
    /// `None`: enough others do, or have done.
    #[must_use]
    pub fn take() -> Option<Self> {
        let most = cores();
        let more = |at_once| if at_once < most { Some(at_once + 1) } else { None };
        // Only who got one may give one back: a turn that is made and thrown away would be given back, too.
        let is_had =
            ACCOUNT.is_open(now_us(), most as u64) && AT_ONCE.fetch_update(Relaxed, Relaxed, more).is_ok();
        COUNTS[usize::from(!is_had)].fetch_add(1, Relaxed);
        is_had.then(|| Self(()))
    }

    /// How many were had, and how many were not, since the start.
    pub(super) fn counts() -> [(&'static str, u64); 2] {
        [("taken", COUNTS[0].load(Relaxed)), ("refused", COUNTS[1].load(Relaxed))]
    }

    /// Notes how long it took.
    pub fn took(&self, time: Duration) {
        ACCOUNT.take(time, now_us(), cores() as u64);
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
    fn what_is_taken_is_made_up_for() {
        let account = Account::new();
        let open = |now_us| account.is_open(now_us, 2);
        assert!(open(0));
        // At once, as much as that; then one part in ten of two cores.
        account.take(Duration::from_millis(50), 0, 2);
        assert!(open(0));
        account.take(Duration::from_millis(10), 0, 2);
        assert!(!open(0) && !open(49_999) && open(50_000));
        account.take(Duration::from_millis(1), 50_000, 2);
        assert!(!open(54_999) && open(55_000));
        // What was not taken is not saved up.
        account.take(Duration::from_millis(51), 10_000_000, 2);
        assert!(!open(10_004_999) && open(10_005_000));
    }

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
