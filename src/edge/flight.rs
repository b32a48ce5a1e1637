//! A flight: one fetch from the origin and everybody who waits for it.
//!
//! The fetch runs in a task of its own and *publishes* what it learns: the head and then chunk after
//! chunk, or that there is nothing to share. Followers read at their own pace from the start, also
//! those that come late. Chunks of a small stored fill are all kept (their room is reserved); those of
//! a larger one until they are written to the log, from where they are read then. A fill that is not
//! stored keeps only what a follower still needs: its fetch waits for the slowest, for a while, then
//! leaves behind who is more than a window behind the fastest.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::body::BodyError;
use super::slices::Sliced;
use crate::object::{Growing, Head, Object, PartReader};
use crate::origin::OriginError;
use crate::rules::storable::NotStored;

/// How far the fetch of a fill that is not stored may be ahead of its slowest follower. Not charged to
/// the budget: with the origin connection's buffer it is the overhead of a fetch.
pub(super) const WINDOW_BYTES: u64 = 64 * 1024;

/// What a flight came to.
#[derive(Clone, Debug)]
pub(super) enum Published {
    /// A response for all whose Vary matches; the body follows. Whether it is stored, as far as is known.
    Streaming(Arc<Head>, bool),
    /// It is so large that slices of it are fetched.
    Sliced(Sliced),
    /// The stored response was confirmed by a 304.
    Refreshed(Arc<Object>),
    /// It was on disk: nothing is fetched.
    Stored(Arc<Object>),
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
    /// What is written to the log can be read from there.
    stored: Option<Arc<Growing>>,
    /// Set when the fill lost its room.
    is_windowed: bool,
    readers: Vec<Slot>,
    free: Vec<usize>,
    /// How many readers are where; there are few places, since all read the same chunks.
    positions: BTreeMap<u64, usize>,
    /// Waits for room in the window.
    leader: Option<Waker>,
}

/// One who waits for the head or reads the body.
#[derive(Debug, Default)]
struct Slot {
    waker: Option<Waker>,
    /// What it needs from here on; `None`: nothing, it has left or was left behind.
    position: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// Held for moments, by the fetch for each chunk and by each follower for each chunk.
    state: Mutex<State>,
    /// The last purge that was applied before the origin was asked.
    as_of: u64,
    /// What is fetched was changed after the origin was asked; see [`super::collapse::Collapse::outdate`].
    pub(super) is_outdated: AtomicBool,
}

impl Flight {
    /// A flight whose origin is asked now; `as_of` is the last purge that is applied.
    pub(super) fn new(as_of: u64) -> Self {
        Self { as_of, ..Self::default() }
    }

    /// The last purge that was applied before the origin was asked.
    pub(super) fn as_of(&self) -> u64 {
        self.as_of
    }

    /// The head of the response, once it is known.
    pub(super) fn head(&self) -> Option<Arc<Head>> {
        match &self.state.lock().published {
            Some(Published::Streaming(head, _)) => Some(head.clone()),
            Some(Published::Refreshed(object)) => Some(object.head.clone()),
            _ => None,
        }
    }

    /// Publishes what the flight came to; the first word counts.
    pub(super) fn publish(&self, published: Published) {
        self.change(|state| _ = state.published.get_or_insert(published));
    }

    /// How many wait for it or read from it.
    pub(super) fn readers(&self) -> usize {
        self.state.lock().positions.values().sum()
    }

    /// Adds a chunk for the followers.
    pub(super) fn push(&self, chunk: Bytes) {
        self.change(|state| {
            state.received += chunk.len() as u64;
            let end = state.received;
            state.chunks.push_back(chunk);
            state.ends.push_back(end);
            state.drop_what_all_have();
        });
    }

    /// Ends the body.
    pub(super) fn finish(&self, end: End) {
        self.change(|state| _ = state.end.get_or_insert(end));
    }

    /// From now on only what a follower still needs is kept.
    pub(super) fn keep_window_only(&self) {
        self.change(|state| {
            state.is_windowed = true;
            state.drop_what_all_have();
        });
    }

    /// What is written to the log is read from there: forgets the chunks of it.
    pub(super) fn release(&self, stored: &Arc<Growing>) {
        let written = stored.written();
        let mut state = self.state.lock();
        state.stored.get_or_insert_with(|| stored.clone());
        while state.ends.front().is_some_and(|end| *end <= written) {
            state.chunks.pop_front();
            state.ends.pop_front();
        }
    }

