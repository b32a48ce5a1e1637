//! The floor: a bare epoll loop that answers the bytes of a cache hit and does nothing else.
//!
//! It shows what the kernel alone costs for an answer, so that the rest of a server's cost can be named. It knows
//! HTTP/1.1 keep-alive and GET over plain TCP. It is no server to use: no timeouts, no limits, no other method.
//!
//! The same program is the origin of the benchmark (`--role origin`): it then leaves out the fields that a cache adds,
//! and tells at `/_requests` how many requests it has answered.

mod answers;
mod connection;
mod sys;

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use answers::{Answers, Role};
use connection::{Connection, Progress};

const EVENTS_PER_WAIT: usize = 256;

struct Arguments {
    port: u16,
    dir: PathBuf,
    role: Role,
}

fn main() {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("bench-floor: {message}\nusage: bench-floor --port PORT --dir DIR [--role floor|origin]");
            std::process::exit(2);
        }
    };
    if let Err(error) = serve(&arguments) {
        eprintln!("bench-floor: {error}");
        std::process::exit(1);
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let (mut port, mut dir, mut role) = (None, None, Role::Floor);
    while let Some(name) = words.next() {
        let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--port" => port = Some(value.parse().map_err(|_| format!("not a port: {value}"))?),
            "--dir" => dir = Some(PathBuf::from(value)),
            "--role" if value == "floor" => role = Role::Floor,
            "--role" if value == "origin" => role = Role::Origin,
            _ => return Err(format!("unknown argument: {name} {value}")),
        }
    }
    Ok(Arguments { port: port.ok_or("--port is missing")?, dir: dir.ok_or("--dir is missing")?, role })
}

/// Accepts and answers until the process is ended.
fn serve(arguments: &Arguments) -> io::Result<()> {
    let mut answers = Answers::load(&arguments.dir, arguments.role)?;
    let listener = TcpListener::bind(("127.0.0.1", arguments.port))?;
    listener.set_nonblocking(true)?;
    let epoll = sys::epoll_create()?;
    sys::epoll_add(&epoll, listener.as_raw_fd(), libc::EPOLLIN as u32)?;

    // Indexed by descriptor: the kernel hands out the lowest free number, so the vector stays small.
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT];
    loop {
        let ready = sys::epoll_wait(&epoll, &mut events)?;
        for event in &events[..ready] {
            let fd = event.u64 as usize;
            if fd == listener.as_raw_fd() as usize {
                accept(&listener, &epoll, &mut connections)?;
            } else if let Some(Some(connection)) = connections.get_mut(fd)
                && connection.advance(&mut answers) == Progress::Over
            {
                connections[fd] = None;
            }
        }
    }
}

/// Takes every queued connection and registers it once, edge-triggered: no `epoll_ctl` for a request.
fn accept(listener: &TcpListener, epoll: &OwnedFd, connections: &mut Vec<Option<Connection>>) -> io::Result<()> {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let fd = stream.as_raw_fd();
        sys::epoll_add(epoll, fd, (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET) as u32)?;
        let slot = fd as usize;
        if connections.len() <= slot {
            connections.resize_with(slot + 1, || None);
        }
        connections[slot] = Some(Connection::new(stream));
    }
    Ok(())
}
