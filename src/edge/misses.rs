//! How many misses may a client cause? A defence against cache busting; hits are never counted.

use std::net::IpAddr;

use http::{HeaderValue, StatusCode, header};
use lru::LruCache;
use parking_lot::Mutex;

use super::Edge;
use super::admit::Admitted;
use super::config::MissRate;
use super::refusal::{Reason, Refusal};
use crate::net::client_of;
use crate::rules::time::Millis;

/// Clients that are remembered; the least recently seen are forgotten, and begin anew.
const CLIENTS: usize = 65_536;

/// A site and one of its clients.
type Client = (usize, IpAddr);

/// When each client's misses so far would be paid off at the site's rate, in microseconds of node time: a leaky bucket in
/// one number (the generic cell rate algorithm). Its lock is on the way of a miss only.
#[derive(Debug)]
pub(super) struct Misses(Mutex<LruCache<Client, i64>>);

impl Default for Misses {
    fn default() -> Self {
        Self(Mutex::new(LruCache::unbounded()))
    }
}

impl Misses {
    /// Counts a miss.
    ///
    /// # Errors
    /// Seconds until the next one is allowed; then it is not counted.
    fn count(&self, client: Client, rate: MissRate, now: Millis) -> Result<(), u32> {
        let now_us = now.0.saturating_mul(1000);
        let mut clients = self.0.lock();
        if clients.len() >= CLIENTS && !clients.contains(&client) {
            clients.pop_lru();
        }
        let paid_off_us = clients.get_or_insert_mut(client, || now_us);
        let next_us = now_us.max(*paid_off_us).saturating_add(rate.interval_us());
        let over_us = next_us.saturating_sub(now_us).saturating_sub(rate.period_us());
        if over_us > 0 {
            let secs = over_us.saturating_add(999_999) / 1_000_000;
            return Err(u32::try_from(secs).unwrap_or(u32::MAX));
        }
        *paid_off_us = next_us;
        Ok(())
    }
}

impl Edge {
    /// Counts a miss against the client that causes it. A trusted proxy that names no client stands for many, and is not
    /// counted.
    ///
    /// # Errors
    /// The client has caused too many.
    pub(super) fn count_miss(&self, admitted: &Admitted) -> Result<(), Refusal> {
        let Some(rate) = admitted.treatment.misses_per_client else { return Ok(()) };
        let address = admitted.client.address;
        if admitted.is_own || self.config.trusted_proxies.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        let client = (admitted.site.index, client_of(address));
        self.misses.count(client, rate, self.clock.now()).map_err(|secs| {
            let detail = "this client asks too often for what is not stored; try again later";
            Refusal::new(Reason::TooManyMisses, StatusCode::TOO_MANY_REQUESTS, detail)
                .with(header::RETRY_AFTER, HeaderValue::from(secs))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn client(n: u8) -> Client {
        (0, IpAddr::from([192, 0, 2, n]))
    }

    fn rate(count: u32, secs: u64) -> MissRate {
        MissRate { count, period: Duration::from_secs(secs) }
    }

    #[test]
    fn a_burst_of_one_period_then_the_rate() {
        let misses = Misses::default();
        let two = rate(2, 1);
        for _ in 0..2 {
            assert_eq!(misses.count(client(1), two, Millis(0)), Ok(()));
        }
        assert_eq!(misses.count(client(1), two, Millis(0)), Err(1));
        assert_eq!(misses.count(client(2), two, Millis(0)), Ok(()), "another client has its own");
        assert_eq!(misses.count((1, client(1).1), two, Millis(0)), Ok(()), "and so has another site");
        assert_eq!(misses.count(client(1), two, Millis(499)), Err(1));
        assert_eq!(misses.count(client(1), two, Millis(500)), Ok(()));
        assert_eq!(misses.count(client(1), rate(1, 60), Millis(500)), Err(1));
    }

    #[test]
    fn the_table_is_bounded() {
        let misses = Misses::default();
        for site in 0..=CLIENTS {
            assert_eq!(misses.count((site, client(1).1), rate(1, 60), Millis(0)), Ok(()));
        }
        assert_eq!(misses.0.lock().len(), CLIENTS);
        assert_eq!(misses.count((CLIENTS, client(1).1), rate(1, 60), Millis(0)), Err(60));
    }

    proptest! {
        /// Whatever the times: never more than a period's worth at once and the rate from then on.
        #[test]
        fn never_more_than_the_rate(count in 1_u32..50, secs in 1_u64..100, waits in proptest::collection::vec(0_i64..5000, 1..200)) {
            let misses = Misses::default();
            let mut now = 0;
            let mut allowed = 0;
            for wait in waits {
                now += wait;
                allowed += i64::from(misses.count(client(1), rate(count, secs), Millis(now)).is_ok());
                let earned = now * i64::from(count) / (secs as i64 * 1000);
                prop_assert!(allowed <= i64::from(count) + earned + 1);
            }
        }
    }
}
