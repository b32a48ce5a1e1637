//! The bold sentences of the design's part on the store, and bounds.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::*;

/// A clock behind the newest version makes everything stale, and leaves the windows of RFC 5861.
#[test]
fn a_clock_that_went_back_makes_everything_stale() {
    let rig = Rig::open(&SimDisk::new(1), 8 * MIB).unwrap();
    rig.store.versions.resume(rig.store.version() + (3_600_000 << 16));
    assert!(rig.fill(1, "a", 1, 1_000, true));
    let rig = Rig::open(&rig.close(), 8 * MIB).unwrap();
    let entry = rig.wait(rig.store.load(&key(1))).unwrap();
    let now = Clock::start().now();
    let freshness = &entry.variants()[0].head.freshness;
    assert_ne!(freshness.state(now), crate::rules::freshness::State::Fresh);
    assert!(freshness.may_serve_on_error(now));
}

/// "Every record carries a version ...; the highest version of a key wins", in memory and after a start,
/// whichever fill ends last.
#[test]
fn the_fetch_that_began_last_wins() {
    let rig = Rig::open(&SimDisk::new(1), 8 * MIB).unwrap();
    let first = rig.store.version();
    assert!(rig.fill(1, "a", 2, 1_000, true));
    rig.forget_memory();
    rig.wait(rig.fill_from(first, (1, "a"), 1, 1_000, true));
    assert_eq!(rig.look(1)[0].id, 2);
    let rig = Rig::open(&rig.close(), 8 * MIB).unwrap();
    assert_eq!(rig.look(1)[0].id, 2);
}

/// "A written byte is never overwritten": a reader of an evicted segment sees what it saw; ids never come
/// back; what readers hold counts, and gives way when its room is needed.
#[test]
fn an_evicted_segment_is_its_readers_until_its_room_is_needed() {
    let rig = Rig::open(&SimDisk::new(1), 6 * MIB).unwrap();
    assert!(rig.fill(1, "a", 1, 600_000, true));
    let held = rig.wait(rig.store.load(&key(1))).unwrap().variants()[0].clone();
    rig.forget_memory();
    let mut ids = BTreeSet::from([held.body.parts()[0].place().0]);
    for n in 2..14 {
        assert!(rig.fill(n, "a", u64::from(n), 600_000, true), "{n}");
        rig.forget_memory();
        ids.extend(Disk::list(&rig.disk).unwrap().iter().map(|(id, _)| *id));
        assert!(rig.tier().shared.file_bytes() <= 6 * MIB);
        assert!(rig.see(&held).is_readable, "there is room for others");
    }
    assert!(rig.look(1).is_empty() && rig.tier().shared.given_up_bytes() > 0);
    assert!(ids.len() >= 8, "no number is used twice: {ids:?}");
    let more = (2..14).filter_map(|n| Some(rig.wait(rig.store.load(&key(n)))?.variants()[0].clone()));
    let mut held: Vec<Arc<Object>> = std::iter::once(held).chain(more).collect();
    let (oldest, done) = (held[0].body.parts()[0].pages().segment(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // As connections do.
        let readers = scope.spawn(|| {
            while !done.load(SeqCst) {
                held.retain(|object| !object.body.parts()[0].pages().is_revoked());
                std::thread::sleep(Duration::from_millis(1));
            }
            held.iter().all(|object| object.body.parts()[0].pages().segment() != oldest)
        });
        for n in 20..25 {
            assert!(rig.fill(n, "a", u64::from(n), 600_000, true), "the oldest readers are ended: {n}");
            rig.forget_memory();
            assert!(rig.tier().shared.file_bytes() <= 6 * MIB);
        }
        done.store(true, SeqCst);
        assert!(readers.join().unwrap());
    });
    drop(held);
    rig.check_accounts(KEYS);
}

