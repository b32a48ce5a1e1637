//! A model of a collapse: clients, fetches and their ends, in any order of steps.
//!
//! Every lock of a flight or of the map is taken for one step and let go of; so tasks that yield between steps, polled in
//! every order by one thread and only when they were woken, come to every state that threads can bring about. What must
//! hold: no task is left that nobody will wake, one fetch at a time, and nobody takes a part for the whole.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::collapse::{Collapse, Join, Lead};
use super::flight::{End, Flight, Published, WINDOW_BYTES};
use crate::object::Head;
use crate::rules::freshness::Freshness;
use crate::rules::key::{CacheKey, KeyHash, Scheme};
use crate::rules::time::Millis;
use crate::rules::vary::VaryRule;

const KEY: KeyHash = KeyHash(7);
const CHUNKS: usize = 4;
/// Two of them are more than a window.
const CHUNK_BYTES: usize = WINDOW_BYTES as usize / 2 + 1;

/// How a fetch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Stored,
    /// Through a window; the slow may be left behind.
    Windowed,
    Unshared,
    /// Its task is gone after so many steps: a panic, a runtime that ends.
    Dies(usize),
}

/// What a client came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    Whole,
    /// Word of a body that broke off.
    Broken,
    /// From the store.
    Hit,
    /// On its own.
    Alone,
    /// It left before.
    Left,
}

struct World {
    collapse: Arc<Collapse>,
    stored: Cell<bool>,
    /// Fetches that others may follow.
    leading: Cell<usize>,
    scripts: RefCell<Vec<Script>>,
    spawned: RefCell<Vec<Task>>,
    came: RefCell<Vec<Option<Came>>>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
    /// Dropped after so many polls.
    polls_left: usize,
}

impl Task {
    fn new(polls_left: usize, future: impl Future<Output = ()> + 'static) -> Self {
        Self { future: Box::pin(future), woken: Arc::new(Woken(AtomicBool::new(true))), polls_left }
    }
}

async fn step() {
    let mut is_second = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_second, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// One fetch at a time: from the right to fetch to the end of it.
struct Leading(Rc<World>, bool);

impl Leading {
    fn begin(world: &Rc<World>) -> Self {
        assert!(!world.stored.get(), "what is stored is fetched");
        world.leading.set(world.leading.get() + 1);
        assert_eq!(world.leading.get(), 1, "two fetches at once");
        Self(world.clone(), true)
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.1, false) {
            self.0.leading.set(self.0.leading.get() - 1);
        }
    }
}

impl Drop for Leading {
    fn drop(&mut self) {
        self.end();
    }
}

pub(super) fn head() -> Arc<Head> {
    let rule = VaryRule::new(Vec::new());
    let variant = rule.key(&HeaderMap::new());
    let freshness = Freshness {
        response_time: Millis(0),
        initial_age_ms: 0,
        fresh_until: Millis(1),
        swr_until: Millis(1),
        sie_until: Millis(1),
        no_cache: false,
        never_stale: false,
        source: "max-age",
        strip_fields: Box::default(),
    };
    let key = CacheKey::new(Scheme::Http, "a.example", "/", None);
    Arc::new(Head::new(key, StatusCode::OK, HeaderMap::new(), (rule, variant), freshness))
}

async fn has_room(flight: &Flight, patience: usize) -> bool {
    for _ in 0..patience {
        let room = poll_fn(|cx| match flight.poll_room(cx) {
            Poll::Ready(room) => Poll::Ready(Some(room)),
            Poll::Pending => Poll::Ready(None),
        });
        match room.await {
            Some(room) => return room,
            None => step().await,
        }
    }
    flight.leave_laggards_behind();
    poll_fn(|cx| flight.poll_room(cx)).await
}

/// What `Fill` does to a flight. A lead that is dropped takes its flight off the map; the count goes first.
async fn fill(lead: Lead, mut leading: Leading, script: Script) {
    let (world, mut lead) = (leading.0.clone(), lead);
    let flight = lead.flight.clone();
    step().await;
    if script == Script::Unshared {
        leading.end();
        lead.leave();
        step().await;
        return flight.publish(Published::Unshared);
    }
    flight.publish(Published::Streaming(head(), script == Script::Stored));
    step().await;
    if script == Script::Windowed {
        flight.keep_window_only();
    }
    for chunk in 0..CHUNKS {
        step().await;
        if script == Script::Windowed && !has_room(&flight, chunk).await {
            return flight.finish(End::Broken("nobody is left".into()));
        }
        flight.push(Bytes::from(vec![chunk as u8; CHUNK_BYTES]));
    }
    step().await;
    if script == Script::Stored {
        world.stored.set(true);
        step().await;
    }
    leading.end();
    lead.leave();
    step().await;
    flight.finish(End::Complete);
}