    /// Changes the state and wakes everybody.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let wakers: Vec<Waker> = {
            let mut state = self.state.lock();
            change(&mut state);
            state.readers.iter_mut().filter_map(|slot| slot.waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// For a windowed fill: ready when the slowest follower is within the window; false when nobody
    /// follows any more.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state.lock();
        if state.has_room() {
            return Poll::Ready(state.slowest().is_some());
        }
        state.leader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Leaves behind who is more than a window behind the fastest.
    pub(super) fn leave_laggards_behind(&self) {
        self.change(|state| {
            let fastest = state.positions.last_key_value().map_or(0, |(position, _)| *position);
            let fastest = fastest.min(state.received);
            for index in 0..state.readers.len() {
                let position = state.readers[index].position;
                state.place(index, position.filter(|position| position + WINDOW_BYTES > fastest));
            }
            state.drop_what_all_have();
        });
    }

    /// Joins the flight, before it is known what it comes to; everything is kept for who joined.
    pub(super) fn join(self: &Arc<Self>) -> Reader {
        self.reader(0)
    }

    /// Follows the body from `start` to `end` (`None`: its end, wherever that is).
    pub(super) fn follow(self: &Arc<Self>, start: u64, end: Option<u64>) -> Follower {
        Follower { reader: self.reader(start), next: start, end, done: false, parts: PartReader::default() }
    }

    fn reader(self: &Arc<Self>, position: u64) -> Reader {
        let mut state = self.state.lock();
        let index = state.free.pop().unwrap_or_else(|| {
            state.readers.push(Slot::default());
            state.readers.len() - 1
        });
        state.place(index, Some(position));
        Reader { flight: self.clone(), index }
    }
}

impl State {
    fn slowest(&self) -> Option<u64> {
        self.positions.keys().next().copied()
    }

    /// Whether the fetch of a windowed fill may go on: nobody is there, or nobody far behind.
    fn has_room(&self) -> bool {
        self.slowest().is_none_or(|slowest| self.received.saturating_sub(slowest) < WINDOW_BYTES)
    }

    /// Notes what a reader needs from now on.
    fn place(&mut self, index: usize, position: Option<u64>) {
        let old = std::mem::replace(&mut self.readers[index].position, position);
        if let Some(position) = position {
            *self.positions.entry(position).or_default() += 1;
        }
        if let Some(old) = old
            && let Some(count) = self.positions.get_mut(&old)
        {
            *count -= 1;
            if *count == 0 {
                self.positions.remove(&old);
            }
        }
    }

    /// The fetch that waits, when there is room for it now.
    fn leader_with_room(&mut self) -> Option<Waker> {
        if self.has_room() { self.leader.take() } else { None }
    }