/// "The permit is taken before the work", and memory is given back.
#[test]
fn memory_returns_to_where_it_was() {
    for rig in [Rig::open(&SimDisk::new(1), 4 * MIB).unwrap(), Rig::in_memory(16 * MIB)] {
        for n in 0..30 {
            rig.fill(n, "a", u64::from(n), 1_000 + 17_000 * n as usize, n % 2 == 0);
            rig.fill(n, "b", u64::from(n) + 100, 20_000, true);
        }
        // One that breaks off.
        let mut broken = rig.store.deposit(key(50).hash(), Some(900_000)).unwrap();
        assert!(rig.wait(broken.push(&Bytes::from(vec![0; 500_000]))).is_some());
        drop(broken);
        KEYS.for_each(|n| rig.remove(n));
        rig.forget_memory();
        rig.settle_files();
        let shared = &rig.tier().shared;
        let log = if rig.tier().is_persistent() { 0 } else { shared.file_bytes() };
        until("all is given back", || rig.store.stats().charged_bytes == log);
        assert_eq!(rig.tier().promised.load(std::sync::atomic::Ordering::Relaxed), 0);
        assert!(rig.tier().pending.lock().is_empty());
    }
}

/// "A thread that dies fails its flights visibly": nobody waits for a writer that has ended.
#[test]
fn a_fill_does_not_wait_for_a_writer_that_has_ended() {
    let rig = Rig::open(&SimDisk::new(1), 8 * MIB).unwrap();
    assert!(rig.fill(1, "a", 1, 1_000, true));
    let mut begun = rig.store.deposit(key(2).hash(), Some(500_000)).unwrap();
    assert!(rig.wait(begun.push(&Bytes::from(vec![0; 200_000]))).is_some());
    rig.wait(rig.store.close());
    until("the writer ends", || rig.tier().queue.is_closed());
    assert!(rig.wait(begun.complete()).is_none());
    assert!(!rig.fill(3, "a", 3, 500_000, true));
    // Newer than what is on disk, and not written: that is not to be found any more.
    assert!(rig.fill(1, "a", 4, 1_000, true));
    rig.store.budget.memory.evict(None, u64::MAX);
    assert!(rig.look(1).is_empty());
    assert!(rig.tier().pending.lock().is_empty());
}

/// The writer holds the tier; the store's end is its end.
#[test]
fn a_dropped_store_ends_its_writer() {
    let rig = Rig::open(&SimDisk::new(1), 8 * MIB).unwrap();
    assert!(rig.fill(1, "a", 1, 500_000, true));
    let tier = Arc::downgrade(rig.tier());
    drop(rig);
    until("the tier is gone", || tier.upgrade().is_none());
}

/// Whatever chunks a body came in, its parts are whole pages from their begin to their end.
#[test]
fn parts_are_cut_exactly() {
    for rig in [Rig::open(&SimDisk::new(1), 8 * MIB).unwrap(), Rig::in_memory(16 * MIB)] {
        for is_sized in [true, false] {
            assert!(rig.fill(1, "a", 1, 700_000, is_sized));
            let entry = rig.wait(rig.store.load(&key(1))).unwrap();
            let body = &entry.variants()[0].body;
            let lengths: Vec<u32> = body.parts().iter().map(|part| part.place().1.length).collect();
            assert_eq!(lengths, [262_144, 262_144, 175_712], "sized: {is_sized}");
        }
    }
}

/// What memory has no room for is served from where it lies, under a renewed head, too.
#[test]
fn without_room_in_memory_bodies_stay_on_disk() {
    let rig = Rig::open(&SimDisk::new(1), 8 * MIB).unwrap();
    for (n, length) in [(1, 100), (2, 10_000), (3, INLINE as usize)] {
        assert!(rig.fill(n, "a", u64::from(n), length, true));
    }
    let rig = Rig::open(&rig.close(), 8 * MIB).unwrap();
    for n in 1..4 {
        let load = || rig.wait(rig.store.load(&key(n))).unwrap().variants()[0].clone();
        let loaded = load();
        assert!(loaded.body.parts().is_empty() && loaded.tier() == "memory" && rig.see(&loaded).is_readable);
        rig.forget_memory();
        let full = rig.full_memory();
        let found = load();
        assert_eq!(found.body.parts().len(), 1, "{n}");
        assert_eq!((found.tier(), found.body.len()), ("disk", loaded.body.len()));
        assert!(rig.see(&found).is_readable);
        // Renewed, it is found in the frame of its first head.
        let mut head = head(n, "a", u64::from(n), rig.store.version());
        head.generation = found.head.generation;
        rig.store.refresh(Arc::new(found.renewed(Arc::new(head), rig.store.gauge())), MAX_VARIANTS);
        drop(full);
        rig.forget_memory();
        let renewed = load();
        assert!(rig.see(&renewed).is_readable);
        assert_eq!(renewed.body.parts()[0].place(), found.body.parts()[0].place());
    }
}
