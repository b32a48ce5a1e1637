//! A body that is decoded or encoded on its way to one client.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body as _;

use super::body::{Body, BodyError};
use crate::encode::{Failure, LiveTurn, Step, Transcoder};
use crate::object::Encodings;

/// How long a codec may keep a thread that serves others too. Who waits behind it waits for one codec's turn, and the codec
/// for one of everybody's: a large body takes longer, and a hit next to it no longer than this.
const TURN: Duration = Duration::from_micros(100);

/// See the module.
#[derive(Debug)]
pub(super) struct Coded {
    body: Body,
    transcoder: Result<Transcoder, Failure>,
    has_ended: bool,
    is_done: bool,
    /// On the codec, since the others had their turn.
    spent: Duration,
    /// Where it is noted that it can't be decoded.
    of: Option<Arc<Encodings>>,
    _turn: Option<LiveTurn>,
}

impl Coded {
    pub(super) fn new(
        body: Body,
        transcoder: Result<Transcoder, Failure>,
        turn: Option<LiveTurn>,
        of: Option<Arc<Encodings>>,
    ) -> Self {
        Self { body, transcoder, has_ended: false, is_done: false, spent: Duration::ZERO, of, _turn: turn }
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// The next piece, of bounded size: what one piece unfolds to is not made before it is asked for.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = self.poll(cx);
        self.is_done = matches!(polled, Poll::Ready(None | Some(Err(_))));
        if let (Poll::Ready(Some(Err(BodyError::Coding(failure)))), Some(of)) = (&polled, &self.of)
            && *failure != Failure::Encoder
        {
            // Who comes next gets it as it is.
            of.set_undecodable();
        }
        polled
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let transcoder = match &mut self.transcoder {
            Ok(transcoder) => transcoder,
            Err(failure) => return Poll::Ready(Some(Err((*failure).into()))),
        };
        loop {
            if self.spent >= TURN {
                self.spent = Duration::ZERO;
                return after_the_others(cx);
            }
            let began = Instant::now();
            let step = transcoder.step();
            self.spent += began.elapsed();
            match step {
                Ok(Step::Piece(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(Step::More) => continue,
                Ok(Step::Hungry) if self.has_ended => return Poll::Ready(None),
                Ok(Step::Hungry) => {}
                Err(failure) => return Poll::Ready(Some(Err(failure.into()))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    self.has_ended = true;
                    transcoder.end();
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        transcoder.feed(data);
                    }
                }
            }
        }
    }
}

/// Has the task polled again when all that are ready have been, sockets looked at among them.
fn after_the_others<T>(cx: &mut Context<'_>) -> Poll<T> {
    // Waking it would do for the tasks, but not for the sockets, which the runtime looks at once in many polls.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
    Poll::Pending
}
