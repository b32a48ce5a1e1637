//! Requests that can wait: they leave connections to those who can't.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::pool::HttpOrigin;
use super::{Kind, Origin};

/// One part in so many of a server's connections is never taken by who can wait.
const LEFT_DIVISOR: usize = 4;

/// The right to ask an origin although it is not urgent, as long as it lives.
#[derive(Debug)]
pub struct Spare(Arc<Origin>);

impl Drop for Spare {
    fn drop(&mut self) {
        self.0.spares.fetch_sub(1, Relaxed);
    }
}

impl Origin {
    /// A place for a request that can wait; `None`: others wait for the origin, or would have to.
    pub fn spare(self: &Arc<Self>) -> Option<Spare> {
        // Counted before it is looked for, so that two can't take one place.
        let others = self.spares.fetch_add(1, Relaxed);
        let spare = Spare(self.clone());
        let turns = self.fills.available_permits();
        let has_turn = leaves_room(turns, self.config.fills, others);
        let has_connection = match &self.kind {
            Kind::Http(origin) => has_connection(origin, self.config.max_connections, others),
            Kind::Dir(_) => true,
        };
        (has_turn && has_connection).then_some(spare)
    }
}

/// Those who have a place count twice when they have their connection too; this errs on the side of the others. So how
/// many have one at once depends on how soon they get their connections, and is three quarters of all at most.
fn has_connection(origin: &HttpOrigin, most: usize, others: usize) -> bool {
    origin.servers().iter().any(|server| {
        let free = most.saturating_sub(server.in_flight());
        server.waiting() == 0 && leaves_room(free, most, others)
    })
}

/// Whether one more leaves a part to those who can't wait, when as many others that can wait may be about to begin.
fn leaves_room(free: usize, most: usize, others: usize) -> bool {
    free > most / LEFT_DIVISOR + others
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many get a place of 8, when some of them (the bits) have their connection before the next one asks.
    fn places(prompt: u32) -> usize {
        let (mut places, mut connected) = (0, 0);
        while leaves_room(8 - connected, 8, places) {
            connected += usize::from(prompt >> places & 1 == 1);
            places += 1;
        }
        places
    }

    #[test]
    fn a_quarter_is_left_however_late_connections_are_taken() {
        assert_eq!(places(0), 6, "all ask before any has its connection");
        assert_eq!(places(u32::MAX), 3, "each has it before the next one asks");
        assert!((0..256).all(|prompt| (3..=6).contains(&places(prompt))));
    }
}
