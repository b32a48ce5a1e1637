//! A server that can't be reached is left alone for a moment, and only a probe now and then tries it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;

use super::error::OriginError;

/// How long a server is left alone after the first connection that failed; doubled with each that fails in a row.
const FIRST: Duration = Duration::from_millis(100);
/// And at most: it is tried once a second however long it is down.
const LONGEST: Duration = Duration::from_secs(1);

/// What is known of the last connections to a server. Its lock is on the way of a new connection only.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<Option<Down>>);

/// Connections to it fail.
#[derive(Clone, Debug)]
struct Down {
    wait: Duration,
    /// When it failed first, or the last probe began.
    since: Instant,
    why: Arc<str>,
    status: StatusCode,
    word: &'static str,
}

impl Backoff {
    /// Whether to try another server first: nothing is to be connected now.
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        self.0.lock().as_ref().is_some_and(|down| now < down.since + down.wait)
    }

    /// Whether a connection may be tried. While the server is down one may at a time, and it takes the turn.
    pub(super) fn admit(&self, now: Instant) -> Result<(), OriginError> {
        match &mut *self.0.lock() {
            Some(down) if now < down.since + down.wait => {
                Err(OriginError::Down { why: down.why.clone(), status: down.status, word: down.word })
            }
            Some(down) => {
                down.since = now;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What became of a connection that was begun at `begun`. Of several failures that were under way together one counts.
    pub(super) fn heard(&self, begun: Instant, now: Instant, error: Option<&OriginError>) {
        let mut down = self.0.lock();
        let Some(error) = error else {
            *down = None;
            return;
        };
        // What fails in TLS has been reached.
        if !matches!(error, OriginError::Dns(_) | OriginError::Connect(_) | OriginError::ConnectTimeout) {
            return;
        }
        let wait = match &*down {
            None => FIRST,
            Some(down) if begun < down.since => return,
            Some(down) => (down.wait * 2).min(LONGEST),
        };
        let (status, word) = (error.status(), error.proxy_status());
        *down = Some(Down { wait, since: now, why: error.to_string().into(), status, word });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> OriginError {
        OriginError::Connect(std::io::ErrorKind::ConnectionRefused.into())
    }

    #[test]
    fn one_probe_at_a_time_and_one_a_second_in_the_end() {
        let backoff = Backoff::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut probes = Vec::new();
        for ms in 0..10_000 {
            for _ in 0..3 {
                if backoff.admit(at(ms)).is_ok() {
                    probes.push(ms);
                    backoff.heard(at(ms), at(ms), Some(&refused()));
                }
            }
        }
        assert_eq!(probes, [0, 100, 300, 700, 1500, 2500, 3500, 4500, 5500, 6500, 7500, 8500, 9500]);
        backoff.heard(at(9500), at(9501), None);
        assert!(backoff.admit(at(9501)).is_ok() && backoff.admit(at(9501)).is_ok());
    }

    #[test]
    fn failures_that_were_under_way_together_count_once() {
        let backoff = Backoff::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for _ in 0..100 {
            assert!(backoff.admit(at(0)).is_ok());
        }
        for _ in 0..100 {
            backoff.heard(at(0), at(10), Some(&refused()));
        }
        assert!(backoff.is_waiting(at(109)) && !backoff.is_waiting(at(110)));
    }

    #[test]
    fn a_probe_that_hangs_does_not_keep_the_next_one_back() {
        let backoff = Backoff::default();
        let start = Instant::now();
        backoff.heard(start, start, Some(&refused()));
        let later = start + Duration::from_secs(1);
        assert!(backoff.admit(later).is_ok());
        assert!(backoff.admit(later).is_err());
        assert!(backoff.admit(later + LONGEST).is_ok());
    }

    #[test]
    fn only_what_says_that_nobody_is_there_counts() {
        let backoff = Backoff::default();
        let now = Instant::now();
        backoff.heard(now, now, Some(&OriginError::Tls("no name".into())));
        assert!(!backoff.is_waiting(now));
        backoff.heard(now, now, Some(&OriginError::ConnectTimeout));
        assert!(matches!(backoff.admit(now), Err(OriginError::Down { .. })));
    }
}
