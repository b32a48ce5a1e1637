//! A body that is decoded or encoded on its way to one client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;

use super::body::{Body, BodyError};
use crate::encode::{Failure, LiveTurn, Transcoder};

/// See the module.
#[derive(Debug)]
pub(super) struct Coded {
    body: Body,
    transcoder: Result<Transcoder, Failure>,
    has_ended: bool,
    is_done: bool,
    _turn: Option<LiveTurn>,
}

impl Coded {
    pub(super) fn new(body: Body, transcoder: Result<Transcoder, Failure>, turn: Option<LiveTurn>) -> Self {
        Self { body, transcoder, has_ended: false, is_done: false, _turn: turn }
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// The next piece, of bounded size: what one piece unfolds to is not made before it is asked for.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let polled = self.poll(cx);
        self.is_done = matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let transcoder = match &mut self.transcoder {
            Ok(transcoder) => transcoder,
            Err(failure) => return Poll::Ready(Some(Err((*failure).into()))),
        };
        loop {
            match transcoder.next_piece() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if self.has_ended => return Poll::Ready(None),
                Ok(None) => {}
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
