//! Power loss and a killed process, at every change of the disk.

use super::*;

/// What is known of a run that ended in the middle of a step.
struct Stopped {
    /// Before and after the step during which it ended.
    before: Model,
    after: Model,
}

fn stop_in_the_middle(disk: &SimDisk, bytes: u64, steps: &[Step], at: u64) -> Stopped {
    disk.stop_at(at);
    let mut before = Model::default();
    let Ok(mut rig) = Rig::open(disk, bytes) else { return Stopped { after: before.clone(), before } };
    let mut after = before.clone();
    for step in steps {
        if matches!(step, Reopen) {
            rig.wait(rig.store.close());
            drop(rig);
            match Rig::open(disk, bytes) {
                Ok(opened) => rig = opened,
                Err(_) => return Stopped { before, after },
            }
        }
        before.clone_from(&after);
        // What the process would have done, had it gone on: a fill that fails now is not stored.
        let mut intended = after.clone();
        if let Fill(n, variant, ..) = step {
            let id = intended.next_id + 1;
            intended.now.entry(*n).or_default().insert((*variant).to_owned(), (id, false));
        }
        after.step(&rig, *step);
        if rig.is_stopped() {
            intended.ever = after.ever.clone();
            let after = if matches!(step, Fill(..)) { intended } else { after };
            return Stopped { before, after };
        }
    }
    Stopped { before, after }
}

fn operations(bytes: u64, steps: &[Step]) -> u64 {
    let disk = SimDisk::new(0);
    let (rig, _) = run(&disk, bytes, steps);
    rig.close().operations()
}

/// A store that works on.
fn check_that_it_works(rig: &Rig) {
    rig.check_accounts(KEYS);
    assert!(rig.fill(30, "a", 1_000_000, 400_000, true) && rig.fill(31, "a", 1_000_001, 400, true));
    rig.forget_memory();
    for n in [30, 31] {
        assert!(rig.look(n).iter().any(|seen| seen.id >= 1_000_000 && seen.is_readable));
    }
    rig.check_accounts(KEYS);
}

fn kill_everywhere(bytes: u64, steps: &[Step], step_by: usize) {
    for at in (0..operations(bytes, steps)).step_by(step_by) {
        let disk = SimDisk::new(at);
        let Stopped { before, after } = stop_in_the_middle(&disk, bytes, steps, at);
        let rig = Rig::open(&disk.kill(), bytes).unwrap();
        for n in KEYS {
            let seen = rig.look(n);
            after.check_newest(n, &seen, &[&before, &after]);
            assert!(seen.iter().all(|seen| seen.is_readable), "stopped at {at}: {seen:?}");
        }
        check_that_it_works(&rig);
    }
}

fn crash_everywhere(bytes: u64, steps: &[Step], step_by: usize, crashes: u64) {
    for at in (0..operations(bytes, steps)).step_by(step_by) {
        let disk = SimDisk::new(at);
        let Stopped { after, .. } = stop_in_the_middle(&disk, bytes, steps, at);
        for seed in seeds(crashes) {
            let rig = Rig::open(&disk.crash(seed), bytes).unwrap();
            KEYS.for_each(|n| after.check_ever(n, &rig.look(n)));
            check_that_it_works(&rig);
        }
    }
}

#[test]
fn a_killed_process_leaves_the_newest_of_everything() {
    kill_everywhere(8 * MIB, &small_workload(), stride(3));
}

#[test]
fn a_killed_process_that_evicted_leaves_nothing_outdated() {
    kill_everywhere(4 * MIB, &large_workload(), stride(11));
}

/// "Sealed means: data synced, then footer, then synced."
#[test]
fn a_loss_of_power_leaves_only_what_was_stored_once() {
    crash_everywhere(8 * MIB, &small_workload(), stride(4), 1);
}

#[test]
fn a_loss_of_power_during_eviction_leaves_only_what_was_stored_once() {
    crash_everywhere(4 * MIB, &large_workload(), stride(13), 1);
}

/// A tombstone is younger than what it speaks of, and must not go before that.
#[test]
fn what_was_removed_stays_removed_when_the_tombstone_is_all_that_its_segment_has() {
    let bytes = 4 * MIB;
    let rig = Rig::open(&SimDisk::new(3), bytes).unwrap();
    assert!(rig.fill(1, "a", 1, 700_000, true) && rig.fill(2, "a", 2, 700_000, true));
    rig.remove(1);
    for n in 10..30 {
        assert!(rig.fill(n, "a", u64::from(n), 40_000, true));
        rig.remove(n);
    }
    // One after the other, segments are needed.
    for n in 30..40 {
        assert!(rig.fill(n, "a", u64::from(n), 600_000, true));
        rig.settle_files();
        let again = Rig::open(&rig.disk.kill(), bytes).unwrap();
        assert!(again.look(1).is_empty(), "after {n}");
        assert!((10..30).all(|n| again.look(n).is_empty()), "after {n}");
    }
}
