//! Everything that may become of the file.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::purge::format::{HEADER_BYTES, payload_bytes};
use crate::purge::log::NAME;

/// A log of some purges, each in a frame of its own: the disk, the number before them, and theirs. It is older than now.
fn written(purges_to_make: usize) -> (SimDisk, u64, Vec<u64>) {
    let disk = SimDisk::default();
    let purges = open(&disk);
    let before = purges.applied();
    let seqs =
        (0..purges_to_make).map(|i| block_on(purges.purge(tag(&format!("t{i}")))).unwrap().seq).collect();
    drop(purges);
    let_time_pass();
    (disk, before, seqs)
}

/// New logs are numbered by the clock.
fn let_time_pass() {
    std::thread::sleep(std::time::Duration::from_millis(50));
}

/// Where each frame ends, without its padding, the log's end last.
fn frame_ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = HEADER_BYTES;
    while let Some(payload) = bytes.get(at..).and_then(payload_bytes) {
        ends.push(at + HEADER_BYTES + payload);
        at += (HEADER_BYTES + payload).next_multiple_of(16);
    }
    ends
}

#[test]
fn a_log_cut_anywhere_keeps_what_was_acknowledged_by_then() {
    let (disk, before, seqs) = written(4);
    let bytes = disk.read(NAME);
    // The first frame is the gap, the last the mark of the end.
    let ends = frame_ends(&bytes);
    assert_eq!(ends.len(), seqs.len() + 2);
    for cut in 0..=ends[ends.len() - 1] {
        let shorter = bytes[..cut].to_vec();
        let mut zeroed = shorter.clone();
        zeroed.resize(bytes.len() + 1000, 0);
        for found in [shorter, zeroed] {
            // A frame may end in zeros.
            let is_there = |end: &&usize| found.get(..**end) == Some(&bytes[..**end]);
            let whole = ends[1..=seqs.len()].iter().take_while(is_there).count();
            let is_begun = is_there(&&ends[0]);
            let disk = SimDisk::with(NAME, found);
            let purges = open(&disk);
            if !is_begun {
                // Not even the beginning is there.
                assert_eq!(check(&purges, "other", before), Verdict::Hard, "{cut}");
                continue;
            }
            assert_eq!(purges.stats().damaged, None, "{cut}");
            assert_eq!(purges.list(None, 100).len(), whole, "{cut}");
            for i in 0..seqs.len() {
                let wanted = if i < whole { Verdict::Hard } else { Verdict::Kept };
                assert_eq!(check(&purges, &format!("t{i}"), before), wanted, "{cut}: t{i}");
            }
            // It goes on, and an object that knows more than the log is purged with all the others.
            let now = block_on(purges.purge(tag("x"))).unwrap().seq;
            drop(purges);
            let purges = open(&disk);
            assert_eq!(purges.stats().damaged, None, "{cut}");
            assert_eq!(check(&purges, "x", before), Verdict::Hard, "{cut}");
            assert_eq!(check(&purges, "y", now), Verdict::Kept, "{cut}");
            if whole < seqs.len() {
                assert_eq!(check(&purges, "y", before), Verdict::Kept, "{cut}");
                assert_eq!(check(&purges, "y", seqs[whole]), Verdict::Hard, "{cut}");
                assert_eq!(check(&purges, "y", before), Verdict::Hard, "{cut}");
            }
        }
    }
}

#[test]
fn a_byte_that_changed_anywhere_is_noticed_and_purges_everything() {
    let (disk, before, seqs) = written(4);
    let bytes = disk.read(NAME);
    let ends = frame_ends(&bytes);
    let last = ends[ends.len() - 2];
    for at in 0..last {
        let mut rotten = bytes.clone();
        rotten[at] ^= 0x10;
        let disk = SimDisk::with(NAME, rotten.clone());
        let purges = open(&disk);
        // Padding means nothing.
        if purges.stats().damaged.is_none() {
            assert!(ends.iter().any(|end| (*end..end.next_multiple_of(16)).contains(&at)), "{at}");
            assert_eq!(purges.list(None, 10).len(), seqs.len());
            continue;
        }
        for as_of in seqs.iter().chain([&before, &0]) {
            assert_eq!(check(&purges, "other", *as_of), Verdict::Hard, "{at}");
        }
        let now = purges.applied();
        assert!(now > seqs[3]);
        assert_eq!(check(&purges, "other", now), Verdict::Kept);
        // What could not be read is still there, under another name.
        let aside = purges.stats().damaged.unwrap();
        assert_eq!(disk.read(&aside), rotten);
        drop(purges);
        let purges = open(&disk);
        assert_eq!(purges.stats().damaged, None);
        assert_eq!(check(&purges, "other", seqs[3]), Verdict::Hard);
        assert_eq!(check(&purges, "other", now), Verdict::Kept);
    }
}

