//! Groups, failures, and callers that leave.

use std::time::Duration;

use super::*;

#[test]
fn who_waits_together_shares_a_sync() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    disk.plan(|plan| plan.sync_takes = Duration::from_millis(20));
    let before = disk.syncs();
    block_on(async {
        let all: Vec<_> = (0..100).map(|i| Box::pin(purges.purge(tag(&format!("t{i}"))))).collect();
        let mut seqs = Vec::new();
        for purge in join_all(all).await {
            seqs.push(purge.unwrap().seq);
        }
        seqs.sort_unstable();
        seqs.dedup();
        assert_eq!(seqs.len(), 100);
    });
    let syncs = disk.syncs() - before;
    assert!(syncs <= 3, "{syncs} syncs");
}

#[test]
fn more_than_the_queue_holds_waits_for_room() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    block_on(async {
        let all: Vec<_> =
            (0..3 * QUEUE_UNITS).map(|i| Box::pin(purges.purge(tag(&format!("t{i}"))))).collect();
        assert!(join_all(all).await.iter().all(Result::is_ok));
    });
    assert_eq!(purges.stats().entries, 3 * QUEUE_UNITS as u64);
}

#[test]
fn a_purge_that_is_not_durable_is_in_effect_and_says_so() {
    for fail in
        [|plan: &mut sim::Plan| plan.fail_syncs = true, |plan: &mut sim::Plan| plan.fail_writes = true]
    {
        let disk = SimDisk::default();
        let purges = open(&disk);
        let before = purges.applied();
        disk.plan(fail);
        let Err(PurgeError::NotDurable(purge)) = block_on(purges.purge(tag("a"))) else { panic!("durable") };
        assert_eq!(purges.applied(), purge.seq);
        assert_eq!(check(&purges, "a", before), Verdict::Hard);
        assert!(purges.stats().pending_bytes > 0 && purges.stats().failed_syncs == 1);
        // The next one that is durable makes it so, too.
        disk.plan(|plan| *plan = sim::Plan::default());
        block_on(purges.purge(tag("b"))).unwrap();
        assert_eq!((purges.stats().pending_bytes, purges.stats().entries), (0, 2));
        drop(purges);
        let purges = open(&disk.crash(&mut || 1));
        assert_eq!(check(&purges, "a", before), Verdict::Hard);
        assert_eq!(check(&purges, "b", purge.seq), Verdict::Hard);
        assert_eq!(check(&purges, "c", purge.seq), Verdict::Kept);
    }
}

#[test]
fn what_waits_is_written_when_it_can_be_without_another_purge() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    disk.plan(|plan| plan.fail_syncs = true);
    assert!(block_on(purges.purge(tag("a"))).is_err());
    disk.plan(|plan| plan.fail_syncs = false);
    while purges.stats().pending_bytes > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(purges.stats().entries, 1);
}

#[test]
fn a_purge_lost_with_its_process_makes_newer_objects_suspect() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    let before = purges.applied();
    disk.plan(|plan| plan.fail_writes = true);
    let Err(PurgeError::NotDurable(lost)) = block_on(purges.purge(tag("a"))) else { panic!("durable") };
    let power_lost = disk.crash(&mut || 1);
    drop(purges);
    let purges = open(&power_lost);
    assert_eq!(check(&purges, "b", before), Verdict::Kept);
    // Numbers go on above all that were given.
    assert!(purges.applied() > lost.seq);
    let now = block_on(purges.purge(tag("c"))).unwrap().seq;
    assert_eq!(check(&purges, "b", lost.seq), Verdict::Hard);
    // Which proved the loss: everything older goes.
    assert_eq!(check(&purges, "b", before), Verdict::Hard);
    assert_eq!(check(&purges, "b", now), Verdict::Kept);
    drop(purges);
    let purges = open(&power_lost);
    assert_eq!(check(&purges, "b", before), Verdict::Hard, "also after a restart");
    assert_eq!(check(&purges, "b", now), Verdict::Kept);
}

#[test]
fn a_full_disk_does_not_keep_a_purge_from_being_durable() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    disk.plan(|plan| plan.is_full = true);
    // A mebibyte at least is allocated ahead.
    let note = Some("n".repeat(1000).into());
    for i in 0..1000 {
        block_on(purges.purge(Request { note: note.clone(), ..tag(&format!("t{i}")) })).unwrap();
    }
    disk.plan(|plan| plan.is_full = false);
    // And what is larger than that gets its room when it comes.
    let tags = (0..10_000).map(|i| Selector::tag(&format!("{i:0>400}")).unwrap()).collect();
    block_on(purges.purge(request(tags))).unwrap();
    assert!(purges.stats().bytes > 5_000_000);
    assert_eq!(purges.stats().selectors, 11_000);
}

#[test]
fn when_nothing_can_be_written_for_long_memory_stays_bounded() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    let before = purges.applied();
    disk.plan(|plan| plan.fail_writes = true);
    let tags: Vec<_> = (0..10_000).map(|i| Selector::tag(&format!("{i:0>900}")).unwrap()).collect();
    for _ in 0..9 {
        assert!(block_on(purges.purge(request(tags.clone()))).is_err());
        assert!(purges.stats().pending_bytes <= 64 << 20);
    }
    disk.plan(|plan| plan.fail_writes = false);
    let last = block_on(purges.purge(tag("a"))).unwrap().seq;
    drop(purges);
    // What could not be kept became a purge of everything.
    let purges = open(&disk);
    assert_eq!(purges.stats().damaged, None);
    assert_eq!(check(&purges, "b", before), Verdict::Hard);
    assert_eq!(check(&purges, "b", last), Verdict::Kept);
}

#[test]
fn a_caller_that_leaves_loses_nothing_that_was_queued() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    let before = purges.applied();
    disk.plan(|plan| plan.sync_takes = Duration::from_millis(20));
    block_on(async {
        let mut purge = Box::pin(purges.purge(tag("a")));
        let polled =
            std::future::poll_fn(|context| std::task::Poll::Ready(purge.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        drop(purge);
        purges.purge(tag("b")).await.unwrap();
    });
    assert_eq!(check(&purges, "a", before), Verdict::Hard);
    assert_eq!(purges.list(None, 10).len(), 2);
}

#[test]
fn a_closed_log_refuses_and_still_answers_checks() {
    let disk = SimDisk::default();
    let purges = open(&disk);
    let before = purges.applied();
    block_on(async {
        purges.purge(tag("a")).await.unwrap();
        purges.close().await;
        assert!(matches!(purges.purge(tag("b")).await, Err(PurgeError::Closed)));
        purges.close().await;
    });
    assert!(purges.compact(purges.applied()).is_err());
    assert_eq!(check(&purges, "a", before), Verdict::Hard);
    // The next process has it before this one is gone.
    let next = open(&disk);
    assert_eq!(check(&next, "a", before), Verdict::Hard);
    assert_eq!(check(&next, "b", before), Verdict::Kept);
}

/// All at once, as a server's connections are.
async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
