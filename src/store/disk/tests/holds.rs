//! What is held stays, however much comes after it.

use super::*;
use crate::store::Hold;

const HELD: u32 = 20;
const FOREVER: Hold = Hold { until: Millis::MAX, job: 1, as_of: 0 };

/// Keys from 0 on are held, of bodies of such a length; others come, several times what the store takes.
fn flood(rig: &Rig, held: impl Fn(u32) -> usize) {
    for n in 0..HELD {
        assert!(rig.store.hold(&key(n), FOREVER));
        assert!(rig.fill(n, "a", u64::from(n) + 1, held(n), true));
        rig.wait(rig.store.write_out(&key(n)));
        assert!(rig.wait(rig.store.look_at_hold(&key(n))).is_ok(), "{n}");
    }
    for n in 1000..2500 {
        rig.fill(n, "a", u64::from(n), 40_000, true);
        // Their parts wait in the queue, which turns others away meanwhile.
        if n % 50 == 0 {
            rig.settle();
        }
    }
    rig.settle_files();
}

fn assert_all_there(rig: &Rig) {
    rig.forget_memory();
    for n in 0..HELD {
        let seen = rig.look(n);
        assert!(seen.len() == 1 && seen[0].is_readable, "{n}: {seen:?}");
    }
    assert!(rig.look(1000).is_empty(), "the others went");
    assert!(rig.tier().shared.file_bytes() <= rig.tier().limits.capacity());
}

#[test]
fn what_is_held_outlives_floods_and_restarts() {
    // Small bodies lie in their response's frame, large ones in parts of their own; together almost half.
    for length in [20_000, 180_000] {
        let rig = Rig::open(&SimDisk::new(1), 8 * MIB).unwrap();
        flood(&rig, |_| length);
        assert_all_there(&rig);
        let counters = rig.tier().stats().counters;
        assert!(counters.evicted_segments > 20, "{counters:?}");
        // Holds are the process's; the records are where the last one left them.
        let disk = rig.close();
        let rig = Rig::open(&disk, 8 * MIB).unwrap();
        assert_all_there(&rig);
    }
}

#[test]
fn holds_beyond_half_are_refused_and_evicted() {
    let rig = Rig::open(&SimDisk::new(1), 8 * MIB).unwrap();
    let mut held = 0;
    for n in 0..40 {
        rig.store.hold(&key(n), FOREVER);
        rig.fill(n, "a", u64::from(n) + 1, 200_000, true);
        rig.settle();
        held += u64::from(rig.wait(rig.store.look_at_hold(&key(n))).is_ok());
    }
    let bytes = held * 200_000;
    assert!((3 * MIB..=4 * MIB).contains(&bytes), "{held} of them, {bytes} bytes");
    for n in 1000..1500 {
        rig.fill(n, "a", u64::from(n), 40_000, true);
    }
    rig.forget_memory();
    let kept = (0..40).filter(|n| rig.look(*n).first().is_some_and(|seen| seen.is_readable)).count();
    assert_eq!(kept as u64, held);
}
