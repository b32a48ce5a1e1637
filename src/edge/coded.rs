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
    turn: Option<LiveTurn>,
}

impl Coded {
    pub(super) fn new(
        body: Body,
        transcoder: Result<Transcoder, Failure>,
        turn: Option<LiveTurn>,
        of: Option<Arc<Encodings>>,
    ) -> Self {
        Self { body, transcoder, has_ended: false, is_done: false, spent: Duration::ZERO, of, turn }
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
            // Who comes next is told that it can't be had otherwise.
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
            let took = began.elapsed();
            self.spent += took;
            if let Some(turn) = &self.turn {
                turn.took(took);
            }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;
    use crate::encode::Level;
    use crate::rules::encoding::Coding;

    const MOST: u64 = 64 << 20;

    fn coded(bytes: Vec<u8>, from: Coding, to: Coding, of: Option<Arc<Encodings>>) -> Coded {
        let transcoder = Transcoder::new(from, to, Level::Fast, None, MOST);
        Coded::new(Body::bytes(bytes.into()), transcoder, None, of)
    }

    async fn all(mut coded: Coded) -> Result<Vec<u8>, BodyError> {
        let mut out = Vec::new();
        while let Some(piece) = poll_fn(|cx| coded.poll_next(cx)).await {
            out.extend_from_slice(&piece?);
        }
        Ok(out)
    }

    #[tokio::test]
    async fn others_have_their_turn_while_a_large_body_is_encoded() {
        let text: Vec<u8> =
            (0..200_000_u32).flat_map(|n| format!("{:x} ", n.wrapping_mul(7919)).into_bytes()).collect();
        let turns = Arc::new(AtomicU32::new(0));
        let counted = turns.clone();
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let mut before = 0;
        for (from, to) in [(Coding::Identity, Coding::Gzip), (Coding::Gzip, Coding::Zstd)] {
            let encoded = all(coded(text.clone(), Coding::Identity, from, None)).await.unwrap();
            let out = all(coded(encoded, from, to, None)).await.unwrap();
            assert!(all(coded(out, to, Coding::Identity, None)).await.unwrap() == text);
            let now = turns.load(Relaxed);
            assert!(now > before + 10, "{now}");
            before = now;
        }
        other.abort();
    }

    #[tokio::test]
    async fn what_can_not_be_decoded_is_noted() {
        let encodings = Arc::new(Encodings::default());
        let junk =
            || coded(b"no gzip at all".to_vec(), Coding::Gzip, Coding::Identity, Some(encodings.clone()));
        assert!(!encodings.is_undecodable());
        assert!(matches!(all(junk()).await, Err(BodyError::Coding(Failure::Malformed))));
        assert!(encodings.is_undecodable());
    }
}
