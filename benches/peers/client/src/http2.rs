//! HTTP/2, as much as a client of one URL needs: windows as large as can be, no dynamic table, no priorities.

use std::collections::HashMap;
use std::time::Instant;

use crate::Failure;
use crate::pace::Protocol;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const FRAME_HEAD_BYTES: usize = 9;
const MAX_WINDOW: u32 = (1 << 31) - 1;
const INITIAL_WINDOW: u32 = 65_535;
/// The connection's window is opened again when so much of it is used.
const WINDOW_STEP: u32 = 1 << 28;
/// SETTINGS: no header table, no push, the largest window of a stream.
const OUR_SETTINGS: [(u16, u32); 3] = [(1, 0), (2, 0), (4, MAX_WINDOW)];
/// `:status: 200` of HPACK's static table.
const STATUS_200: u8 = 0x88;

struct Stream {
    due: Instant,
    received: usize,
}

pub struct Client {
    fields: Vec<u8>,
    body_bytes: usize,
    max_streams: usize,
    streams: HashMap<u32, Stream>,
    next_stream: u32,
    input: Vec<u8>,
    consumed: u32,
}

impl Client {
    pub fn new(authority: &str, path: &str, body_bytes: usize, max_streams: usize) -> Self {
        // GET and https by their index, path and authority as literals that are not remembered.
        let mut fields = vec![0x82, 0x87];
        for (name, value) in [(0x04, path), (0x01, authority)] {
            fields.extend([name, value.len().min(126) as u8]);
            fields.extend(value.bytes().take(126));
        }
        let (streams, input) = (HashMap::new(), Vec::new());
        Self { fields, body_bytes, max_streams, streams, next_stream: 1, input, consumed: 0 }
    }

    /// Takes one frame, the payload of which is there.
    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Instant>, Failure> {
        match kind {
            SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
            RST_STREAM | GOAWAY => return Err(format!("the server ended it: frame {kind}, {payload:?}")),
            HEADERS if status(payload) != Some(STATUS_200) => {
                return Err("a status that is not 200".to_owned());
            }
            DATA => {
                let stream = self.streams.get_mut(&id).ok_or("data of no stream")?;
                stream.received += payload.len();
                self.consumed += payload.len() as u32;
                if self.consumed >= WINDOW_STEP {
                    frame(out, WINDOW_UPDATE, 0, 0, &self.consumed.to_be_bytes());
                    self.consumed = 0;
                }
            }
            _ => {}
        }
        if !matches!(kind, DATA | HEADERS) || flags & END_STREAM == 0 {
            return Ok(None);
        }
        let stream = self.streams.remove(&id).ok_or("the end of no stream")?;
        if stream.received != self.body_bytes {
            return Err(format!("{} bytes, not {}", stream.received, self.body_bytes));
        }
        Ok(Some(stream.due))
    }
}

impl Protocol for Client {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut settings = Vec::new();
        for (name, value) in OUR_SETTINGS {
            settings.extend(name.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        frame(out, SETTINGS, 0, 0, &settings);
        frame(out, WINDOW_UPDATE, 0, 0, &(MAX_WINDOW - INITIAL_WINDOW).to_be_bytes());
    }

    fn has_room(&self) -> bool {
        self.streams.len() < self.max_streams
    }

    fn request(&mut self, due: Instant, out: &mut Vec<u8>) {
        frame(out, HEADERS, END_STREAM | END_HEADERS, self.next_stream, &self.fields);
        self.streams.insert(self.next_stream, Stream { due, received: 0 });
        self.next_stream += 2;
    }

    fn receive(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        complete: &mut Vec<Instant>,
    ) -> Result<(), Failure> {
        let mut buffer = std::mem::take(&mut self.input);
        buffer.extend_from_slice(input);
        let mut rest = &buffer[..];
        while let Some((head, after)) = rest.split_at_checked(FRAME_HEAD_BYTES) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let Some((payload, after)) = after.split_at_checked(length) else { break };
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            complete.extend(self.frame(head[3], head[4], id, payload, out)?);
            rest = after;
        }
        let used = buffer.len() - rest.len();
        buffer.drain(..used);
        self.input = buffer;
        Ok(())
    }
}

/// The first field of a block of fields, behind changes of the table's size; a server must put `:status` there.
fn status(fields: &[u8]) -> Option<u8> {
    fields.iter().copied().find(|byte| byte & 0xe0 != 0x20)
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}
