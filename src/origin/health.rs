//! Which servers are out, and why: by probes of ours, or for answers that failed in a row.
//!
//! A server that is out is asked only when all are; so a pool is never empty. Its lock is on the way of a miss only.

use std::time::{Duration, Instant};

use http::StatusCode;
use parking_lot::Mutex;

use super::error::OriginError;
use super::{EjectConfig, HealthConfig};

/// What is known of one server.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Probes in a row that said otherwise than `is_down`.
    contrary_probes: u32,
    is_down: bool,
    /// Why the last probe failed.
    probe_error: Option<String>,
    /// Failures of requests in a row.
    errors: u32,
    /// Ejections in a row, each twice as long as the one before.
    ejections: u32,
    ejected_until: Option<Instant>,
    why_ejected: String,
}

/// Whether a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    In,
    /// Its probes fail.
    Down(String),
    /// Its answers failed; for how long it stays out.
    Ejected(String, Duration),
}

impl Health {
    /// Whether it is asked.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let state = self.0.lock();
        if state.is_down {
            let why = state.probe_error.as_deref().unwrap_or("not enough probes have succeeded since");
            return Standing::Down(format!("its probes fail: {why}"));
        }
        match state.ejected_until.and_then(|until| until.checked_duration_since(now)) {
            Some(left) if !left.is_zero() => Standing::Ejected(state.why_ejected.clone(), left),
            _ => Standing::In,
        }
    }

    pub(super) fn is_out(&self, now: Instant) -> bool {
        let state = self.0.lock();
        state.is_down || state.ejected_until.is_some_and(|until| now < until)
    }

    /// Whether it was put out for its answers, and still is.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.0.lock().ejected_until.is_some_and(|until| now < until)
    }

    /// A probe has ended; true when it changed whether the server is asked.
    pub(super) fn probed(&self, result: Result<(), String>, config: &HealthConfig) -> bool {
        let mut state = self.0.lock();
        let is_contrary = result.is_ok() == state.is_down;
        state.probe_error = result.err();
        if !is_contrary {
            state.contrary_probes = 0;
            return false;
        }
        state.contrary_probes += 1;
        if state.contrary_probes < if state.is_down { config.healthy } else { config.unhealthy } {
            return false;
        }
        state.is_down = !state.is_down;
        state.contrary_probes = 0;
        true
    }

    /// An attempt has ended. True when there were so many failures in a row that the server is to be ejected.
    pub(super) fn heard(&self, failure: Option<String>, config: &EjectConfig, now: Instant) -> bool {
        let mut state = self.0.lock();
        let Some(why) = failure else {
            state.errors = 0;
            // Well for as long as the longest ejection: what was before is forgotten.
            if state.ejected_until.is_some_and(|until| now > until + config.max) {
                (state.ejections, state.ejected_until) = (0, None);
            }
            return false;
        };
        state.errors = state.errors.saturating_add(1);
        state.why_ejected = format!("{} requests in a row failed: {why}", state.errors);
        state.errors >= config.consecutive_errors && state.ejected_until.is_none_or(|until| now >= until)
    }

    /// Puts it out for a while; tells for how long.
    pub(super) fn eject(&self, config: &EjectConfig, now: Instant) -> Duration {
        let mut state = self.0.lock();
        let doubled = 1u32.checked_shl(state.ejections).unwrap_or(u32::MAX);
        let time = config.base.saturating_mul(doubled).min(config.max);
        state.ejections = (state.ejections + 1).min(31);
        state.ejected_until = Some(now + time);
        state.errors = 0;
        time
    }
}

/// Whether an attempt says that the server is not well. An error of the application (500) is an answer; what a gateway
/// says that has nobody behind it is not.
pub(super) fn failure_of(outcome: Result<StatusCode, &OriginError>) -> Option<String> {
    match outcome {
        Ok(
            status
            @ (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT),
        ) => Some(format!("status {}", status.as_u16())),
        Err(error) if is_about_the_server(error) => Some(error.to_string()),
        Ok(_) | Err(_) => None,
    }
}

/// Whether an error tells something of the server: it does not when a request was not sent, or the client is at fault.
pub(super) fn is_about_the_server(error: &OriginError) -> bool {
    !matches!(error.outcome(), "shed" | "client_error" | "down")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EJECT: EjectConfig = EjectConfig {
        consecutive_errors: 3,
        base: Duration::from_secs(10),
        max: Duration::from_secs(60),
        max_percent: 50,
    };

    fn bad() -> String {
        "it broke off".into()
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time_and_a_success_in_between_does_not() {
        let health = Health::default();
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        assert!(!health.heard(Some(bad()), &EJECT, at(0)) && !health.heard(Some(bad()), &EJECT, at(0)));
        assert!(!health.heard(None, &EJECT, at(0)));
        assert!(!health.heard(Some(bad()), &EJECT, at(0)) && !health.heard(Some(bad()), &EJECT, at(0)));
        assert!(health.heard(Some(bad()), &EJECT, at(0)));
        assert_eq!(health.eject(&EJECT, at(0)).as_secs(), 10);
        assert!(health.is_out(at(9)) && !health.is_out(at(10)));
        let Standing::Ejected(why, left) = health.standing(at(4)) else { panic!("out") };
        assert_eq!((&*why, left.as_secs()), ("3 requests in a row failed: it broke off", 6));
        let lengths: Vec<u64> = (0..5).map(|_| health.eject(&EJECT, at(20)).as_secs()).collect();
        assert_eq!(lengths, [20, 40, 60, 60, 60]);
        assert!(!health.heard(None, &EJECT, at(200)));
        assert_eq!(health.eject(&EJECT, at(200)).as_secs(), 10, "it was well for long enough");
    }

    #[test]
    fn probes_decide_by_several_in_a_row() {
        let config = HealthConfig { healthy: 2, unhealthy: 3, ..HealthConfig::for_path("/") };
        let health = Health::default();
        let now = Instant::now();
        let probe = |ok: bool| health.probed(if ok { Ok(()) } else { Err("status 500".into()) }, &config);
        assert!([false, false, true, false, false].map(probe).iter().all(|changed| !changed));
        assert!(!health.is_out(now) && probe(false) && health.is_out(now));
        assert_eq!(health.standing(now), Standing::Down("its probes fail: status 500".into()));
        assert!(!probe(true) && !probe(false) && !probe(true) && health.is_out(now));
        assert!(probe(true) && !health.is_out(now));
    }
}
