//! Damage, field by field, and what is not ours.

use std::io::IoSlice;

use super::super::format::{Entry as FrameEntry, FORMAT, HEADER_BYTES, Kind, PAGE_BYTES};
use super::*;

/// A sealed segment with every kind of frame; the keys 1 to 4.
fn sealed() -> SimDisk {
    let rig = Rig::open(&SimDisk::new(1), 8 * MIB).unwrap();
    assert!(rig.fill(1, "a", 1, 1_000, true) && rig.fill(2, "a", 2, 100_000, true));
    assert!(rig.fill(3, "a", 3, 2_000, true) && rig.fill(4, "a", 4, 3_000, true));
    rig.settle();
    rig.remove(3);
    rig.store.invalidate(&key(4));
    rig.close()
}

fn frames(disk: &SimDisk) -> Vec<FrameEntry> {
    let file = disk.open(1).unwrap();
    super::super::recover::read_frames(1, MIB, &*file).unwrap()
}

fn seen(disk: &SimDisk) -> Vec<Vec<Seen>> {
    let rig = Rig::open(&disk.kill(), 8 * MIB).unwrap();
    (1..5).map(|n| rig.look(n)).collect()
}

/// So that the kernel sends whole pages; what fills the gaps is nobody's to find.
#[test]
fn the_bodies_of_large_parts_begin_with_a_page() {
    let disk = sealed();
    let (parts, others): (Vec<_>, Vec<_>) =
        frames(&disk).into_iter().partition(|frame| frame.kind == Kind::Part);
    assert!(!parts.is_empty() && others.iter().all(|frame| frame.kind != Kind::Padding));
    for part in parts {
        assert_eq!((u64::from(part.offset) + HEADER_BYTES as u64) % PAGE_BYTES, 0, "{part:?}");
    }
}

#[test]
fn a_segment_without_its_footer_is_scanned_to_the_same_index() {
    let disk = sealed();
    let whole = seen(&disk);
    assert!(whole[2].is_empty() && whole[3][0].is_invalidated && whole[1][0].is_readable);
    for offset in [MIB - 1, MIB - 60, MIB - HEADER_BYTES as u64 - 1] {
        let damaged = disk.kill();
        damaged.corrupt(1, offset).unwrap();
        assert_eq!(seen(&damaged), whole, "footer damaged at {offset}");
    }
    for field in [0, 8, 12, 16, 30, 48] {
        let damaged = disk.kill();
        damaged.corrupt(1, field).unwrap();
        assert_eq!(seen(&damaged), whole, "segment header damaged at {field}");
    }
}

/// Without the footer a damaged frame is searched past; its key has nothing newer to lose.
#[test]
fn a_damaged_frame_costs_itself_alone() {
    let disk = sealed();
    let whole = seen(&disk);
    for frame in frames(&disk) {
        let n = (1..5).find(|n| key(*n).hash() == frame.key).unwrap();
        // Each field of a frame's header, and what follows it.
        for at in [0, 4, 5, 8, 24, 28, 32, 40, 56, 64] {
            if at >= frame.length {
                continue;
            }
            let damaged = disk.kill();
            damaged.corrupt(1, u64::from(frame.offset + at)).unwrap();
            damaged.corrupt(1, MIB - 1).unwrap();
            let now = seen(&damaged);
            for other in (1..5).filter(|other| *other != n) {
                assert_eq!(now[other as usize - 1], whole[other as usize - 1], "{frame:?} at {at}");
            }
            let own = &now[n as usize - 1];
            // The header of a part is not needed where a response tells its place and sum.
            if (frame.kind == Kind::Response || frame.kind == Kind::Part && at == 64) && n < 3 {
                assert!(own.iter().all(|seen| !seen.is_readable), "{frame:?} at {at}: {own:?}");
            }
        }
    }
}

/// The footer is right and the bytes are not: found at the first read, then forgotten.
#[test]
fn damaged_bytes_are_never_served() {
    let disk = sealed();
    for frame in frames(&disk).iter().filter(|frame| matches!(frame.kind, Kind::Response | Kind::Part)) {
        let n = (1..5).find(|n| key(*n).hash() == frame.key).unwrap();
        for at in [40, 70, 500] {
            if at >= frame.length {
                continue;
            }
            let damaged = disk.kill();
            damaged.corrupt(1, u64::from(frame.offset + at)).unwrap();
            let rig = Rig::open(&damaged, 8 * MIB).unwrap();
            let seen = rig.look(n);
            rig.settle();
            if frame.kind == Kind::Response || at >= 64 {
                assert!(seen.iter().all(|seen| !seen.is_readable), "{frame:?} at {at}: {seen:?}");
                assert!(rig.look(n).is_empty(), "it is given up");
            }
        }
    }
}

#[test]
fn another_format_is_refused_and_nothing_is_deleted() {
    let disk = sealed();
    let file = disk.create(2, MIB).unwrap();
    let mut header = super::super::format::encode_segment(2, MIB);
    header[8..12].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    let sum = crate::object::Sum::of(&header[..48]);
    header[48..].copy_from_slice(&sum.0);
    file.write_at(&[IoSlice::new(&header)], 0).unwrap();
    // One that nothing can be made of, and one too many.
    disk.create(3, MIB).unwrap();
    let before = disk.list().unwrap();
    for bytes in [8 * MIB, 2 * MIB] {
        let refused = Rig::open(&disk, bytes).err().unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
        assert_eq!(disk.list().unwrap(), before);
    }
}

#[test]
fn a_smaller_limit_takes_the_oldest_segments() {
    let (rig, model) = run(&SimDisk::new(1), 6 * MIB, &large_workload());
    let rig = Rig::open(&rig.close(), 3 * MIB).unwrap();
    rig.check_accounts(KEYS);
    model.check_all_live(&rig);
}
