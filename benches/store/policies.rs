//! The policies that the store is compared with, on sizes alone: LRU and S3-FIFO.

use std::collections::{HashMap, HashSet, VecDeque};

use lru::LruCache;

/// A cache that only counts.
pub trait Policy {
    /// Asks for an object and keeps it; whether it was there.
    fn ask(&mut self, id: u32, bytes: u64) -> bool;
}

/// Least recently used goes first.
pub struct Lru {
    list: LruCache<u32, u64>,
    bytes: u64,
    capacity: u64,
}

impl Lru {
    pub fn new(capacity: u64) -> Self {
        Self { list: LruCache::unbounded(), bytes: 0, capacity }
    }
}

impl Policy for Lru {
    fn ask(&mut self, id: u32, bytes: u64) -> bool {
        if self.list.get(&id).is_some() {
            return true;
        }
        self.list.push(id, bytes);
        self.bytes += bytes;
        while self.bytes > self.capacity {
            let Some((_, gone)) = self.list.pop_lru() else { break };
            self.bytes -= gone;
        }
        false
    }
}

/// Yang et al., SOSP 2023, with the sizes of libCacheSim: a tenth for newcomers, who enter the main queue after two more
/// requests, or when they come back while a ghost of nine tenths of the capacity remembers them.
pub struct S3Fifo {
    small: VecDeque<(u32, u64)>,
    main: VecDeque<(u32, u64)>,
    ghost: VecDeque<(u32, u64)>,
    ghosts: HashSet<u32>,
    asked: HashMap<u32, u8>,
    small_bytes: u64,
    main_bytes: u64,
    ghost_bytes: u64,
    capacity: u64,
}

impl S3Fifo {
    pub fn new(capacity: u64) -> Self {
        Self {
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghost: VecDeque::new(),
            ghosts: HashSet::new(),
            asked: HashMap::new(),
            small_bytes: 0,
            main_bytes: 0,
            ghost_bytes: 0,
            capacity,
        }
    }

    fn evict(&mut self) {
        if self.small_bytes > self.capacity / 10 || self.main.is_empty() {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self) {
        while let Some((id, bytes)) = self.small.pop_front() {
            self.small_bytes -= bytes;
            if self.asked.get(&id).is_some_and(|asked| *asked >= 2) {
                self.main.push_back((id, bytes));
                self.main_bytes += bytes;
                continue;
            }
            self.asked.remove(&id);
            self.ghosts.insert(id);
            self.ghost.push_back((id, bytes));
            self.ghost_bytes += bytes;
            while self.ghost_bytes > self.capacity / 10 * 9 {
                let Some((id, bytes)) = self.ghost.pop_front() else { break };
                self.ghost_bytes -= bytes;
                self.ghosts.remove(&id);
            }
            return;
        }
    }

    fn evict_main(&mut self) {
        while let Some((id, bytes)) = self.main.pop_front() {
            let asked = self.asked.entry(id).or_default();
            if *asked == 0 {
                self.asked.remove(&id);
                self.main_bytes -= bytes;
                return;
            }
            *asked -= 1;
            self.main.push_back((id, bytes));
        }
    }
}

impl Policy for S3Fifo {
    fn ask(&mut self, id: u32, bytes: u64) -> bool {
        if let Some(asked) = self.asked.get_mut(&id) {
            *asked = (*asked + 1).min(3);
            return true;
        }
        while self.small_bytes + self.main_bytes + bytes > self.capacity
            && !(self.small.is_empty() && self.main.is_empty())
        {
            self.evict();
        }
        self.asked.insert(id, 0);
        if self.ghosts.remove(&id) {
            self.main.push_back((id, bytes));
            self.main_bytes += bytes;
        } else {
            self.small.push_back((id, bytes));
            self.small_bytes += bytes;
        }
        false
    }
}
