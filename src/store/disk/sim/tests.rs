use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::inode::SECTOR_BYTES;
use super::*;

fn write(file: &Arc<dyn DiskFile>, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_at(&[IoSlice::new(bytes)], offset)
}

/// What a file shows; nothing when it is not there.
fn content(disk: &SimDisk, id: u32) -> Option<Vec<u8>> {
    let len = disk.list().unwrap().into_iter().find(|(found, _)| *found == id)?.1;
    let mut buf = vec![0; len as usize];
    disk.open(id).unwrap().read_at(&mut buf, 0).unwrap();
    Some(buf)
}

fn error<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// A segment that is synced once, then written on; its second half is not synced.
fn half_synced(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let file = disk.create(1, 8192).unwrap();
    write(&file, &[1; 4096], 0).unwrap();
    file.sync().unwrap();
    write(&file, &[2; 2000], 4096).unwrap();
    write(&file, &[3; 2096], 6096).unwrap();
    disk
}

#[test]
fn a_loss_of_power_keeps_what_was_synced_and_any_sectors_of_the_rest() {
    let disk = half_synced(0);
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let image = content(&disk.crash(seed), 1).unwrap();
        assert_eq!(image[..4096], [1; 4096]);
        // The sector that both writes are in may have one without the other.
        for (range, byte) in [(4096..6096, 2), (6096..8192, 3)] {
            for sector in image[range.clone()].chunk_by(|a, b| a == b) {
                assert!(sector[0] == 0 || sector[0] == byte);
            }
            for at in range.clone().skip(1).filter(|at| image[*at] != image[at - 1]) {
                assert!(at % SECTOR_BYTES == 0 || at == 6096, "torn at {at}");
            }
        }
        seen.insert(image);
    }
    let untouched = [vec![1; 4096], vec![0; 4096]].concat();
    assert!(seen.contains(&untouched) && seen.contains(&content(&disk, 1).unwrap()), "the extremes");
    let second_only = [vec![1; 4096], vec![0; 2000], vec![3; 2096]].concat();
    assert!(seen.contains(&second_only), "a later write without an earlier one");
    assert!(seen.len() > 20, "{} images", seen.len());
    assert!(content(&disk, 1).unwrap().ends_with(&[3; 2096]), "the disk itself is as it was");
}

#[test]
fn a_killed_process_leaves_all_it_wrote_and_power_may_still_go() {
    let disk = half_synced(0);
    let killed = disk.kill();
    assert_eq!(content(&killed, 1), content(&disk, 1));
    let images: BTreeSet<_> = (0..50).map(|seed| content(&killed.crash(seed), 1)).collect();
    assert!(images.len() > 5);
    killed.open(1).unwrap().sync().unwrap();
    assert!((0..50).all(|seed| content(&killed.crash(seed), 1) == content(&disk, 1)));
}

#[test]
fn what_comes_after_a_crash_is_on_the_medium() {
    let crashed = half_synced(0).crash(5);
    for seed in 0..50 {
        assert_eq!(content(&crashed.crash(seed), 1), content(&crashed, 1));
    }
}

#[test]
fn the_same_seeds_give_the_same_images() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        disk.set_short_writes(true);
        disk.stop_at(20);
        let file = disk.create(1, 4096).unwrap();
        let mut written = 0;
        while write(&file, &[9; 100], written).is_ok() {
            written += 100;
        }
        (written, content(&disk.crash(seed), 1), content(&disk.kill(), 1), content(&disk.kill(), 1))
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
        assert_eq!(run(seed).2, run(seed).3);
    }
    assert!((0..20).any(|seed| run(seed) != run(seed + 1)));
}

#[test]
fn operations_fail_as_planned_and_by_kind() {
    let disk = SimDisk::new(0);
    disk.fail(Operation::Write, 1..3, Errno::IO);
    disk.fail(Operation::Create, 1..=1, Errno::DQUOT);
    disk.fail(Operation::Read, 0..1, Errno::IO);
    let file = disk.create(1, 100).unwrap();
    assert_eq!(error(disk.create(2, 100)), Some(Errno::DQUOT.raw_os_error()));
    let results: Vec<_> = (0..4).map(|n| error(write(&file, &[1], n))).collect();
    let eio = Some(Errno::IO.raw_os_error());
    assert_eq!(results, [None, eio, eio, None]);
    assert_eq!(error(file.read_at(&mut [0], 0)), eio);
    assert_eq!(content(&disk, 1).unwrap()[..5], [1, 0, 0, 1, 0]);
    assert_eq!((disk.operations(), disk.count(Operation::Write), disk.count(Operation::Read)), (6, 4, 2));
}

#[test]
fn a_file_whose_sync_failed_stays_so_and_other_files_do_not() {
    let disk = SimDisk::new(0);
    disk.fail(Operation::Sync, 0..1, Errno::IO);
    let (bad, good) = (disk.create(1, 100).unwrap(), disk.create(2, 100).unwrap());
    write(&bad, &[1; 100], 0).unwrap();
    assert!(bad.sync().is_err() && bad.sync().is_err());
    good.sync().unwrap();
    assert!((0..50).any(|seed| content(&disk.crash(seed), 1) == Some(vec![0; 100])));
}

