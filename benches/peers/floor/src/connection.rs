//! One connection: bytes in, answers out, as far as the socket goes.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use crate::answers::{Answer, Answers, Choice};
use crate::sys;

const INPUT_BYTES: usize = 4096;

#[derive(PartialEq, Eq)]
pub enum Progress {
    /// The socket has no more to give or to take; the next edge wakes it.
    Waiting,
    /// Closed by the client, or broken, or not understood.
    Over,
}

/// An answer on its way, with how much of its bytes and its file has left.
struct Sending {
    choice: Choice,
    bytes_sent: usize,
    file_sent: usize,
}

pub struct Connection {
    stream: TcpStream,
    input: [u8; INPUT_BYTES],
    filled: usize,
    sending: Option<Sending>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, input: [0; INPUT_BYTES], filled: 0, sending: None }
    }

    /// Goes on until the socket blocks, as edge-triggered events require.
    pub fn advance(&mut self, answers: &mut Answers) -> Progress {
        loop {
            if let Some(stop) = self.answer_all(answers) {
                return stop;
            }
            let space = INPUT_BYTES - self.filled;
            match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Progress::Over,
                Ok(count) => {
                    self.filled += count;
                    if count < space {
                        // A short read emptied the socket: whatever comes later is a new edge (epoll(7)).
                        return self.answer_all(answers).unwrap_or(Progress::Waiting);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waiting,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Progress::Over,
            }
        }
    }

    /// Answers every whole request of the input; `None` when more input is all that is missing.
    fn answer_all(&mut self, answers: &mut Answers) -> Option<Progress> {
        loop {
            if let Some(sending) = &mut self.sending {
                match send(&self.stream, sending, answers.get(sending.choice)) {
                    Ok(()) => self.sending = None,
                    Err(ErrorKind::WouldBlock) => return Some(Progress::Waiting),
                    Err(_) => return Some(Progress::Over),
                }
            }
            let Some(end) = head_end(&self.input[..self.filled]) else {
                return (self.filled == INPUT_BYTES).then_some(Progress::Over);
            };
            let Some(choice) = answers.choose(&self.input[..end]) else {
                return Some(Progress::Over);
            };
            self.input.copy_within(end..self.filled, 0);
            self.filled -= end;
            self.sending = Some(Sending { choice, bytes_sent: 0, file_sent: 0 });
        }
    }
}

/// The head leaves at once, without `MSG_MORE`: held back to share a segment with the file, it costs twice the CPU time
/// at 100 KiB on loopback, where the client then sleeps longer and must be woken more often.
fn send(stream: &TcpStream, sending: &mut Sending, answer: &Answer) -> Result<(), ErrorKind> {
    let fd = stream.as_raw_fd();
    while sending.bytes_sent < answer.bytes.len() {
        let rest = &answer.bytes[sending.bytes_sent..];
        sending.bytes_sent += sys::send(fd, rest).map_err(|error| error.kind())?;
    }
    let Some((file, length)) = &answer.file else { return Ok(()) };
    while sending.file_sent < *length {
        let rest = length - sending.file_sent;
        if sys::sendfile(fd, file, &mut sending.file_sent, rest).map_err(|error| error.kind())? == 0 {
            return Err(ErrorKind::UnexpectedEof);
        }
    }
    Ok(())
}

/// Where the first request ends.
fn head_end(input: &[u8]) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    let first = input.windows(END.len()).position(|window| window == END)?;
    Some(first + END.len())
}
