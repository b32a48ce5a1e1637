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
                    store.budget.memory.evict(u64::MAX);
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
