//! Loads, fills, removals and invalidations at the same time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use super::*;

/// What was invalidated, removed or replaced is not found by anybody who looks later, whatever is being
/// read, written or evicted meanwhile.
#[test]
fn a_loaded_entry_never_replaces_a_newer_one() {
    let rig = Rig::open(&SimDisk::new(1), 4 * MIB).unwrap();
    rig.disk.set_cold(true);
    let (rounds, done) = (seeds(300), AtomicBool::new(false));
    let newest: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
    let store = &rig.store;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                while !done.load(SeqCst) {
                    for n in 0..4 {
                        let least = newest[n as usize].load(SeqCst);
                        let Some(entry) = runtime.block_on(store.load(&key(n))) else { continue };
                        let object = &entry.variants()[0];
                        let id = identity(object).1;
                        assert!(id >= least, "key {n}: {id} is older than {least}");
                        if let Some(bytes) = runtime.block_on(read(&object.body)) {
                            assert!(bytes == content(id, object.body.len() as usize));
                        }
                    }
                    store.budget.memory.evict(None, u64::MAX);
                }
            });
        }
        for round in rounds {
            let (n, id) = (round as u32 % 4, round + 1);
            let length = if round % 3 == 0 { 90_000 } else { 900 };
            if rig.fill(n, "a", id, length, true) {
                newest[n as usize].store(id, SeqCst);
            }
            match round % 5 {
                3 => {
                    store.invalidate(&key(n));
                    if let Some(entry) = rig.wait(store.load(&key(n))) {
                        assert!(entry.variants()[0].is_invalidated(), "round {round}");
                    }
                }
                4 => {
                    rig.remove(n);
                    newest[n as usize].store(id + 1, SeqCst);
                    assert!(rig.look(n).is_empty(), "round {round}");
                }
                _ => {}
            }
        }
        done.store(true, SeqCst);
    });
    rig.disk.set_cold(false);
    rig.check_accounts(0..4);
}

/// An object that is marked and replaced by its copy at the same time leaves the mark behind: in memory, in what is
/// written, and in what the next process finds.
#[test]
fn a_copy_that_takes_an_objects_place_has_its_mark() {
    let rig = Rig::open(&SimDisk::new(3), 4 * MIB).unwrap();
    let (store, gate) = (&rig.store, std::sync::Barrier::new(2));
    let rounds = if cfg!(miri) { 10 } else { 400 };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                gate.wait();
                // From before the copy to behind it, as the dice fall.
                for _ in 0..round % 40 * 8 {
                    std::hint::spin_loop();
                }
                store.invalidate(&key(1));
                gate.wait();
            }
        });
        for round in 0..rounds {
            assert!(rig.fill(1, "a", round + 1, 900, true));
            let old = store.get(&key(1)).unwrap().variants()[0].clone();
            let copy = Arc::new(old.renewed(old.head.clone(), store.gauge()));
            gate.wait();
            assert!(store.replace(&old, copy), "nobody else replaces it");
            gate.wait();
            assert!(store.get(&key(1)).unwrap().variants()[0].is_invalidated(), "round {round}");
            if round % 20 == 0 {
                rig.forget_memory();
                assert!(rig.look(1)[0].is_invalidated, "round {round}, from disk");
            }
        }
    });
    let disk = rig.close();
    let rig = Rig::open(&disk, 4 * MIB).unwrap();
    assert!(rig.look(1)[0].is_invalidated, "in the next process");
}