#[test]
fn a_lost_frame_in_the_middle_is_noticed() {
    let (disk, before, _) = written(4);
    let bytes = disk.read(NAME);
    let ends: Vec<usize> = frame_ends(&bytes).iter().map(|end| end.next_multiple_of(16)).collect();
    let mut zeroed = bytes.clone();
    zeroed[ends[1]..ends[2]].fill(0);
    let mut removed = bytes.clone();
    removed.drain(ends[1]..ends[2]);
    // A frame of the same log in the place of another one.
    let mut replaced = bytes.clone();
    replaced.copy_within(ends[2]..ends[3], ends[1]);
    for bytes in [zeroed, removed, replaced] {
        let purges = open(&SimDisk::with(NAME, bytes));
        assert!(purges.stats().damaged.is_some());
        assert_eq!(check(&purges, "other", before), Verdict::Hard);
    }
}

#[test]
fn a_lost_log_purges_everything_also_when_the_new_one_is_as_long() {
    let (_, before, seqs) = written(8);
    let (disk, ..) = written(8);
    let purges = open(&disk);
    for as_of in seqs.iter().chain([&before]) {
        assert_eq!(check(&purges, "other", *as_of), Verdict::Hard);
    }
}

#[test]
fn an_old_copy_of_the_log_purges_everything_once_a_newer_object_is_seen() {
    let (disk, before, _) = written(2);
    let copy = disk.read(NAME);
    let purges = open(&disk);
    let newer = block_on(purges.purge(tag("late"))).unwrap().seq;
    drop(purges);
    let_time_pass();
    let purges = open(&SimDisk::with(NAME, copy));
    let now = block_on(purges.purge(tag("x"))).unwrap().seq;
    assert!(now > newer);
    assert_eq!(check(&purges, "other", newer), Verdict::Hard);
    assert_eq!(check(&purges, "late", before), Verdict::Hard);
}

#[test]
fn after_a_loss_of_power_whatever_was_acknowledged_is_there() {
    for seed in 0..200_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut chance = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 11
        };
        let mut disk = SimDisk::default();
        let mut acknowledged: Vec<(String, u64)> = Vec::new();
        for round in 0..4 {
            let purges = open(&disk);
            assert_eq!(purges.stats().damaged, None, "{seed}");
            for (tag, as_of) in &acknowledged {
                assert_eq!(check(&purges, tag, *as_of), Verdict::Hard, "{seed}: {tag}");
            }
            for i in 0..chance() % 6 {
                let (name, as_of) = (format!("{seed}.{round}.{i}"), purges.applied());
                block_on(purges.purge(Request { note: Some("n".repeat(700).into()), ..tag(&name) })).unwrap();
                acknowledged.push((name, as_of));
                if chance().is_multiple_of(4) {
                    purges.compact(as_of).unwrap();
                    acknowledged.retain(|(_, noted)| *noted >= as_of);
                }
            }
            // One that is written, or half of it, and not synced.
            disk.plan(|plan| plan.fail_syncs = true);
            if chance().is_multiple_of(2) {
                assert!(block_on(purges.purge(tag("unknown"))).is_err());
            }
            let power_lost = disk.crash(&mut chance);
            drop(purges);
            disk = power_lost;
        }
    }
}

#[test]
fn a_log_that_can_not_be_read_purges_everything() {
    let (disk, before, _) = written(4);
    disk.plan(|plan| plan.fail_reads = true);
    let purges = open(&disk);
    assert!(purges.stats().damaged.is_some());
    assert_eq!(check(&purges, "other", before), Verdict::Hard);
    assert_eq!(check(&purges, "other", purges.applied()), Verdict::Kept);
}

