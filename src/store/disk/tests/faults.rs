//! Every operation fails once; writes are short; the disk is full.

use rustix::io::Errno;

use super::*;

/// Runs on through whatever fails; nothing that is found is wrong or outdated, now and after a kill.
fn survive(disk: &SimDisk, bytes: u64, steps: &[Step]) -> Option<Rig> {
    let mut rig = Rig::open(disk, bytes).ok()?;
    let mut model = Model::default();
    for step in steps {
        if matches!(step, Reopen) {
            rig.wait(rig.store.close());
            drop(rig);
            rig = Rig::open(disk, bytes).ok()?;
        }
        model.step(&rig, *step);
    }
    model.check_all_live(&rig);
    rig.forget_memory();
    model.check_all_live(&rig);
    let again = Rig::open(&disk.kill(), bytes).unwrap();
    model.check_all_live(&again);
    again.check_accounts(KEYS);
    Some(rig)
}

fn counts(bytes: u64, steps: &[Step], operation: Operation) -> u64 {
    let disk = SimDisk::new(0);
    drop(run(&disk, bytes, steps).0.close());
    disk.count(operation)
}

fn fail_each(bytes: u64, steps: &[Step], operations: &[Operation], step_by: usize) {
    for operation in operations {
        for nth in (0..counts(bytes, steps, *operation)).step_by(step_by) {
            let disk = SimDisk::new(nth);
            disk.fail(*operation, nth..=nth, Errno::IO);
            let Some(rig) = survive(&disk, bytes, steps) else { continue };
            assert_eq!(rig.tier().health.mode(), Mode::Ok, "{operation:?} {nth}: one error is none");
            rig.check_accounts(KEYS);
        }
    }
}

const CHANGES: [Operation; 4] = [Operation::Create, Operation::Write, Operation::Sync, Operation::Remove];

#[test]
fn one_change_that_fails_costs_no_more_than_what_it_was_for() {
    fail_each(8 * MIB, &small_workload(), &CHANGES, stride(3));
}

#[test]
fn one_change_that_fails_while_segments_go_costs_no_more_than_what_it_was_for() {
    fail_each(4 * MIB, &large_workload(), &CHANGES, stride(13));
}

#[test]
fn one_read_that_fails_is_a_miss() {
    fail_each(8 * MIB, &small_workload(), &[Operation::Read], stride(5));
}

#[test]
fn short_writes_are_writes() {
    let disk = SimDisk::new(5);
    disk.set_short_writes(true);
    let (rig, model) = run(&disk, 8 * MIB, &small_workload());
    model.check_complete(&rig);
}

#[test]
fn a_cold_disk_answers_by_an_io_thread() {
    let disk = SimDisk::new(5);
    disk.set_cold(true);
    let (rig, model) = run(&disk, 8 * MIB, &small_workload());
    rig.forget_memory();
    model.check_complete(&rig);
}

/// "Disk full, five I/O errors in a row and short writes turn the disk tier read-only or off".
#[test]
fn a_full_disk_makes_it_read_only_and_what_is_stored_stays() {
    for capacity in [0, 1, 2, 3] {
        let disk = SimDisk::new(capacity);
        disk.set_capacity(capacity * MIB);
        // What is said of keys can't be written down, and holds as long as the process.
        let steps: Vec<Step> = large_workload().into_iter().filter(|step| !matches!(step, Reopen)).collect();
        let (rig, model) = run(&disk, 6 * MIB, &steps);
        model.check_all_live(&rig);
        let again = Rig::open(&disk.kill(), 6 * MIB).unwrap();
        KEYS.for_each(|n| model.check_ever(n, &again.look(n)));
        if capacity == 0 {
            assert_eq!(rig.tier().health.mode(), Mode::ReadOnly);
            assert!(rig.tier().stats().trouble.is_some());
        }
    }
    for room in (1000..3_000_000).step_by(271_003) {
        let disk = SimDisk::new(room);
        disk.set_writable(room);
        let steps: Vec<Step> = small_workload().into_iter().filter(|step| !matches!(step, Reopen)).collect();
        let (rig, model) = run(&disk, 8 * MIB, &steps);
        model.check_all_live(&rig);
        let again = Rig::open(&disk.kill(), 8 * MIB).unwrap();
        KEYS.for_each(|n| model.check_ever(n, &again.look(n)));
    }
}

#[test]
fn a_full_disk_keeps_what_is_on_it_readable() {
    let disk = SimDisk::new(1);
    disk.set_capacity(2 * MIB);
    let rig = Rig::open(&disk, 8 * MIB).unwrap();
    assert!(rig.fill(1, "a", 1, 800_000, true) && rig.fill(2, "a", 2, 700, true));
    (10..16).for_each(|n| {
        rig.fill(n, "a", u64::from(n), 500_000, true);
    });
    rig.forget_memory();
    assert_eq!(rig.tier().health.mode(), Mode::ReadOnly);
    assert!(rig.tier().limits.capacity() <= 2 * MIB, "it lives within what there is");
    assert!(rig.look(1)[0].is_readable && rig.look(2)[0].is_readable);
    assert!(!rig.fill(20, "a", 20, 500_000, true), "nothing is taken in");
    assert!(rig.fill(21, "a", 21, 500, true), "but by memory");
}

#[test]
fn writes_that_fail_one_after_the_other_make_it_read_only_and_reads_turn_it_off() {
    let disk = SimDisk::new(1);
    let rig = Rig::open(&disk, 8 * MIB).unwrap();
    assert!((0..20).all(|n| rig.fill(n, "a", u64::from(n), 5_000, true)));
    rig.settle();
    disk.fail(Operation::Write, disk.count(Operation::Write).., Errno::IO);
    (20..26).for_each(|n| {
        rig.fill(n, "a", u64::from(n), 5_000, true);
    });
    rig.forget_memory();
    assert_eq!(rig.tier().health.mode(), Mode::ReadOnly);
    assert!((0..20).all(|n| rig.look(n)[0].is_readable));
    rig.forget_memory();
    disk.fail(Operation::Read, disk.count(Operation::Read).., Errno::IO);
    assert!((0..20).all(|n| rig.look(n).is_empty()));
    assert_eq!(rig.tier().health.mode(), Mode::Off);
    assert!(rig.fill(30, "a", 30, 100, true) && rig.look(30)[0].is_readable, "the memory tier goes on");
}

/// A segment whose file could not be finished is none, and takes no room.
#[test]
fn segments_that_can_not_be_begun_leave_no_files() {
    let disk = SimDisk::new(1);
    let rig = Rig::open(&disk, 8 * MIB).unwrap();
    disk.fail(Operation::Write, 0..4, Errno::IO);
    (0..4).for_each(|n| {
        rig.fill(n, "a", u64::from(n), 5_000, true);
    });
    rig.check_accounts(KEYS);
    assert!(rig.tier().stats().segments <= 1);
}

/// A name that could not be removed is removed later, and counts until then.
#[test]
fn removals_are_repeated_in_their_order() {
    let disk = SimDisk::new(1);
    let rig = Rig::open(&disk, 4 * MIB).unwrap();
    disk.fail(Operation::Remove, 0..2, Errno::IO);
    (0..12).for_each(|n| assert!(rig.fill(n, "a", u64::from(n), 600_000, true), "{n}"));
    rig.check_accounts(KEYS);
    let left: Vec<u32> = Disk::list(&disk).unwrap().iter().map(|(id, _)| *id).collect();
    assert!(left.windows(2).all(|pair| pair[0] + 1 == pair[1]), "none is left over: {left:?}");
}
