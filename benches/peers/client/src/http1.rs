//! HTTP/1.1: one request at a time, answered by 200 and a body of known length.

use std::time::Instant;

use crate::Failure;
use crate::pace::Protocol;

const MAX_HEAD_BYTES: usize = 16 * 1024;

pub struct Client {
    request: Vec<u8>,
    body_bytes: usize,
    due: Option<Instant>,
    head: Vec<u8>,
    /// What is missing of the body, once the head is there.
    rest: Option<usize>,
}

impl Client {
    pub fn new(authority: &str, path: &str, body_bytes: usize) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n").into_bytes();
        Self { request, body_bytes, due: None, head: Vec::new(), rest: None }
    }

    fn check_head(&self) -> Result<(), Failure> {
        let text = String::from_utf8_lossy(&self.head).to_ascii_lowercase();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if !text.starts_with("http/1.1 200 ") || length != Some(self.body_bytes) {
            return Err(format!("not 200 with {} bytes: {:?}", self.body_bytes, text.lines().next()));
        }
        Ok(())
    }
}

impl Protocol for Client {
    fn begin(&mut self, _out: &mut Vec<u8>) {}

    fn has_room(&self) -> bool {
        self.due.is_none()
    }

    fn request(&mut self, due: Instant, out: &mut Vec<u8>) {
        self.due = Some(due);
        out.extend_from_slice(&self.request);
    }

    fn receive(
        &mut self,
        mut input: &[u8],
        _out: &mut Vec<u8>,
        complete: &mut Vec<Instant>,
    ) -> Result<(), Failure> {
        if self.due.is_none() {
            return Err("an answer that nobody asked for".to_owned());
        }
        let rest = match &mut self.rest {
            Some(rest) => rest,
            None => {
                let before = self.head.len();
                self.head.extend_from_slice(input);
                let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") else {
                    return if before > MAX_HEAD_BYTES { Err("an endless head".to_owned()) } else { Ok(()) };
                };
                self.head.truncate(end + 4);
                self.check_head()?;
                input = &input[self.head.len() - before..];
                self.head.clear();
                self.rest.insert(self.body_bytes)
            }
        };
        *rest = rest.checked_sub(input.len()).ok_or("more bytes than the answer has")?;
        if *rest == 0 {
            self.rest = None;
            complete.extend(self.due.take());
        }
        Ok(())
    }
}
