//! Dropping what can hit nothing any more.

use std::sync::atomic::AtomicBool;
use std::thread;

use super::*;
use crate::purge::log::{NAME, NEW_NAME};

#[test]
fn what_is_below_is_dropped_and_people_keep_their_history() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    let start = purges.applied();
    for i in 0..500 {
        block_on(purges.purge(tag(&format!("t{i}")))).unwrap();
    }
    let bytes = purges.stats().bytes;
    purges.compact(start + 490).unwrap();
    let stats = purges.stats();
    // The history has 100 here.
    assert_eq!((stats.entries, stats.selectors), (100, 10));
    assert!(stats.bytes < bytes / 4, "{} of {bytes}", stats.bytes);
    assert_eq!(disk.names(), [NAME]);
    let assert_effect = |purges: &Purges| {
        assert_eq!(check(purges, "t495", start + 490), Verdict::Hard);
        assert_eq!(check(purges, "t495", start + 496), Verdict::Kept);
        assert_eq!(check(purges, "other", start + 490), Verdict::Kept);
        assert_eq!(check(purges, "other", start + 489), Verdict::Hard, "there should be none");
        assert_eq!(purges.list(None, 1000).len(), 100);
    };
    assert_effect(&purges);
    block_on(purges.purge(tag("after"))).unwrap();
    drop(purges);
    let purges = open(&disk);
    assert_eq!(check(&purges, "after", start + 500), Verdict::Hard);
    assert_eq!(purges.stats().entries, 101);
    assert_effect(&purges);
}

#[test]
fn numbers_go_on_when_everything_is_dropped() {
    let disk = SimDisk::default();
    let purges = Purges::on(Some(Arc::new(disk.clone())), NAME.into(), 0, Clock::start()).unwrap();
    let last = block_on(purges.purge(tag("a"))).unwrap().seq;
    purges.compact(u64::MAX).unwrap();
    assert_eq!(purges.stats().entries, 0);
    drop(purges);
    let purges = open(&disk);
    assert!(purges.applied() > last);
    assert_eq!(check(&purges, "other", last), Verdict::Kept);
    assert_eq!(check(&purges, "other", last - 1), Verdict::Hard);
}

#[test]
fn a_compaction_that_fails_changes_nothing() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    let before = purges.applied();
    block_on(purges.purge(tag("a"))).unwrap();
    for fail in [
        |plan: &mut sim::Plan| plan.is_full = true,
        |plan: &mut sim::Plan| plan.fail_writes = true,
        |plan: &mut sim::Plan| plan.fail_syncs = true,
    ] {
        disk.plan(fail);
        assert!(purges.compact(purges.applied()).is_err());
        disk.plan(|plan| *plan = sim::Plan::default());
        assert!(!disk.names().contains(&NEW_NAME.to_owned()));
        assert_eq!(check(&purges, "other", before), Verdict::Kept);
    }
    block_on(purges.purge(tag("b"))).unwrap();
    drop(purges);
    let purges = open(&disk);
    assert_eq!(check(&purges, "a", before), Verdict::Hard);
    assert_eq!(check(&purges, "b", before), Verdict::Hard);
}

#[test]
fn purges_are_not_durable_until_it_is_certain_which_log_is_the_log() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    let before = purges.applied();
    block_on(purges.purge(tag("a"))).unwrap();
    disk.plan(|plan| plan.fail_directory = true);
    purges.compact(before).unwrap();
    assert!(matches!(block_on(purges.purge(tag("b"))), Err(PurgeError::NotDurable(_))));
    disk.plan(|plan| plan.fail_directory = false);
    block_on(purges.purge(tag("c"))).unwrap();
    let purges = open(&disk.crash(&mut || 1));
    for name in ["a", "b", "c"] {
        assert_eq!(check(&purges, name, before), Verdict::Hard, "{name}");
    }
}

#[test]
fn purges_go_on_meanwhile() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    let start = purges.applied();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Relaxed) {
                purges.compact(start).unwrap();
            }
        });
        for i in 0..300 {
            block_on(purges.purge(tag(&format!("t{i}")))).unwrap();
        }
        is_done.store(true, Relaxed);
    });
    assert_eq!(purges.stats().entries, 300);
    drop(purges);
    let purges = open(&disk);
    assert_eq!(purges.stats().entries, 300);
    for i in 0..300 {
        assert_eq!(check(&purges, &format!("t{i}"), start), Verdict::Hard, "t{i}");
    }
}
