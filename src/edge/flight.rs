//! A flight: one fetch from the origin and everybody who waits for it.
//!
//! The fetch runs in a task of its own and *publishes* what it learns: the head and then chunk after
//! chunk, or that there is nothing to share. Followers read at their own pace from the start, also
//! those that come late. Chunks of a stored fill are all kept (their room is reserved); of a fill
//! that lost its room only a window is kept, paced by the fastest follower.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::body::BodyError;
use crate::object::{Head, Object};
use crate::origin::OriginError;
use crate::rules::storable::NotStored;

/// Bytes kept of a fill that is not stored.
pub(super) const WINDOW_BYTES: u64 = 1024 * 1024;

/// What a flight came to.
#[derive(Clone, Debug)]
pub(super) enum Published {
    /// A response for all whose Vary matches; the body follows.
    Streaming(Arc<Head>),
    /// The stored response was confirmed by a 304.
    Refreshed(Arc<Object>),
    /// The origin failed; the stored response may be served stale.
    Stale { object: Arc<Object>, fwd_status: Option<u16> },
    /// Not to be shared; the leader has it, the others go on their own.
    Unshared,
    /// No answer.
    Failed(Arc<OriginError>),
    /// The fetch's task ended without a word.
    Aborted,
}

/// Why an answer is not shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unshared {
    /// It must not be stored.
    NotStored(NotStored),
    /// It is larger than the store takes, or the store has no room.
    TooLarge,
}

impl Unshared {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NotStored(reason) => reason.as_str(),
            Self::TooLarge => "too-large",
        }
    }
}

/// How the body ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    Complete,
    Broken(Arc<str>),
}

#[derive(Debug, Default)]
struct State {
    published: Option<Published>,
    chunks: VecDeque<Bytes>,
    /// Offset of the end of each chunk.
    ends: VecDeque<u64>,
    received: u64,
    end: Option<End>,
    /// Set when the fill lost its room.
    is_windowed: bool,
    /// How far the fastest follower is.
    furthest: u64,
    followers: usize,
    waiters: Vec<Option<Waker>>,
    leader: Option<Waker>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Held for moments, by the fetch for each chunk and by each follower for each chunk.
    state: Mutex<State>,
}

