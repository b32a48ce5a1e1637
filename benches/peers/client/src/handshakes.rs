//! Connections that have one TLS 1.3 handshake, one request and one answer each, and end; several at a time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind, Stream};

use crate::transport::{TIMEOUT, client, config};
use crate::{Arguments, Failure, Seen};

const SESSIONS: usize = 8;
const READ_BYTES: usize = 16 * 1024;

/// Times each connection, from connecting to the last byte. Each client resumes its own sessions, with the newest
/// ticket that it has been given, or none; a handshake of the other kind is an error.
pub fn run(arguments: &Arguments, resumed: bool) -> Result<Seen, Failure> {
    let began = Instant::now();
    let end = began + arguments.duration;
    thread::scope(|scope| {
        let clients =
            (0..arguments.connections).map(|_| scope.spawn(|| connect_until(end, arguments, resumed)));
        let clients: Vec<_> = clients.collect();
        let mut microseconds = Vec::new();
        for client in clients {
            microseconds.extend(client.join().map_err(|_| "a client has panicked")??);
        }
        Ok(Seen { answers: microseconds.len(), microseconds, took: began.elapsed(), open: Vec::new() })
    })
}

fn connect_until(end: Instant, arguments: &Arguments, resumed: bool) -> Result<Vec<u64>, Failure> {
    let mut config = config("http/1.1")?;
    config.resumption =
        if resumed { Resumption::in_memory_sessions(SESSIONS) } else { Resumption::disabled() };
    let config = Arc::new(config);
    let wanted = if resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
    if resumed {
        connect(arguments, &config)?; // for the first ticket
    }
    let mut microseconds = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        let kind = connect(arguments, &config)?;
        microseconds.push(began.elapsed().as_micros() as u64);
        if kind != Some(wanted) {
            return Err(format!("a handshake was {kind:?}, not {wanted:?}"));
        }
    }
    Ok(microseconds)
}

fn connect(arguments: &Arguments, config: &Arc<ClientConfig>) -> Result<Option<HandshakeKind>, Failure> {
    let failed = |error: std::io::Error| format!("a connection: {error}");
    let mut socket = TcpStream::connect_timeout(&arguments.address, TIMEOUT).map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    socket.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    let mut tls = client(config)?;
    let mut stream = Stream::new(&mut tls, &mut socket);
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", arguments.path, arguments.address);
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let (mut received, mut chunk) = (Vec::new(), [0; READ_BYTES]);
    loop {
        let count = stream.read(&mut chunk).map_err(failed)?;
        received.extend_from_slice(&chunk[..count]);
        let head_end = received.windows(4).position(|window| window == b"\r\n\r\n");
        match head_end.map(|end| received.len() - end - 4) {
            Some(length) if length == arguments.body_bytes => break,
            Some(length) if length > arguments.body_bytes => return Err(format!("{length} bytes of body")),
            _ if count == 0 => return Err("a connection ended inside an answer".to_owned()),
            _ => {}
        }
    }
    if !received.starts_with(b"HTTP/1.1 200 ") {
        return Err("a status that is not 200".to_owned());
    }
    Ok(tls.handshake_kind())
}
