//! So many requests a second, evenly.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// What a turn that came late may be made up for: else a timer's inaccuracy would lower the rate.
const CATCH_UP: Duration = Duration::from_millis(100);

/// A rate.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// `rate` turns a second; more than none.
    pub(super) fn new(rate: f64) -> Self {
        Self { interval: Duration::from_secs_f64(1.0 / rate), next: Mutex::new(None) }
    }

    /// Waits for the next turn.
    pub(super) async fn turn(&self) {
        let at = self.reserve(Instant::now());
        sleep_until(at).await;
    }

    fn reserve(&self, now: Instant) -> Instant {
        let mut next = self.next.lock();
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        let at = next.map_or(now, |next| next.max(earliest));
        *next = Some(at + self.interval);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_even_and_late_ones_are_made_up_for() {
        let pace = Pace::new(100.0);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(pace.reserve(at(0)), at(0));
        assert_eq!(pace.reserve(at(0)), at(10));
        assert_eq!(pace.reserve(at(25)), at(20), "it was late, and the ones after it are not");
        assert_eq!(pace.reserve(at(25)), at(30));
        // A long pause is not made up for by a burst.
        assert_eq!(pace.reserve(at(5_000)), at(4_900));
        assert_eq!(pace.reserve(at(5_000)), at(4_910));
    }
}