impl Flight {
    /// Publishes what the flight came to; the first word counts.
    pub(super) fn publish(&self, published: Published) {
        let waiters = {
            let mut state = self.state.lock();
            if state.published.is_some() {
                return;
            }
            state.published = Some(published);
            take_waiters(&mut state)
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    /// Adds a chunk for the followers.
    pub(super) fn push(&self, chunk: Bytes) {
        let waiters = {
            let mut state = self.state.lock();
            state.received += chunk.len() as u64;
            let end = state.received;
            state.chunks.push_back(chunk);
            state.ends.push_back(end);
            if state.is_windowed {
                drop_behind_window(&mut state);
            }
            take_waiters(&mut state)
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    /// Ends the body.
    pub(super) fn finish(&self, end: End) {
        let waiters = {
            let mut state = self.state.lock();
            state.end.get_or_insert(end);
            take_waiters(&mut state)
        };
        waiters.into_iter().for_each(Waker::wake);
    }

    /// From now on only a window is kept.
    pub(super) fn keep_window_only(&self) {
        let mut state = self.state.lock();
        state.is_windowed = true;
        drop_behind_window(&mut state);
    }

    /// All chunks so far.
    pub(super) fn chunks(&self) -> Vec<Bytes> {
        self.state.lock().chunks.iter().cloned().collect()
    }

    /// For a windowed fill: ready when the fastest follower is within the window; false when nobody
    /// follows any more.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state.lock();
        if state.followers == 0 {
            return Poll::Ready(false);
        }
        if state.received.saturating_sub(state.furthest) < WINDOW_BYTES {
            return Poll::Ready(true);
        }
        state.leader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits for what the flight comes to.
    pub(super) async fn published(self: &Arc<Self>) -> Published {
        let mut ticket = Ticket { flight: self.clone(), index: None };
        std::future::poll_fn(|cx| {
            let mut state = ticket.flight.state.lock();
            if let Some(published) = &state.published {
                return Poll::Ready(published.clone());
            }
            wait(&mut state, &mut ticket.index, cx);
            Poll::Pending
        })
        .await
    }

    /// Follows the body from `range.start` to `range.end` (`None`: its end, wherever that is).
    pub(super) fn follow(self: &Arc<Self>, start: u64, end: Option<u64>) -> Follower {
        self.state.lock().followers += 1;
        Follower { ticket: Ticket { flight: self.clone(), index: None }, next: start, end, done: false }
    }
}

fn take_waiters(state: &mut State) -> Vec<Waker> {
    state.waiters.iter_mut().filter_map(Option::take).collect()
}

fn wait(state: &mut State, index: &mut Option<usize>, cx: &Context<'_>) {
    match *index {
        Some(index) => state.waiters[index] = Some(cx.waker().clone()),
        None => {
            *index = Some(state.waiters.len());
            state.waiters.push(Some(cx.waker().clone()));
        }
    }
}

fn drop_behind_window(state: &mut State) {
    while let Some(end) = state.ends.front() {
        if state.received - end < WINDOW_BYTES {
            return;
        }
        state.chunks.pop_front();
        state.ends.pop_front();
    }
}

/// A place among the waiters of a flight.
#[derive(Debug)]
struct Ticket {
    flight: Arc<Flight>,
    index: Option<usize>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            self.flight.state.lock().waiters[index] = None;
        }
    }
}

/// One reader of a flight's body.
#[derive(Debug)]
pub(super) struct Follower {
    ticket: Ticket,
    next: u64,
    end: Option<u64>,
    done: bool,
}

impl Follower {
    pub(super) fn is_done(&self) -> bool {
        self.done || self.end == Some(self.next)
    }

    /// Bytes left, when that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.end.map(|end| end - self.next)
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.is_done() {
            return Poll::Ready(None);
        }
        let mut state = self.ticket.flight.state.lock();
        if self.next < state.received {
            return Poll::Ready(Some(match slice(&state, self.next..self.end.unwrap_or(u64::MAX)) {
                Some(chunk) => {
                    self.next += chunk.len() as u64;
                    state.furthest = state.furthest.max(self.next);
                    let leader = state.leader.take();
                    drop(state);
                    if let Some(leader) = leader {
                        leader.wake();
                    }
                    Ok(chunk)
                }
                None => {
                    self.done = true;
                    Err(BodyError::OutOfWindow)
                }
            }));
        }
        match &state.end {
            None => {
                wait(&mut state, &mut self.ticket.index, cx);
                Poll::Pending
            }
            Some(end) => {
                self.done = true;
                Poll::Ready(match end {
                    // A known length that was not reached is a broken body, whatever the end says.
                    End::Complete if self.end.is_none() => None,
                    End::Complete => Some(Err(BodyError::Flight("the body is too short".into()))),
                    End::Broken(why) => Some(Err(BodyError::Flight(why.clone()))),
                })
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let leader = {
            let mut state = self.ticket.flight.state.lock();
            state.followers -= 1;
            state.leader.take()
        };
        if let Some(leader) = leader {
            leader.wake();
        }
    }
}

/// What is there at the start of `wanted`; `None`: it has fallen out of the window.
fn slice(state: &State, wanted: Range<u64>) -> Option<Bytes> {
    let index = state.ends.partition_point(|end| *end <= wanted.start);
    let chunk = state.chunks.get(index)?;
    let chunk_start = state.ends[index] - chunk.len() as u64;
    let from = wanted.start.checked_sub(chunk_start)? as usize;
    let to = (wanted.end - chunk_start).min(chunk.len() as u64) as usize;
    Some(chunk.slice(from..to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn read(follower: &mut Follower) -> Option<Result<Bytes, BodyError>> {
        poll_fn(|cx| follower.poll_next(cx)).await
    }

    #[tokio::test]
    async fn a_late_follower_reads_from_the_start_and_a_range_its_part() {
        let flight = Arc::new(Flight::default());
        flight.push(Bytes::from_static(b"hello "));
        flight.push(Bytes::from_static(b"world"));
        let mut late = flight.follow(0, None);
        let mut range = flight.follow(3, Some(8));
        assert_eq!(read(&mut late).await.unwrap().unwrap(), "hello ");
        assert_eq!(read(&mut range).await.unwrap().unwrap(), "lo ");
        assert_eq!(read(&mut range).await.unwrap().unwrap(), "wo");
        assert!(read(&mut range).await.is_none());
        flight.finish(End::Complete);
        assert_eq!(read(&mut late).await.unwrap().unwrap(), "world");
        assert!(read(&mut late).await.is_none());
    }

    #[tokio::test]
    async fn a_broken_or_short_body_never_ends_cleanly() {
        let flight = Arc::new(Flight::default());
        flight.push(Bytes::from_static(b"abc"));
        let mut open = flight.follow(0, None);
        flight.finish(End::Broken("gone".into()));
        assert!(read(&mut open).await.unwrap().is_ok());
        assert!(read(&mut open).await.unwrap().is_err());
        let short = Arc::new(Flight::default());
        let mut known = short.follow(0, Some(5));
        short.push(Bytes::from_static(b"abc"));
        short.finish(End::Complete);
        assert!(read(&mut known).await.unwrap().is_ok());
        assert!(read(&mut known).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_window_is_paced_by_the_fastest_and_leaves_the_slowest_behind() {
        let flight = Arc::new(Flight::default());
        flight.keep_window_only();
        let mut fast = flight.follow(0, None);
        let mut slow = flight.follow(0, None);
        let chunk = Bytes::from(vec![7; WINDOW_BYTES as usize / 2]);
        for _ in 0..4 {
            assert!(poll_fn(|cx| flight.poll_room(cx)).await);
            flight.push(chunk.clone());
            assert!(read(&mut fast).await.unwrap().is_ok());
        }
        assert!(matches!(read(&mut slow).await, Some(Err(BodyError::OutOfWindow))));
        drop((fast, slow));
        assert!(!poll_fn(|cx| flight.poll_room(cx)).await);
    }
}
