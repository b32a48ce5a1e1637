//! Threads that check while others purge.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;

use super::*;

/// Never `Kept` after the purge returned; the tables grow many times meanwhile.
#[test]
fn a_purge_that_returned_is_seen_by_every_check() {
    const THREADS: u64 = 3;
    let purges = Purges::open(Config::default(), Clock::start()).unwrap();
    let start = purges.applied();
    // Of each purging thread, how many of its tags are purged; even ones softly.
    let done: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for checker in 0..2 {
            let (purges, done, is_over) = (&purges, &done, &is_over);
            scope.spawn(move || {
                crate::telemetry::enter_worker(checker);
                let mut i = 0;
                while !is_over.load(Acquire) {
                    i += 1;
                    for (thread, done) in done.iter().enumerate() {
                        let purged = done.load(Acquire);
                        // The newest and any.
                        for n in [purged, i % purged.max(1) + 1] {
                            if n == 0 || n > purged {
                                continue;
                            }
                            let verdict = check(purges, &format!("{thread}.{n}"), start);
                            let is_seen = if n.is_multiple_of(2) {
                                matches!(verdict, Verdict::Soft { .. })
                            } else {
                                verdict == Verdict::Hard
                            };
                            assert!(is_seen, "{thread}.{n}: {verdict:?}");
                        }
                        assert_eq!(check(purges, "never", start), Verdict::Kept);
                        assert_eq!(check(purges, "never", purges.applied()), Verdict::Kept);
                    }
                }
            });
        }
        let purging: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (purges, done) = (&purges, &done[thread as usize]);
                scope.spawn(move || {
                    for n in 1..=2_000_u64 {
                        let request = Request { soft: n.is_multiple_of(2), ..tag(&format!("{thread}.{n}")) };
                        block_on(purges.purge(request)).unwrap();
                        done.store(n, Release);
                    }
                })
            })
            .collect();
        for thread in purging {
            thread.join().unwrap();
        }
        is_over.store(true, Release);
    });
    assert_eq!(purges.stats().selectors, THREADS * 2_000);
    assert_eq!(purges.applied(), start + THREADS * 2_000);
}