#[test]
fn a_log_that_can_not_be_written_opens_and_goes_on_when_it_can() {
    let (disk, before, _) = written(1);
    disk.plan(|plan| plan.fail_syncs = true);
    let purges = open(&disk);
    assert!(purges.stats().pending_bytes > 0);
    assert_eq!(check(&purges, "t0", before), Verdict::Hard);
    assert!(matches!(block_on(purges.purge(tag("a"))), Err(PurgeError::NotDurable(_))));
    disk.plan(|plan| plan.fail_syncs = false);
    let now = block_on(purges.purge(tag("b"))).unwrap().seq;
    drop(purges);
    let purges = open(&disk);
    assert_eq!(purges.stats().damaged, None);
    for name in ["t0", "a", "b"] {
        assert_eq!(check(&purges, name, before), Verdict::Hard, "{name}");
    }
    assert_eq!(check(&purges, "a", now), Verdict::Kept);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_written_over_a_log_brings_no_purged_object_back(
        at in 0.0..1.0_f64,
        junk in prop_oneof![
            prop::collection::vec(any::<u8>(), 1..400),
            (1..400_usize).prop_map(|zeros| vec![0; zeros]),
        ],
    ) {
        let (disk, before, seqs) = written(6);
        let mut bytes = disk.read(NAME);
        let ends = frame_ends(&bytes);
        // Something of the last frames is left: a log that is cut off there can't be told from one that ends there.
        let end = ends[ends.len() - 3];
        let start = (at * end as f64) as usize;
        let end = end.min(start + junk.len());
        bytes[start..end].copy_from_slice(&junk[..end - start]);
        match try_open(&SimDisk::with(NAME, bytes)) {
            Err(OpenError::OtherFormat { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
            Ok(purges) => {
                for i in 0..seqs.len() {
                    prop_assert_eq!(check(&purges, &format!("t{i}"), before), Verdict::Hard);
                }
            }
        }
    }
}

#[test]
fn another_format_is_refused_and_left_alone() {
    let (disk, ..) = written(1);
    let mut bytes = disk.read(NAME);
    bytes[8] = 9;
    let sum = blake3::hash(&bytes[..48]);
    bytes[48..64].copy_from_slice(&sum.as_bytes()[..16]);
    let disk = SimDisk::with(NAME, bytes.clone());
    let error = try_open(&disk).unwrap_err().to_string();
    assert!(error.contains("format is 9") && error.contains("nothing was deleted"), "{error}");
    assert_eq!((disk.read(NAME), disk.names()), (bytes, vec![NAME.to_owned()]));
}

#[test]
fn a_real_directory_keeps_purges_over_restarts() {
    let path = std::env::temp_dir().join(format!("larder-purge-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    let config = Config { path: Some(path.clone()), ..Config::default() };
    assert!(matches!(Purges::open(config.clone(), Clock::start()), Err(OpenError::Io { .. })));
    fs::create_dir_all(&path).unwrap();
    let purges = Purges::open(config.clone(), Clock::start()).unwrap();
    let before = purges.applied();
    let purge = block_on(purges.purge(tag("a"))).unwrap();
    purges.compact(before).unwrap();
    block_on(purges.purge(tag("b"))).unwrap();
    assert!(fs::metadata(path.join(NAME)).unwrap().len() >= 1 << 20);
    drop(purges);
    fs::write(path.join("purge.log.new"), "left over").unwrap();
    let purges = Purges::open(config, Clock::start()).unwrap();
    assert_eq!(check(&purges, "a", before), Verdict::Hard);
    assert_eq!(check(&purges, "b", before), Verdict::Hard);
    assert_eq!(check(&purges, "c", before), Verdict::Kept);
    let again = purges.get(&purge.id).unwrap();
    assert_eq!(again.request, purge.request);
    assert_eq!((again.seq, again.at, again.applied_in_us), (purge.seq, purge.at, None));
    assert!(!path.join("purge.log.new").exists());
    drop(purges);
    fs::remove_dir_all(path).unwrap();
}
