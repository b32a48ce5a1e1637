//! An open-loop load: requests are due at a given rate, whatever has become of those before, and are timed from when
//! they were due to the last byte of their answer. So what waits because the server is slow counts (no coordinated
//! omission).
//!
//! What is due waits in one queue; the next connection with room takes it. The loop never sleeps: it has a core of its own.

use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::transport::{Security, Transport};
use crate::{Arguments, Failure, Seen, http1, http2, sys};

/// Requests are sent for so long before the first that counts: windows open, caches fill.
const WARM_UP: Duration = Duration::from_millis(500);
/// So long after the last request answers are waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 256 * 1024;

/// One connection's side of the protocol. What it sends is appended to a buffer.
pub trait Protocol {
    /// Appends what comes before the first request.
    fn begin(&mut self, out: &mut Vec<u8>);
    /// Whether another request may be sent.
    fn has_room(&self) -> bool;
    /// Appends a request that was due at a time.
    fn request(&mut self, due: Instant, out: &mut Vec<u8>);
    /// Takes what was received; tells when each request was due whose answer is complete.
    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        complete: &mut Vec<Instant>,
    ) -> Result<(), Failure>;
}

struct Connection {
    transport: Transport,
    protocol: Box<dyn Protocol>,
    out: Vec<u8>,
}

fn open(arguments: &Arguments) -> Result<Connection, Failure> {
    let authority = arguments.address.to_string();
    let (security, protocol): (_, Box<dyn Protocol>) = match arguments.protocol.as_str() {
        "h2" => {
            let client =
                http2::Client::new(&authority, &arguments.path, arguments.body_bytes, arguments.streams);
            (Security::Tls("h2"), Box::new(client))
        }
        other => {
            let security = if other == "tls" { Security::Tls("http/1.1") } else { Security::None };
            (security, Box::new(http1::Client::new(&authority, &arguments.path, arguments.body_bytes)))
        }
    };
    let transport = Transport::connect(arguments.address, security)?;
    let mut connection = Connection { transport, protocol, out: Vec::new() };
    connection.protocol.begin(&mut connection.out);
    connection.transport.send(&mut connection.out)?;
    Ok(connection)
}

/// Times each answer to a request that counts.
pub fn run(arguments: &Arguments) -> Result<Seen, Failure> {
    let mut connections =
        (0..arguments.connections).map(|_| open(arguments)).collect::<Result<Vec<_>, _>>()?;
    let epoll = sys::Epoll::new().map_err(|error| error.to_string())?;
    for (index, connection) in connections.iter().enumerate() {
        epoll.add(connection.transport.as_raw_fd(), index as u64).map_err(|error| error.to_string())?;
    }
    crate::wait("ready");
    // All that have room, each in turn, so that all are used.
    let mut with_room: VecDeque<usize> = (0..arguments.connections).collect();
    let mut waiting: VecDeque<Instant> = VecDeque::new();
    let mut microseconds = Vec::new();
    let (mut input, mut complete) = (vec![0; READ_BYTES], Vec::new());
    let mut events = sys::events();
    let interval = Duration::from_secs_f64(1.0 / arguments.rate);
    let start = Instant::now();
    let counts_from = start + WARM_UP;
    let end = counts_from + arguments.duration;
    let (mut next, mut answered, mut sent) = (start, 0usize, 0usize);
    loop {
        let now = Instant::now();
        while next <= now && next < end {
            waiting.push_back(next);
            next += interval;
        }
        while !waiting.is_empty()
            && let Some(index) = with_room.pop_front()
        {
            let connection = &mut connections[index];
            if let Some(due) = waiting.pop_front() {
                connection.protocol.request(due, &mut connection.out);
                connection.transport.send(&mut connection.out)?;
                sent += 1;
            }
            if connection.protocol.has_room() {
                with_room.push_back(index);
            }
        }
        for index in epoll.poll(&mut events).map_err(|error| error.to_string())? {
            let connection = &mut connections[index as usize];
            let had_room = connection.protocol.has_room();
            while let Some(count) = connection.transport.receive(&mut input)? {
                connection.protocol.receive(&input[..count], &mut connection.out, &mut complete)?;
            }
            connection.transport.send(&mut connection.out)?;
            if !had_room && connection.protocol.has_room() {
                with_room.push_back(index as usize);
            }
            let now = Instant::now();
            answered += complete.len();
            let counting = complete.drain(..).filter(|&due| due >= counts_from);
            microseconds.extend(counting.map(|due| (now - due).as_micros() as u64));
        }
        if next >= end && waiting.is_empty() && answered == sent {
            let open = connections.into_iter().map(|connection| connection.transport).collect();
            return Ok(Seen { microseconds, answers: answered, took: end - start, open });
        }
        if now > end + PATIENCE {
            return Err(format!(
                "{} requests have no answer {PATIENCE:?} after the last was due",
                sent - answered + waiting.len()
            ));
        }
    }
}
