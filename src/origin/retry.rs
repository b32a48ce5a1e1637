//! How many retries there may be: a share of the requests, so that a failing origin does not get twice the load.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// What a retry costs; a request earns a share of it.
const RETRY: i64 = 1_000_000;
/// Retries that may come at once, after a quiet time and at the start.
const BURST: i64 = 100;

/// The credit of an origin.
#[derive(Debug)]
pub(super) struct RetryBudget {
    credit: AtomicI64,
    /// In millionths of a retry.
    earned_a_request: i64,
}

impl RetryBudget {
    pub(super) fn new(share_millionths: u32) -> Self {
        let burst = if share_millionths == 0 { 0 } else { BURST * RETRY };
        Self { credit: AtomicI64::new(burst), earned_a_request: share_millionths.into() }
    }

    /// A request came.
    pub(super) fn earn(&self) {
        if self.credit.load(Relaxed) < BURST * RETRY {
            self.credit.fetch_add(self.earned_a_request, Relaxed);
        }
    }

    /// Whether there may be a retry now.
    pub(super) fn spend(&self) -> bool {
        let enough = |credit: i64| (credit >= RETRY).then_some(credit - RETRY);
        self.credit.fetch_update(Relaxed, Relaxed, enough).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests() {
        let budget = RetryBudget::new(100_000);
        assert_eq!((0..200).filter(|_| budget.spend()).count(), 100);
        (0..50).for_each(|_| budget.earn());
        assert_eq!((0..200).filter(|_| budget.spend()).count(), 5);
        (0..10_000_000).for_each(|_| budget.earn());
        assert!((0..300).filter(|_| budget.spend()).count() <= 101);
        let none = RetryBudget::new(0);
        none.earn();
        assert!(!none.spend());
    }
}