/// What `Edge::fetch` does.
async fn ask(world: &Rc<World>) -> Came {
    loop {
        step().await;
        let found = || world.stored.get().then_some(());
        let joined = world.collapse.join(KEY, &HeaderMap::new(), 0, |_| false, found);
        let Ok(join) = joined else { return Came::Hit };
        let (reader, flight, is_leader) = match join {
            Join::Follow(reader, flight) => (reader, flight, false),
            Join::Lead(lead) => {
                let leading = Leading::begin(world);
                let script = world.scripts.borrow_mut().pop().unwrap_or(Script::Stored);
                let flight = lead.flight.clone();
                let reader = flight.join();
                let polls = if let Script::Dies(polls) = script { polls } else { usize::MAX };
                world.spawned.borrow_mut().push(Task::new(polls, fill(lead, leading, script)));
                (reader, flight, true)
            }
        };
        step().await;
        match reader.published().await {
            Published::Streaming(..) => {}
            Published::Unshared if is_leader => return Came::Alone,
            _ => continue,
        }
        step().await;
        let mut follower = flight.follow(0, None);
        drop(reader);
        let mut read = Vec::new();
        loop {
            step().await;
            match poll_fn(|cx| follower.poll_next(cx)).await {
                Some(Ok(data)) => read.extend_from_slice(&data),
                Some(Err(_)) => return Came::Broken,
                None => break,
            }
        }
        let whole: Vec<u8> = (0..CHUNKS).flat_map(|chunk| vec![chunk as u8; CHUNK_BYTES]).collect();
        assert!(read == whole, "a part was taken for the whole");
        return Came::Whole;
    }
}

/// Polls what was woken in this order, then in turn, until nothing is; whatever is left would wait for ever.
fn run(scripts: Vec<Script>, leave_after: &[usize], invalidations: usize, order: &[usize]) -> Vec<Came> {
    let world = Rc::new(World {
        collapse: Collapse::new(),
        stored: Cell::new(false),
        leading: Cell::new(0),
        scripts: RefCell::new(scripts),
        spawned: RefCell::default(),
        came: RefCell::new(vec![None; leave_after.len()]),
    });
    let mut tasks: Vec<Task> = Vec::new();
    for (id, polls) in leave_after.iter().enumerate() {
        let world = world.clone();
        tasks.push(Task::new(*polls, async move {
            let came = ask(&world).await;
            world.came.borrow_mut()[id] = Some(came);
        }));
    }
    for turn in 0..invalidations {
        let world = world.clone();
        tasks.push(Task::new(usize::MAX, async move {
            for _ in 0..turn * 7 {
                step().await;
            }
            world.stored.set(false);
        }));
    }
    let mut order = order.iter();
    loop {
        let woken: Vec<usize> = (0..tasks.len()).filter(|i| tasks[*i].woken.0.load(SeqCst)).collect();
        if woken.is_empty() {
            break;
        }
        let index = woken[order.next().unwrap_or(&0) % woken.len()];
        let task = &mut tasks[index];
        task.woken.0.store(false, SeqCst);
        let waker = Waker::from(task.woken.clone());
        let is_gone = task.polls_left == 0;
        task.polls_left = task.polls_left.saturating_sub(1);
        if is_gone || task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            drop(tasks.swap_remove(index));
        }
        tasks.append(&mut world.spawned.borrow_mut());
    }
    assert!(tasks.is_empty(), "{} tasks wait for ever", tasks.len());
    assert_eq!(world.collapse.in_flight(), 0);
    let came = world.came.borrow();
    came.iter().map(|came| came.unwrap_or(Came::Left)).collect()
}

fn any_script() -> impl Strategy<Value = Script> {
    prop_oneof![
        Just(Script::Stored),
        Just(Script::Windowed),
        Just(Script::Unshared),
        (0..14_usize).prop_map(Script::Dies),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn nobody_is_left_behind(
        scripts in prop::collection::vec(any_script(), 0..5),
        leave_after in prop::collection::vec(prop_oneof![3 => Just(usize::MAX), 1 => 0..20_usize], 1..6),
        invalidations in 0..3_usize,
        order in prop::collection::vec(0..64_usize, 0..300),
    ) {
        let came = run(scripts.clone(), &leave_after, invalidations, &order);
        for (came, leaves) in came.iter().zip(&leave_after) {
            prop_assert!(*came != Came::Left || *leaves != usize::MAX, "a client got no answer");
        }
        // Without trouble nobody hears of any.
        if scripts.iter().all(|script| *script == Script::Stored) {
            prop_assert!(came.iter().all(|came| !matches!(came, Came::Broken | Came::Alone)));
        }
    }
}

#[test]
fn the_model_reaches_every_end() {
    let last = |script| run(vec![script], &[usize::MAX, usize::MAX], 0, &[]);
    assert_eq!(last(Script::Stored), [Came::Whole, Came::Whole]);
    assert_eq!(last(Script::Windowed)[0], Came::Whole);
    assert!(last(Script::Unshared).contains(&Came::Alone));
    assert!(last(Script::Dies(4)).contains(&Came::Broken));
    assert_eq!(run(vec![], &[usize::MAX, 3], 0, &[]), [Came::Whole, Came::Left]);
}
