//! Answers that are known beforehand, compared where they arrive: for a rate at which a client that takes every answer
//! apart and keeps it would be what is measured.

use std::io::{ErrorKind, Read};

use super::client::{Broken, Client, Stream};
use super::response::Response;

/// What is told of an answer that was the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    pub is_hit: bool,
    /// The other side will end the connection.
    pub is_last: bool,
}

/// What an answer has to be.
pub struct Expected<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Client {
    /// The next answer, which must be whole and the expected one, every byte of it, with nothing behind it.
    /// `buffer` must have room for its head.
    pub fn expect(&mut self, expected: &Expected<'_>, buffer: &mut [u8]) -> Result<Told, Broken> {
        let (end, mut filled) = self.whole_head(buffer)?;
        let told = told_by(&buffer[..end], expected)?;
        let (mut start, mut rest) = (end, expected.body);
        loop {
            let Some(left) = rest.strip_prefix(&buffer[start..filled]) else {
                let at = expected.body.len() - rest.len();
                return Err(Broken::Malformed(format!("other bytes behind byte {at} of the body")));
            };
            rest = left;
            if rest.is_empty() {
                return Ok(told);
            }
            (start, filled) = (0, self.read_some(buffer)?);
        }
    }

    /// Reads until a head is whole; where it ends, and all that was read.
    fn whole_head(&mut self, buffer: &mut [u8]) -> Result<(usize, usize), Broken> {
        assert!(self.surplus().is_empty(), "bytes before the answer: {:?}", self.surplus());
        let mut filled = 0;
        loop {
            filled += match self.read_some(&mut buffer[filled..]) {
                Err(Broken::Truncated(_)) if filled == 0 => Err(Broken::Closed),
                count => count,
            }?;
            if let Some(end) = end_of_head(&buffer[..filled]) {
                return Ok((end, filled));
            }
        }
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, Broken> {
        let read = match self.stream() {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        };
        match read {
            Ok(0) => Err(Broken::Truncated(Response::default())),
            Ok(count) => Ok(count),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Broken::TimedOut)
            }
            Err(_) => Err(Broken::Reset),
        }
    }
}

/// Looks at one byte in four: this is compiled without optimisation.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut at = 3;
    while at < bytes.len() {
        match bytes[at] {
            b'\n' if &bytes[at - 3..=at] == b"\r\n\r\n" => return Some(at + 1),
            b'\r' | b'\n' => at += 1,
            _ => at += 4,
        }
    }
    None
}

fn told_by(head: &[u8], expected: &Expected<'_>) -> Result<Told, Broken> {
    let malformed = || Broken::Malformed(String::from_utf8_lossy(head).into_owned());
    let text = std::str::from_utf8(head).map_err(|_| malformed())?;
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let (mut length, mut is_hit, mut is_last) = (None, false, false);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").ok_or_else(malformed)?;
        match name.len() {
            10 if name.eq_ignore_ascii_case("connection") => is_last |= value.contains("close"),
            12 if name.eq_ignore_ascii_case("cache-status") => is_hit = value.starts_with("larder; hit"),
            14 if name.eq_ignore_ascii_case("content-length") && length.is_none() => {
                length = Some(value.parse::<usize>().map_err(|_| malformed())?);
            }
            14 | 17 if name.eq_ignore_ascii_case("content-length") => return Err(malformed()),
            17 if name.eq_ignore_ascii_case("transfer-encoding") => return Err(malformed()),
            _ => {}
        }
    }
    let is_expected = status == Some(expected.status) && length == Some(expected.body.len());
    if is_expected { Ok(Told { is_hit, is_last }) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    /// What the client says of these bytes, sent in these pieces, where it expects a 200 of `abcdef`.
    fn said_of(pieces: &[&str]) -> Result<Told, Broken> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let mut client = Client::connect(listener.local_addr().expect("its address"));
        let (mut socket, _) = listener.accept().expect("a connection");
        socket.set_nodelay(true).expect("an option");
        let pieces: Vec<_> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
        let sender = std::thread::spawn(move || {
            for piece in pieces {
                std::io::Write::write_all(&mut socket, piece.as_bytes()).expect("it is taken");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let mut buffer = vec![0; 1024];
        let said = client.expect(&Expected { status: 200, body: b"abcdef" }, &mut buffer);
        sender.join().expect("all is sent");
        said
    }

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\ncache-status: larder; hit; ttl=9\r\n\r\n";

    #[test]
    fn the_expected_answer_is_taken_in_whatever_pieces_it_comes() {
        let whole = format!("{HEAD}abcdef");
        let told = Told { is_hit: true, is_last: false };
        assert_eq!(said_of(&[&whole]).expect("the answer"), told);
        for at in 1..whole.len() {
            let (one, other) = whole.split_at(at);
            assert_eq!(said_of(&[one, other]).expect("the answer"), told, "cut at {at}");
        }
        let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nabcdef";
        assert_eq!(said_of(&[last]).expect("the answer"), Told { is_hit: false, is_last: true });
    }

    #[test]
    fn any_other_answer_is_not() {
        let said = |body: &str| said_of(&[HEAD, body]);
        assert!(matches!(said("abcdeg"), Err(Broken::Malformed(_))));
        assert!(matches!(said("abcdefg"), Err(Broken::Malformed(_))), "a byte too much");
        assert!(matches!(said("abc"), Err(Broken::Truncated(_) | Broken::Reset)));
        assert!(matches!(said_of(&[]), Err(Broken::Closed | Broken::Reset)));
        for head in [
            HEAD.replace("200", "503"),
            HEAD.replace("length: 6", "length: 7"),
            HEAD.replace("content-length: 6", "transfer-encoding: chunked"),
            HEAD.replace("content-length: 6", "content-length: 6\r\ncontent-length: 6"),
        ] {
            assert!(matches!(said_of(&[&head, "abcdef"]), Err(Broken::Malformed(_))), "{head}");
        }
    }
}
