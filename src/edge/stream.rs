//! The body of a fill on its way to the followers and into the store.
//!
//! How long it has to be is known from its head, if at all. What ends before is asked for again where that can be
//! (`resume.rs`), and else broken, as is what goes on behind: neither is stored, nor taken for the whole. Only a body
//! of unknown length can lose its room on the way, and is then streamed through a window.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;

use super::fill::{Fill, Wanted};
use super::flight::{End, Flight, Published, WINDOW_BYTES};
use crate::object::Head;
use crate::origin::OriginBody;
use crate::rules::partial;
use crate::store::Deposit;

/// How long a fill that is not stored waits for slow followers before it goes on without them.
const PACE_TIMEOUT: Duration = Duration::from_secs(10);

/// A body, or the rest of one, that an origin sends.
pub(super) struct Coming {
    pub(super) body: OriginBody,
    /// What came so far of all of it.
    pub(super) received: u64,
    /// Of all of it, in bytes; `None`: its clean end is its end.
    pub(super) length: Option<u64>,
    /// Where what the origin sends now ends at the latest.
    pub(super) until: Option<u64>,
    /// Whether it is cut off there.
    is_clipped: bool,
}

impl Coming {
    fn new(body: OriginBody, head: &Head, wanted: &Wanted) -> Self {
        let is_partial = head.status == StatusCode::PARTIAL_CONTENT;
        let promised = partial::of_headers(&head.headers).filter(|_| is_partial).map(|part| part.length());
        let until = promised.or(body.size_hint().exact());
        // Of a client's own range an origin may send less than it promised.
        let is_clipped = is_partial && !matches!(wanted, Wanted::Slice(..));
        Self { body, received: 0, length: until.filter(|_| !is_clipped), until, is_clipped }
    }

    /// Whether all of it is here that is expected.
    fn is_whole(&self) -> bool {
        self.length.is_none_or(|length| self.received == length)
    }

    /// Whether nothing more comes.
    fn is_complete(&self) -> bool {
        self.body.is_end_stream() && self.is_whole()
    }

    /// What of the next bytes belongs to the body; `None`: nothing, it is at its end.
    fn take(&mut self, mut data: Bytes) -> Result<Option<Bytes>, Arc<str>> {
        let left = self.until.map_or(u64::MAX, |until| until - self.received);
        if data.len() as u64 > left {
            if !self.is_clipped {
                return Err("more came than was promised".into());
            }
            data.truncate(left as usize);
            if data.is_empty() {
                return Ok(None);
            }
        }
        self.received += data.len() as u64;
        Ok(Some(data))
    }
}

impl Fill {
    /// Streams the body to the followers and, once it is complete, stores it.
    pub(super) async fn stream(mut self, body: OriginBody, head: Arc<Head>, mut deposit: Option<Deposit>) {
        let flight = self.lead.flight.clone();
        self.edge.collapse.mark_shared(head.key.hash(), &head.vary);
        flight.publish(Published::Streaming(head.clone(), deposit.is_some()));
        let mut coming = Coming::new(body, &head, &self.wanted);
        loop {
            let data = match self.next(&mut coming, &head).await {
                Ok(None) => break,
                Ok(Some(data)) => data,
                Err(why) => {
                    tracing::debug!(url = head.key.canonical(), %why, "a fill broke off");
                    self.lead.leave();
                    return flight.finish(End::Broken(why));
                }
            };
            if let Some(taker) = &mut deposit {
                let Some(chunk) = taker.push(&data).await else {
                    deposit = None;
                    self.is_too_large(&head);
                    if !has_room(&flight).await {
                        return flight.finish(End::Broken("nobody is left to read it".into()));
                    }
                    flight.push(data);
                    continue;
                };
                if let Some(growing) = taker.growing() {
                    flight.release(growing);
                }
                if coming.is_complete() {
                    // Stored before the last byte goes out: who has it all and asks again hits.
                    self.complete(&head, deposit.take(), coming.received).await;
                    self.lead.leave();
                    flight.push(chunk);
                    return flight.finish(End::Complete);
                }
                flight.push(chunk);
            } else {
                if coming.received > WINDOW_BYTES {
                    // Who comes after this would miss the begin.
                    self.lead.leave();
                    flight.keep_window_only();
                }
                if !has_room(&flight).await {
                    return flight.finish(End::Broken("nobody is left to read it".into()));
                }
                flight.push(data);
            }
        }
        self.complete(&head, deposit.take(), coming.received).await;
        self.lead.leave();
        flight.finish(End::Complete);
    }

    /// The next bytes; `None`: it is complete.
    ///
    /// # Errors
    /// Why it broke off.
    async fn next(&mut self, coming: &mut Coming, head: &Head) -> Result<Option<Bytes>, Arc<str>> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut coming.body).poll_frame(cx)).await;
            let why: Arc<str> = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => return coming.take(data),
                    Err(_trailers) => continue,
                },
                None if coming.is_whole() => return Ok(None),
                None => "less came than was promised".into(),
                Some(Err(error)) => error.to_string().into(),
            };
            // Rare, and boxed: else every fill would have room for it.
            Box::pin(self.resume(head, coming)).await.ok_or(why)?;
        }
    }

    /// It outgrew the store: who comes now fetches on their own.
    fn is_too_large(&mut self, head: &Head) {
        self.edge.collapse.mark_unshared(head.key.hash(), self.edge.clock.now(), true);
        self.lead.leave();
        self.lead.flight.keep_window_only();
    }
}

/// Waits until the followers of a windowed fill have caught up; false when there are none.
async fn has_room(flight: &Flight) -> bool {
    loop {
        let room = std::future::poll_fn(|cx| flight.poll_room(cx));
        match tokio::time::timeout(PACE_TIMEOUT, room).await {
            Ok(has_room) => return has_room,
            // Those who are no faster than others here are ended by their connection's write timeout.
            Err(_) => flight.leave_laggards_behind(),
        }
    }
}
