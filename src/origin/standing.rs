//! How servers stand: for `status` and metrics, and what becomes of those that fail.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::health::Standing;
use super::pool::{HttpOrigin, Server};
use super::{Config, ServerStatus};

impl Server {
    pub(super) fn url(&self) -> String {
        let scheme = if self.config.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.config.authority())
    }

    pub(super) fn status(&self) -> ServerStatus {
        let last_error = self.last_error.lock().clone();
        let (state, why, left) = match self.health.standing(Instant::now()) {
            Standing::Down(why) => ("down", Some(why), None),
            Standing::Ejected(why, left) => ("ejected", Some(why), Some(left.as_secs())),
            Standing::In if self.is_up() => ("up", None, None),
            Standing::In => ("failing", last_error.clone(), None),
        };
        ServerStatus {
            server: self.url(),
            up: self.is_up(),
            state,
            why,
            ejected_for_seconds: left,
            in_flight: self.in_flight(),
            connections: self.open.load(Relaxed),
            waiting: self.waiting(),
            last_error,
        }
    }

    /// Whether it is asked and, where nobody probes it, whether the last attempt reached it.
    pub(super) fn is_up(&self) -> bool {
        !self.health.is_out(Instant::now()) && (self.is_probed || self.last_error.lock().is_none())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.max_connections.saturating_sub(self.permits.available_permits())
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

impl HttpOrigin {
    /// What an attempt says of its server: too many failures in a row put it out, unless too many are out already.
    pub(super) fn judge(&self, config: &Config, server: &Server, failure: Option<String>) {
        let now = Instant::now();
        if !server.health.heard(failure, &config.eject, now) {
            return;
        }
        // One at a time, so that two do not both take the last place.
        let _ejecting = self.ejecting.lock();
        let out = self.servers().iter().filter(|server| server.health.is_ejected(now)).count();
        let most = self.servers().len() * config.eject.max_percent as usize / 100;
        if out >= most || server.health.is_ejected(now) {
            return;
        }
        let time = server.health.eject(&config.eject, now);
        server.counters.ejected.fetch_add(1, Relaxed);
        let Standing::Ejected(why, _) = server.health.standing(now) else { return };
        tracing::warn!(origin = config.name, server = server.url(), ?time, why, "a server is out");
    }
}
