//! Which of several servers is asked first, and which next when it can't be reached.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, header};

use super::pool::Server;
use super::{Balance, OutBody};

/// The servers in the order in which they are tried. `schedule` has each server as often as its weight
/// says; `turn` counts requests.
pub(super) fn order(
    balance: Balance,
    servers: &[Arc<Server>],
    schedule: &[usize],
    turn: usize,
    request: &Request<OutBody>,
) -> Vec<usize> {
    if servers.len() == 1 {
        return vec![0];
    }
    let now = Instant::now();
    let mut out: Vec<bool> = servers.iter().map(|server| server.health.is_out(now)).collect();
    if out.iter().all(|is_out| *is_out) {
        // Somebody has to be asked.
        out.fill(false);
    }
    // Drawn among those that are in, so that the load of the others is spread by weight too.
    let drawn: Cow<'_, [usize]> = if out.contains(&true) {
        schedule.iter().copied().filter(|index| !out[*index]).collect()
    } else {
        schedule.into()
    };
    let nth = |n: usize| drawn[(turn + n) % drawn.len()];
    let first = match balance {
        Balance::RoundRobin => nth(0),
        Balance::LeastRequests => {
            let (a, b) = (nth(0), nth(1));
            let load = |i: usize| servers[i].in_flight() + servers[i].waiting();
            if load(b) < load(a) { b } else { a }
        }
        Balance::Hash => {
            let mut order = rendezvous(servers, request);
            order.sort_by_key(|index| out[*index]);
            return order;
        }
    };
    let mut rest: Vec<usize> = (0..servers.len()).filter(|i| *i != first).collect();
    rest.sort_by_key(|index| out[*index]);
    std::iter::once(first).chain(rest).collect()
}

/// Highest random weight (Thaler and Ravishankar, 1998): a server that leaves moves only its own URLs.
fn rendezvous(servers: &[Arc<Server>], request: &Request<OutBody>) -> Vec<usize> {
    let score = |server: &Server| {
        let host = request.headers().get(header::HOST);
        let text = format!("{}\n{}\n{host:?}", server.url(), request.uri());
        let hash = blake3::hash(text.as_bytes());
        let mut low = [0; 8];
        low.copy_from_slice(&hash.as_bytes()[..8]);
        let uniform = (u64::from_le_bytes(low) >> 11) as f64 / (1u64 << 53) as f64;
        -f64::from(server.config.weight) / uniform.max(f64::MIN_POSITIVE).ln()
    };
    let mut order: Vec<_> = servers.iter().map(|server| score(server)).enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.into_iter().map(|(i, _)| i).collect()
}
