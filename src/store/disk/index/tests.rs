use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// As a request's key is made: spread over all shards.
fn key(n: u64) -> KeyHash {
    KeyHash::of(&n.to_string())
}

fn fill(index: &Index, keys: std::ops::Range<u64>) {
    for n in keys {
        index.insert(key(n), found(n as u32));
    }
}

fn found(n: u32) -> Found {
    let location = Location { slot: n as u16, offset: n.wrapping_mul(UNIT_BYTES) };
    Found { location, length: (n % 1000) * 64, asked: 0, must_revalidate: false }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u128, Found),
    Remove(u128),
    RemoveAt(u128, Location),
    Ask(u128),
    Mark(u128),
    Reserve(usize),
    Clear,
}

/// Few keys in two shards, in a few dense places: probes are long, wrap around the end, and tables grow and shrink.
fn crowded_key() -> impl Strategy<Value = u128> {
    let place = prop_oneof![Just(0), Just(1_u64 << 63), Just(u64::MAX - 64), any::<u64>()];
    (0..2_u128, place, 0..64_u64)
        .prop_map(|(shard, place, n)| shard << (128 - SHARD_BITS) | u128::from((place & !63) + n))
}

fn location() -> impl Strategy<Value = Location> {
    (0..4_u16, 0..4_u32).prop_map(|(slot, n)| Location { slot, offset: n * UNIT_BYTES })
}

fn op() -> impl Strategy<Value = Op> {
    let found = (location(), 0..100_u32, 0..=7_u8, any::<bool>()).prop_map(
        |(location, n, asked, must_revalidate)| Found { location, length: n * 64, asked, must_revalidate },
    );
    prop_oneof![
        60 => (crowded_key(), found).prop_map(|(key, found)| Op::Insert(key, found)),
        40 => crowded_key().prop_map(Op::Remove),
        10 => (crowded_key(), location()).prop_map(|(key, location)| Op::RemoveAt(key, location)),
        10 => crowded_key().prop_map(Op::Ask),
        10 => crowded_key().prop_map(Op::Mark),
        1 => (0..10_000_usize).prop_map(Op::Reserve),
        1 => Just(Op::Clear),
    ]
}

proptest! {
    #[test]
    fn it_does_what_a_map_does(ops in prop::collection::vec(op(), 1..1500)) {
        let index = Index::new();
        let mut model: HashMap<u128, Found> = HashMap::new();
        // The reserved fingerprint is taken for its neighbour's.
        let canonical = |key: u128| if key as u64 == 0 { key + 1 } else { key };
        for op in ops {
            match op {
                Op::Insert(key, found) => {
                    prop_assert_eq!(index.insert(KeyHash(key), found), model.insert(canonical(key), found));
                }
                Op::Remove(key) => {
                    prop_assert_eq!(index.remove(KeyHash(key)), model.remove(&canonical(key)));
                }
                Op::RemoveAt(key, location) => {
                    let stands = model.get(&canonical(key)).is_some_and(|found| found.location == location);
                    let expected = stands.then(|| model.remove(&canonical(key))).flatten();
                    prop_assert_eq!(index.remove_at(KeyHash(key), location), expected);
                }
                Op::Ask(key) => {
                    index.ask(KeyHash(key));
                    model.entry(canonical(key)).and_modify(|found| found.asked = (found.asked + 1).min(7));
                }
                Op::Mark(key) => {
                    let entry = model.get_mut(&canonical(key));
                    prop_assert_eq!(index.mark_must_revalidate(KeyHash(key)), entry.is_some());
                    if let Some(found) = entry {
                        found.must_revalidate = true;
                    }
                }
                Op::Reserve(n) => index.reserve(n),
                Op::Clear => {
                    index.clear();
                    model.clear();
                }
            }
        }
        prop_assert_eq!(index.len(), model.len() as u64);
        for (key, found) in model {
            prop_assert_eq!(index.get(KeyHash(key)), Some(found));
        }
    }

    #[test]
    fn a_length_is_rounded_up_a_little(length: u32) {
        let said = unpack_length(pack_length(length));
        prop_assert!(said >= length);
        let multiple = u64::from(length).next_multiple_of(64);
        prop_assert!(u64::from(said) - length as u64 <= 63 + multiple / 4096);
        prop_assert_eq!(pack_length(said), pack_length(length), "rounding twice adds nothing");
    }

    #[test]
    fn a_slot_says_what_was_put_in(slot: u16, unit in 0..1_u32 << 26, asked in 0..=7_u8, must_revalidate: bool) {
        let location = Location { slot, offset: unit * UNIT_BYTES };
        let found = Found { location, length: 4096, asked, must_revalidate };
        let slot = Slot { fingerprint: 1, record: AtomicU64::new(pack(found)) };
        prop_assert_eq!(slot.found(), found);
    }
}

#[test]
fn small_lengths_are_exact_in_steps_of_64_and_the_largest_fits() {
    for units in 0..8192 {
        assert_eq!(unpack_length(pack_length(units * 64)), units * 64);
    }
    assert_eq!(unpack_length(pack_length(1)), 64);
    assert_eq!(unpack_length(pack_length(u32::MAX)), u32::MAX);
}