    fn drop_what_all_have(&mut self) {
        if !self.is_windowed {
            return;
        }
        let needed_from = self.slowest().unwrap_or(u64::MAX);
        while self.ends.front().is_some_and(|end| *end <= needed_from) {
            self.chunks.pop_front();
            self.ends.pop_front();
        }
    }
}

/// A place among those who wait or read; given back on drop.
#[derive(Debug)]
pub(super) struct Reader {
    flight: Arc<Flight>,
    index: usize,
}

impl Reader {
    /// Waits for what the flight comes to.
    pub(super) async fn published(&self) -> Published {
        std::future::poll_fn(|cx| {
            let mut state = self.flight.state.lock();
            match &state.published {
                Some(published) => Poll::Ready(published.clone()),
                None => {
                    state.readers[self.index].waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let leader = {
            let mut state = self.flight.state.lock();
            state.place(self.index, None);
            state.readers[self.index].waker = None;
            state.free.push(self.index);
            state.leader_with_room()
        };
        if let Some(leader) = leader {
            leader.wake();
        }
    }
}

/// One reader of a flight's body.
#[derive(Debug)]
pub(super) struct Follower {
    reader: Reader,
    next: u64,
    end: Option<u64>,
    done: bool,
    parts: PartReader,
}

impl Follower {
    pub(super) fn is_done(&self) -> bool {
        self.done || self.end == Some(self.next)
    }

    /// Bytes left, when that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.end.map(|end| end - self.next)
    }

    /// Notes what was read, and wakes a fetch that waits for that.
    fn advance(&mut self, mut state: MutexGuard<'_, State>, bytes: usize) {
        self.next += bytes as u64;
        let index = self.reader.index;
        let position = state.readers[index].position.map(|_| self.next);
        state.place(index, position);
        state.drop_what_all_have();
        let leader = state.leader_with_room();
        drop(state);
        if let Some(leader) = leader {
            leader.wake();
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.is_done() {
            return Poll::Ready(None);
        }
        let flight = self.reader.flight.clone();
        let mut state = flight.state.lock();
        let wanted = self.next..self.end.unwrap_or(u64::MAX);
        if self.next < state.received {
            if let Some(chunk) = slice(&state, &wanted) {
                self.advance(state, chunk.len());
                return Poll::Ready(Some(Ok(chunk)));
            }
            let part = state.stored.as_ref().and_then(|stored| stored.part_at(self.next));
            drop(state);
            let read = match part {
                Some(part) => ready!(self.parts.poll_slice(cx, &part, &wanted)).map_err(BodyError::from),
                None => Err(BodyError::OutOfWindow),
            };
            match &read {
                Ok(chunk) => self.advance(flight.state.lock(), chunk.len()),
                Err(_) => self.done = true,
            }
            return Poll::Ready(Some(read));
        }
        match &state.end {
            None => {
                state.readers[self.reader.index].waker = Some(cx.waker().clone());
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

/// What is there at the start of `wanted`; `None`: it has fallen out of the window.
fn slice(state: &State, wanted: &Range<u64>) -> Option<Bytes> {
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

    async fn room(flight: &Flight) -> bool {
        poll_fn(|cx| flight.poll_room(cx)).await
    }

    fn has_room_now(flight: &Flight) -> bool {
        let waker = std::task::Waker::noop();
        flight.poll_room(&mut Context::from_waker(waker)).is_ready()
    }

    #[tokio::test]
    async fn a_window_waits_for_the_slowest_until_it_is_left_behind() {
        let flight = Arc::new(Flight::default());
        flight.keep_window_only();
        let mut fast = flight.follow(0, None);
        let mut slow = flight.follow(0, None);
        let chunk = Bytes::from(vec![7; WINDOW_BYTES as usize / 2]);
        for _ in 0..2 {
            assert!(room(&flight).await);
            flight.push(chunk.clone());
            assert!(read(&mut fast).await.unwrap().is_ok());
        }
        assert!(!has_room_now(&flight), "the slow one has read nothing");
        flight.leave_laggards_behind();
        assert!(room(&flight).await);
        assert!(matches!(read(&mut slow).await, Some(Err(BodyError::OutOfWindow))));
        flight.push(chunk.clone());
        assert!(read(&mut fast).await.unwrap().is_ok());
        drop((fast, slow));
        assert!(!room(&flight).await, "nobody is left");
    }

    #[tokio::test]
    async fn a_single_slow_follower_of_a_window_gets_everything() {
        let flight = Arc::new(Flight::default());
        let chunk = Bytes::from(vec![7; WINDOW_BYTES as usize * 3]);
        flight.push(chunk.clone());
        let mut only = flight.follow(0, None);
        flight.keep_window_only();
        flight.leave_laggards_behind();
        assert!(!has_room_now(&flight));
        assert_eq!(read(&mut only).await.unwrap().unwrap().len(), chunk.len());
        assert!(room(&flight).await);
    }

    #[tokio::test]
    async fn a_range_far_ahead_does_not_hold_a_window_up() {
        let flight = Arc::new(Flight::default());
        flight.keep_window_only();
        let mut ahead = flight.follow(10 * WINDOW_BYTES, Some(10 * WINDOW_BYTES + 1));
        for _ in 0..11 {
            assert!(room(&flight).await);
            flight.push(Bytes::from(vec![7; WINDOW_BYTES as usize]));
        }
        assert_eq!(read(&mut ahead).await.unwrap().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn who_has_joined_is_waited_for() {
        let flight = Arc::new(Flight::default());
        let joined = flight.join();
        flight.keep_window_only();
        assert!(has_room_now(&flight), "somebody is there");
        flight.push(Bytes::from_static(b"abc"));
        flight.publish(Published::Unshared);
        assert!(matches!(joined.published().await, Published::Unshared));
        let mut follower = flight.follow(0, Some(3));
        drop(joined);
        assert_eq!(read(&mut follower).await.unwrap().unwrap(), "abc");
    }
}