#[test]
fn a_full_disk_refuses_files_until_nobody_holds_the_removed_ones() {
    let disk = SimDisk::new(0);
    disk.set_capacity(250);
    let held = disk.create(1, 100).unwrap();
    disk.create(2, 100).unwrap();
    let full = Some(ErrorKind::StorageFull);
    assert_eq!(disk.create(3, 100).err().map(|error| error.kind()), full);
    disk.remove(1).unwrap();
    assert_eq!(disk.create(3, 100).err().map(|error| error.kind()), full);
    drop(held);
    disk.create(3, 100).unwrap();
    assert_eq!(disk.list().unwrap(), [(2, 100), (3, 100)]);
}

#[test]
fn writes_run_out_of_room_in_the_middle() {
    let disk = SimDisk::new(0);
    let file = disk.create(1, 1000).unwrap();
    disk.set_writable(150);
    write(&file, &[1; 100], 0).unwrap();
    let result = write(&file, &[2; 100], 100);
    assert_eq!(result.err().map(|error| error.kind()), Some(ErrorKind::StorageFull));
    let expected = [vec![1; 100], vec![2; 50], vec![0; 850]].concat();
    assert_eq!(content(&disk, 1), Some(expected));
}

#[test]
fn short_writes_are_completed() {
    let disk = SimDisk::new(3);
    disk.set_short_writes(true);
    let file = disk.create(1, 1000).unwrap();
    let bytes: Vec<u8> = (0..1000).map(|n| n as u8).collect();
    file.write_at(&[IoSlice::new(&bytes[..300]), IoSlice::new(&bytes[300..])], 0).unwrap();
    assert_eq!(content(&disk, 1), Some(bytes));
    assert!(disk.count(Operation::Write) > 1);
}

#[test]
fn rot_changes_one_byte_for_good() {
    let disk = half_synced(0);
    disk.corrupt(1, 10).unwrap();
    disk.corrupt(1, 8000).unwrap();
    for image in [&disk, &disk.kill(), &disk.crash(1)].map(|disk| content(disk, 1).unwrap()) {
        assert_eq!((image[9], image[10], image[11], image[8000]), (1, !1, 1, !3));
    }
}

/// Names that a workload may leave when it is stopped at each of its changes.
#[test]
fn only_the_name_that_was_being_changed_is_uncertain() {
    let work = |disk: &SimDisk| -> io::Result<()> {
        disk.create(1, 100)?;
        disk.create(2, 100)?;
        disk.remove(1)?;
        disk.create(3, 100)?;
        disk.remove(2)
    };
    let names = |disk: SimDisk| disk.list().unwrap().into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let steps: [&[u32]; 6] = [&[], &[1], &[1, 2], &[2], &[2, 3], &[3]];
    let disk = SimDisk::new(0);
    work(&disk).unwrap();
    assert_eq!(disk.operations(), 5);
    for stop in 0..5 {
        let (before, after) = (steps[stop].to_vec(), steps[stop + 1].to_vec());
        let mut seen = BTreeSet::new();
        let mut seen_killed = BTreeSet::new();
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            disk.stop_at(stop as u64);
            assert!(work(&disk).is_err());
            assert!(disk.list().is_err() && disk.open(1).is_err() && disk.create(9, 1).is_err());
            seen.insert(names(disk.crash(seed)));
            seen.insert(names(disk.kill().crash(seed)));
            seen_killed.insert(names(disk.kill()));
        }
        let expected = BTreeSet::from([before, after]);
        assert_eq!((&seen, &seen_killed), (&expected, &expected), "stopped at {stop}");
    }
}

#[test]
fn a_name_whose_removal_failed_may_come_back_until_it_is_removed() {
    let mut came_back = BTreeSet::new();
    for seed in 0..20 {
        let disk = half_synced(seed);
        disk.fail(Operation::Remove, 0..1, Errno::IO);
        assert!(disk.remove(1).is_err());
        let is_shown = content(&disk, 1).is_some();
        let is_back = content(&disk.crash(seed), 1).is_some();
        assert!(is_back || !is_shown);
        came_back.insert((is_shown, is_back));
        disk.remove(1).unwrap();
        assert!((0..20).all(|seed| content(&disk.crash(seed), 1).is_none()));
    }
    assert_eq!(came_back.len(), 3);
}

#[test]
fn a_write_that_was_stopped_is_there_in_part() {
    let mut lengths = BTreeSet::new();
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let file = disk.create(1, 1000).unwrap();
        disk.stop_at(1);
        assert!(write(&file, &[1; 1000], 0).is_err() && write(&file, &[2; 10], 0).is_err());
        let image = content(&disk.kill(), 1).unwrap();
        let length = image.iter().take_while(|byte| **byte == 1).count();
        assert_eq!(image[length..], vec![0; 1000 - length]);
        lengths.insert(length);
    }
    assert!(lengths.contains(&1000) && lengths.len() > 10);
}

#[test]
fn a_file_can_be_read_through_its_descriptor() {
    let disk = half_synced(0);
    let file = disk.open(1).unwrap();
    let mut buf = [0; 2];
    rustix::io::pread(file.file(), &mut buf, 4095).unwrap();
    assert_eq!(buf, [1, 2]);
}
