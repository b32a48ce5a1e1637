//! How often is a key asked for? A count-min sketch with ageing (`TinyLFU`: Einziger, Friedman,
//! Manes, 2017), which lets the memory tier compare a newcomer with what it would push out.

use crate::rules::key::KeyHash;

const ROWS: usize = 4;
const MAX_COUNT: u8 = 15;
/// Additions for each entry of the list before every count is halved; the next time after half as many,
/// since half of them are forgotten too. Fewer leave counts of one or two to choose by, more keep up with
/// changes too slowly. Counted by entries and not by counters: else old favourites and new ones would both
/// stand at the highest count for long, and the old ones would stay.
const SAMPLE_FACTOR: usize = 30;
/// Shorter lists are taken to be as long as this.
const MIN_ENTRIES: usize = 16;

/// Approximate counts, at most 15, never too low since the last ageing.
#[derive(Debug)]
pub(super) struct Sketch {
    counters: Box<[u8]>,
    mask: usize,
    additions: usize,
}

impl Sketch {
    /// A sketch for about `keys` keys: 4 bytes a key, in powers of two.
    pub(super) fn new(keys: usize) -> Self {
        let width = keys.clamp(1024, 1 << 20).next_power_of_two();
        Self { counters: vec![0; width * ROWS].into(), mask: width - 1, additions: 0 }
    }

    /// Counts one request; `entries` is how long the list is.
    pub(super) fn record(&mut self, key: KeyHash, entries: usize) {
        for slot in self.slots(key) {
            let counter = &mut self.counters[slot];
            *counter = (*counter + 1).min(MAX_COUNT);
        }
        self.additions += 1;
        if self.additions >= entries.max(MIN_ENTRIES) * SAMPLE_FACTOR {
            self.additions /= 2;
            self.counters.iter_mut().for_each(|c| *c /= 2);
        }
    }

    /// How often the key was asked for lately.
    pub(super) fn estimate(&self, key: KeyHash) -> u8 {
        self.slots(key).map(|slot| self.counters[slot]).min().unwrap_or(0)
    }

    /// The key is a hash already: each row takes 32 bits of it.
    fn slots(&self, key: KeyHash) -> impl Iterator<Item = usize> + use<> {
        let mask = self.mask;
        (0..ROWS).map(move |row| row * (mask + 1) + ((key.0 >> (32 * row)) as u32 as usize & mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_ages() {
        let mut sketch = Sketch::new(1024);
        let key = KeyHash(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        for _ in 0..6 {
            sketch.record(key, 1000);
        }
        assert_eq!(sketch.estimate(key), 6);
        assert_eq!(sketch.estimate(KeyHash(42)), 0);
        // A short list ages at once: 480 additions are reached with these.
        for i in 0..474 {
            sketch.record(KeyHash(1 << 40 | i), 1);
        }
        assert_eq!(sketch.estimate(key), 3);
    }
}
