//! A shard of the memory tier: a window, a main list, and how often keys are asked for. The module `memory` tells what
//! enters which; room that other shards have to give is not known here.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use lru::LruCache;

use super::Entry;
use super::admission::Sketch;
use super::holds::Holds;
use crate::rules::key::KeyHash;

/// The window's share of a shard.
pub(super) const WINDOW_DIVISOR: u64 = 20;
/// What an average object is taken to weigh when the sketch is sized.
const TYPICAL_OBJECT_BYTES: u64 = 2048;

/// The key is a cryptographic hash already; hashing it again would be waste.
#[derive(Default)]
struct TakeLow64(u64);

impl Hasher for TakeLow64 {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

struct Node {
    entry: Arc<Entry>,
    weight: u64,
    /// The job that warmed it.
    job: Option<u64>,
}

type List = LruCache<KeyHash, Node, BuildHasherDefault<TakeLow64>>;

pub(super) struct Shard {
    window: List,
    main: List,
    pub(super) window_bytes: u64,
    pub(super) main_bytes: u64,
    window_capacity: u64,
    sketch: Sketch,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Entries that were pushed out, the newcomer itself included.
    pub(super) evicted: u64,
    /// Whether the entry was kept.
    pub(super) kept: bool,
}

impl Shard {
    pub(super) fn new(share: u64) -> Self {
        let list = || LruCache::unbounded_with_hasher(BuildHasherDefault::default());
        Self {
            window: list(),
            main: list(),
            window_bytes: 0,
            main_bytes: 0,
            window_capacity: share / WINDOW_DIVISOR,
            sketch: Sketch::new((share / TYPICAL_OBJECT_BYTES) as usize),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.window_bytes + self.main_bytes
    }

    #[inline]
    pub(super) fn peek(&self, key: KeyHash) -> Option<&Arc<Entry>> {
        self.main.peek(&key).or_else(|| self.window.peek(&key)).map(|node| &node.entry)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = KeyHash> {
        self.main.iter().chain(self.window.iter()).map(|(key, _)| *key)
    }

    pub(super) fn len(&self) -> usize {
        self.window.len() + self.main.len()
    }

    /// Requests lately for a key that is here, without its fill.
    pub(super) fn asked(&self, key: KeyHash) -> u8 {
        self.peek(key).map_or(0, |_| self.sketch.estimate(key).saturating_sub(1))
    }

    pub(super) fn touch(&mut self, key: KeyHash) {
        let entries = self.len();
        self.sketch.record(key, entries);
        if self.main.get(&key).is_none() {
            self.window.promote(&key);
        }
    }

    pub(super) fn remove(&mut self, key: KeyHash) {
        self.take(key);
    }

    fn take(&mut self, key: KeyHash) -> Option<Node> {
        if let Some(node) = self.main.pop(&key) {
            self.main_bytes -= node.weight;
            return Some(node);
        }
        let node = self.window.pop(&key)?;
        self.window_bytes -= node.weight;
        Some(node)
    }

    /// Stores what a job warms; room is made by the caller.
    pub(super) fn insert_for(&mut self, job: u64, key: KeyHash, entry: Arc<Entry>) -> Outcome {
        // What is there only changes its place, and nobody asked for it.
        if self.take(key).is_none() {
            let entries = self.len();
            self.sketch.record(key, entries);
        }
        let weight = entry.weight();
        self.main.push(key, Node { entry, weight, job: Some(job) });
        self.main_bytes += weight;
        Outcome { evicted: 0, kept: true }
    }

    /// Stores an entry; `free` is what all main lists together have left.
    pub(super) fn insert(&mut self, key: KeyHash, entry: Arc<Entry>, free: u64, holds: &Holds) -> Outcome {
        let entries = self.len();
        self.sketch.record(key, entries);
        let weight = entry.weight();
        let in_main = self.main.contains(&key);
        // What the main list may hold without those of the other shards giving way.
        let limit = self.main_bytes + free;
        let job = self.take(key).and_then(|old| old.job);
        let mut outcome = Outcome::default();
        if in_main {
            self.main.push(key, Node { entry, weight, job });
            self.main_bytes += weight;
        } else {
            self.window.push(key, Node { entry, weight, job });
            self.window_bytes += weight;
            while self.window_bytes > self.window_capacity {
                let Some((candidate, node)) = self.window.pop_lru() else { break };
                self.window_bytes -= node.weight;
                outcome.evicted += self.admit(candidate, node, limit, holds);
            }
        }
        outcome.kept = self.peek(key).is_some();
        outcome
    }

    /// Moves what left the window to the main list if it earns its place; returns how many left.
    fn admit(&mut self, key: KeyHash, node: Node, limit: u64, holds: &Holds) -> u64 {
        let need = (self.main_bytes + node.weight).saturating_sub(limit);
        let (mut victims, mut bytes, mut asked) = (0, 0, 0u64);
        for (victim, victim_node) in self.main.iter().rev() {
            if bytes >= need {
                break;
            }
            if holds.keeps(&victim_node.entry, victim_node.weight) {
                continue;
            }
            victims += 1;
            bytes += victim_node.weight;
            asked += u64::from(self.sketch.estimate(*victim));
        }
        // It has to be asked for more than all of them together. Requests a byte would let a small object
        // that was asked for once push out a large one that is asked for often, and the room that is left
        // over then takes whatever comes next. Without victims here the other shards give way: an empty
        // shard says nothing of what its newcomer is worth.
        let earns = u64::from(self.sketch.estimate(key)) > asked;
        if victims > 0 && !earns && !holds.keeps(&node.entry, node.weight) {
            return 1;
        }
        for _ in 0..victims {
            if let Some(victim) = pop_unheld(&mut self.main, holds, None) {
                self.main_bytes -= victim.weight;
            }
        }
        self.main_bytes += node.weight;
        self.main.push(key, node);
        victims
    }

    /// Drops the least recently used of the main list, else of the window, but nothing of a job; returns its bytes.
    pub(super) fn evict_one(&mut self, holds: &Holds, spared: Option<u64>) -> Option<u64> {
        if let Some(node) = pop_unheld(&mut self.main, holds, spared) {
            self.main_bytes -= node.weight;
            return Some(node.weight);
        }
        let node = pop_unheld(&mut self.window, holds, spared)?;
        self.window_bytes -= node.weight;
        Some(node.weight)
    }
}

/// Takes the least recently used entry that is neither held nor of a job; such ones on the way to it count as just used.
fn pop_unheld(list: &mut List, holds: &Holds, spared: Option<u64>) -> Option<Node> {
    for _ in 0..list.len() {
        let (key, node) = list.pop_lru()?;
        let is_spared = spared.is_some() && node.job == spared;
        if !is_spared && !holds.keeps(&node.entry, node.weight) {
            return Some(node);
        }
        list.push(key, node);
    }
    None
}