#[test]
fn a_slot_is_16_bytes_and_a_shard_a_cache_line() {
    assert_eq!(size_of::<Slot>(), 16);
    assert_eq!(size_of::<Shard>(), 64);
}

#[test]
fn counts_and_marks_are_kept_when_the_table_grows_and_go_when_the_record_is_replaced() {
    let index = Index::new();
    let first = KeyHash(5);
    index.insert(first, found(1));
    (0..20).for_each(|_| index.ask(first));
    assert!(index.mark_must_revalidate(first));
    for n in 6..1000 {
        index.insert(KeyHash(n), found(2));
    }
    assert_eq!(index.get(first), Some(Found { asked: 7, must_revalidate: true, ..found(1) }));
    assert_eq!(index.insert(first, found(3)).map(|old| old.asked), Some(7));
    assert_eq!(index.get(first), Some(found(3)));
}

#[test]
fn keys_that_meet_in_one_position_are_kept_apart() {
    let index = Index::new();
    // The largest fingerprints: all have the last slot as their home, and wrap around.
    let crowd: Vec<KeyHash> = (0..500).map(|n| KeyHash(u128::from(u64::MAX - n))).collect();
    for (n, key) in (0..).zip(&crowd) {
        assert_eq!(index.insert(*key, found(n)), None);
    }
    for (n, key) in (0..).zip(&crowd).filter(|(n, _)| n % 3 != 0) {
        assert_eq!(index.remove(*key), Some(found(n)));
    }
    for (n, key) in (0..).zip(&crowd) {
        assert_eq!(index.get(*key), (n % 3 == 0).then(|| found(n)));
    }
}

#[test]
fn one_key_costs_at_most_48_bytes_whatever_their_number() {
    const MOST: u64 = 200_000;
    let index = Index::new();
    let check = |index: &Index, doing: &str| {
        let (len, bytes) = (index.len(), index.bytes());
        assert!(bytes <= 48 * len, "{doing}: {bytes} bytes for {len} keys");
    };
    for n in 0..MOST {
        index.insert(key(n), found(n as u32));
        if n >= 10_000 && n % 500 == 0 {
            check(&index, "growing");
        }
    }
    for n in 0..MOST - 10_000 {
        index.remove(key(n));
        if n % 500 == 0 {
            check(&index, "shrinking");
        }
    }
    for n in [10_000, 12_345, 30_000, 77_777, 100_000, 200_000] {
        index.clear();
        index.reserve(n as usize);
        fill(&index, 0..n);
        check(&index, "after a recovery");
    }
}

#[test]
fn what_is_reserved_does_not_grow() {
    let index = Index::new();
    index.reserve(100_000);
    let bytes = index.bytes();
    fill(&index, 0..50_000);
    assert_eq!(index.bytes(), bytes);
}

#[test]
fn an_empty_index_has_no_slots() {
    let index = Index::new();
    let bytes = index.bytes();
    assert_eq!(index.remove(key(1)), None);
    assert!(!index.mark_must_revalidate(key(1)));
    fill(&index, 0..1000);
    index.clear();
    assert_eq!((index.len(), index.bytes(), index.get(key(1))), (0, bytes, None));
}

/// Would wait for ever if any of them wanted the lock for writing.
#[test]
fn reading_counting_and_marking_go_on_beside_a_reader() {
    let index = Index::new();
    index.insert(key(1), found(1));
    let guard = index.shard(key(1)).read();
    let (done, is_done) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            index.ask(key(1));
            let marked = index.mark_must_revalidate(key(1));
            done.send((marked, index.get(key(1)))).unwrap();
        });
        let result = is_done.recv_timeout(Duration::from_secs(60));
        drop(guard);
        let expected = Found { asked: 1, must_revalidate: true, ..found(1) };
        assert_eq!(result, Ok((true, Some(expected))));
    });
}

#[test]
fn readers_find_every_key_that_stays_while_a_writer_works() {
    const STAYING: u64 = 2_000;
    let index = Index::new();
    let is_over = AtomicBool::new(false);
    let mut removed_all = true;
    fill(&index, 0..STAYING);
    let read = |first: u64| {
        let mut n = first;
        while !is_over.load(Relaxed) {
            n = (n + 7) % (2 * STAYING);
            index.ask(key(n));
            let seen = index.get(key(n)).map(|found| found.location);
            let expected = found(n as u32).location;
            assert!(seen == Some(expected) || n >= STAYING && seen.is_none(), "{n}: {seen:?}");
        }
    };
    thread::scope(|scope| {
        for reader in 0..3 {
            scope.spawn(move || read(reader));
        }
        for round in 0..10 {
            let coming = STAYING..STAYING * if round % 2 == 0 { 2 } else { 20 };
            fill(&index, coming.clone());
            fill(&index, 0..STAYING);
            removed_all &= coming.map(|n| index.remove(key(n))).all(|removed| removed.is_some());
        }
        is_over.store(true, Relaxed);
    });
    assert!(removed_all);
    assert_eq!(index.len(), STAYING);
}
