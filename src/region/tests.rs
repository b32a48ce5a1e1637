use super::*;
use std::fs::{File, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

/// A file of `pages` pages, each full of its own number from 1; it has no name any more.
fn file(pages: usize) -> File {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("larder-region-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let path = std::env::temp_dir().join(name);
    let content: Vec<u8> = (0..pages).flat_map(|page| vec![(page % 255) as u8 + 1; page_bytes()]).collect();
    std::fs::write(&path, content).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

fn arena(slots: usize, pages: usize) -> Arc<Arena> {
    install();
    Arena::reserve(slots, (pages * page_bytes()) as u64).unwrap()
}

fn map(arena: &Arc<Arena>, file: &File) -> Mapping {
    arena.map(file.try_clone().unwrap(), file.metadata().unwrap().len()).unwrap()
}

fn page(number: usize) -> Range<u64> {
    ((number * page_bytes()) as u64)..((number + 1) * page_bytes()) as u64
}

/// Whether a file is mapped there.
fn is_mapped(address: usize) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let holds = |line: &&str| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let bound = |text| usize::from_str_radix(text, 16).unwrap();
        (bound(start)..bound(end)).contains(&address)
    };
    maps.lines().find(holds).is_some_and(|line| line.contains(" r--s "))
}

#[test]
fn a_file_is_read_through_its_mapping_until_it_is_dropped() {
    let arena = arena(2, 4);
    let file = file(3);
    let mapping = map(&arena, &file);
    assert_eq!((mapping.len(), mapping.is_empty(), arena.slots()), (3 * page_bytes() as u64, false, 2));
    let bytes = mapping.as_ref();
    assert_eq!((bytes[0], bytes[page_bytes()], bytes[3 * page_bytes() - 1]), (1, 2, 3));
    assert!(!mapping.is_bad() && !is_poisoned());
    let address = bytes.as_ptr().addr();
    assert!(is_mapped(address));
    drop(mapping);
    assert!(!is_mapped(address));
}

#[test]
fn slots_are_used_again_and_start_not_bad() {
    let arena = arena(2, 1);
    let (first, second) = (map(&arena, &file(1)), map(&arena, &file(1)));
    assert_eq!((first.slot(), second.slot()), (0, 1));
    assert_eq!(arena.map(file(1), 1).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
    first.mark_bad();
    assert!(first.is_bad() && !second.is_bad());
    drop(first);
    let third = map(&arena, &file(1));
    assert_eq!((third.slot(), third.is_bad(), third.as_ref()[0]), (0, false, 1));
}

#[test]
fn what_can_not_be_mapped_is_refused_and_its_slot_is_free_again() {
    let arena = arena(1, 1);
    let too_long = page_bytes() as u64 + 1;
    assert_eq!(arena.map(file(2), too_long).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let (pipe, _writer) = io::pipe().unwrap();
    assert_eq!(arena.map(pipe, 1).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    assert_eq!(arena.map(file(1), 0).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    assert_eq!(map(&arena, &file(1)).as_ref()[0], 1);
    assert_eq!(Arena::reserve(0, 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(Arena::reserve(2, u64::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    // Rounded up to whole pages.
    assert_eq!(map(&Arena::reserve(1, 1).unwrap(), &file(1)).len(), page_bytes() as u64);
}

#[test]
fn a_reservation_takes_addresses_and_no_memory() {
    let arena = Arena::reserve(1024, 1 << 30).unwrap();
    assert_eq!(map(&arena, &file(1)).as_ref()[0], 1);
}

#[test]
fn a_file_cut_short_reads_as_zeroes_and_poisons_every_thread_that_faults() {
    // Again and again, so that the threads do meet on the same page.
    for _ in 0..50 {
        let arena = arena(1, 8);
        let file = file(8);
        let mapping = map(&arena, &file);
        file.set_len(2 * page_bytes() as u64).unwrap();
        let (faults_before, losses_before) = (faults(), losses());
        let start = Barrier::new(4);
        let read = || {
            start.wait();
            let bytes = mapping.as_ref();
            let sum: u64 = bytes[2 * page_bytes()..].iter().map(|byte| u64::from(*byte)).sum();
            (sum, bytes[0], mapping.is_bad(), take_poison(), is_poisoned())
        };
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(results.iter().all(|(sum, first, is_bad, ..)| (*sum, *first, *is_bad) == (0, 1, true)));
        assert!(results.iter().any(|(.., was_poisoned, _)| *was_poisoned));
        assert!(results.iter().all(|(.., is_poisoned)| !*is_poisoned));
        assert!(faults() >= faults_before + 6);
        assert!(losses() > losses_before);
        assert!(!is_poisoned(), "this thread has read nothing");
    }
}

#[test]
fn whoever_reads_replaced_pages_later_sees_the_loss_though_not_a_fault() {
    let arena = arena(1, 1);
    let file = file(1);
    let mapping = map(&arena, &file);
    let (taken, other, later) = (Taken::default(), Taken::default(), Taken::default());
    taken.add(mapping.as_ref(), losses());
    other.add(&[0; 8], losses());
    assert!(!taken.is_lost());
    file.set_len(0).unwrap();
    thread::scope(|scope| scope.spawn(|| probe(mapping.as_ref())).join()).unwrap().unwrap_err();
    assert_eq!(guarded(|| mapping.as_ref()[0]), Ok(0));
    assert!(mapping.is_bad() && taken.is_lost() && !other.is_lost());
    later.add(mapping.as_ref(), losses());
    assert!(!later.is_lost(), "nobody takes from what is bad");
}

#[test]
fn what_was_taken_from_another_mapping_is_not_lost() {
    let arena = arena(2, 1);
    let files = [file(1), file(1)];
    let mappings = [map(&arena, &files[0]), map(&arena, &files[1])];
    let taken = [Taken::default(), Taken::default()];
    taken[0].add(mappings[0].as_ref(), losses());
    taken[1].add(mappings[1].as_ref(), losses());
    files[1].set_len(0).unwrap();
    probe(mappings[1].as_ref()).unwrap_err();
    assert_eq!((taken[0].is_lost(), taken[1].is_lost()), (false, true));
}

#[test]
fn a_mapping_marked_bad_still_counts_as_lost_when_it_faults() {
    let arena = arena(1, 1);
    let file = file(1);
    let mapping = map(&arena, &file);
    mapping.mark_bad();
    let before = losses();
    file.set_len(0).unwrap();
    probe(mapping.as_ref()).unwrap_err();
    assert!(losses() > before);
}

#[test]
fn guarded_tells_and_leaves_the_flag_as_it_was() {
    let arena = arena(1, 2);
    let file = file(2);
    let mapping = map(&arena, &file);
    file.set_len(page_bytes() as u64).unwrap();
    let second = page_bytes();
    assert_eq!(guarded(|| mapping.as_ref()[0]), Ok(1));
    note_efault();
    assert!(is_poisoned());
    assert_eq!(guarded(|| mapping.as_ref()[0]), Ok(1), "poisoned before");
    assert_eq!(guarded(|| mapping.as_ref()[second]), Err(Poisoned));
    assert!(take_poison() && !take_poison());
}

#[test]
fn errno_outlives_a_fault() {
    let arena = arena(1, 1);
    let file = file(1);
    let mapping = map(&arena, &file);
    file.set_len(0).unwrap();
    // SAFETY: this thread's `errno`.
    unsafe { *libc::__errno_location() = 4242 };
    let is_read = probe(mapping.as_ref());
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(4242));
    is_read.unwrap_err();
}

#[test]
fn populating_waits_for_what_is_there_and_refuses_the_rest() {
    let arena = arena(1, 4);
    let file = file(4);
    let mapping = map(&arena, &file);
    mapping.will_need(0..mapping.len());
    mapping.populate(0..mapping.len()).unwrap();
    assert!(mapping.is_resident(0..mapping.len()));
    mapping.populate(7..7).unwrap();
    let outside = mapping.populate(page(4)).unwrap_err();
    assert_eq!(outside.kind(), io::ErrorKind::InvalidInput);
    assert!(!mapping.is_resident(page(4)) && !mapping.is_bad());
    file.set_len(2 * page_bytes() as u64).unwrap();
    mapping.populate(page(1)).unwrap();
    let missing = mapping.populate(page(1).start..page(2).end).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::UnexpectedEof);
    assert!(mapping.is_bad() && !is_poisoned());
}

#[test]
fn what_the_page_cache_dropped_is_not_resident() {
    let arena = arena(1, 300);
    let file = file(300);
    file.sync_all().unwrap();
    let mapping = map(&arena, &file);
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    // A file system in memory keeps its pages; then there is nothing to see.
    if mapping.is_resident(page(299)) {
        return;
    }
    assert!(!mapping.is_resident(0..mapping.len()));
    mapping.populate(page(0)).unwrap();
    assert!(mapping.is_resident(0..1));
    mapping.populate(0..mapping.len()).unwrap();
    assert!(mapping.is_resident(0..mapping.len()));
}

#[test]
fn mapped_bytes_are_located_and_others_are_not() {
    let (one, two) = (arena(3, 2), arena(3, 2));
    let mappings = [map(&one, &file(1)), map(&one, &file(2)), map(&two, &file(2))];
    let place = |index: usize, at: usize| locate(&mappings[index].as_ref()[at..=at]).unwrap();
    assert_eq!((place(0, 0).slot, place(0, 0).offset), (0, 0));
    assert_eq!((place(1, page_bytes() + 5).slot, place(1, 5).offset), (1, 5));
    assert_eq!(place(1, page_bytes()).offset, page_bytes() as u64);
    assert_eq!(place(0, 0).arena, place(1, 0).arena);
    assert_ne!(place(0, 0).arena, place(2, 0).arena);
    assert_eq!(locate(&mappings[0].as_ref()[..0]), None);
    assert_eq!(locate(&[0; 8]), None);
}

#[test]
fn arenas_come_and_go_while_others_fault() {
    let arena = arena(1, 1);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..2000).for_each(|_| drop(self::arena(3, 1))));
        }
        for _ in 0..200 {
            let file = file(1);
            let mapping = map(&arena, &file);
            file.set_len(0).unwrap();
            assert_eq!(probe(mapping.as_ref()), Err(Poisoned));
        }
    });
}

const CHILD: &str = "LARDER_TEST_SIGBUS";

/// Runs one test of this binary alone in a process, which is to die of SIGBUS.
fn dies_of_sigbus(test: &str) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("region::tests::{test}"), "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(child.signal(), Some(libc::SIGBUS), "{child}");
}

fn without_core_dump() {
    rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
    )
    .unwrap();
}

#[test]
fn a_fault_outside_of_every_arena_ends_the_process() {
    if std::env::var_os(CHILD).is_none() {
        return dies_of_sigbus("a_fault_outside_of_every_arena_ends_the_process");
    }
    without_core_dump();
    let _arena = arena(1, 1);
    let file = file(1);
    // SAFETY: a mapping of its own, of which only this test knows.
    let foreign = unsafe { memmap2::Mmap::map(&file) }.unwrap();
    file.set_len(0).unwrap();
    let _ = probe(&foreign);
}

#[test]
fn a_sigbus_that_was_sent_ends_the_process() {
    if std::env::var_os(CHILD).is_none() {
        return dies_of_sigbus("a_sigbus_that_was_sent_ends_the_process");
    }
    without_core_dump();
    let _arena = arena(1, 1);
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::BUS).unwrap();
    thread::sleep(std::time::Duration::from_secs(20));
}

#[test]
fn a_memory_file_gets_huge_pages_though_the_process_has_none() {
    let length = 2 * HUGE_PAGE_BYTES;
    let file = File::from(rustix::fs::memfd_create("huge", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.set_len(length).unwrap();
    for (byte, at) in [(1, 0), (2, HUGE_PAGE_BYTES)] {
        std::os::unix::fs::FileExt::write_all_at(&file, &[byte], at).unwrap();
    }
    disable_transparent_huge_pages(true).unwrap();
    // Its slots are longer than the file, and the second one begins at a huge page too.
    let arena = Arena::reserve(2, length + 1).unwrap();
    let (_first, mapping) = (map(&arena, &file), map(&arena, &file));
    let result = mapping.collapse();
    assert!(transparent_huge_pages_are_disabled().unwrap());
    let bytes = mapping.as_ref();
    assert_eq!((bytes[0], bytes[1], bytes[HUGE_PAGE_BYTES as usize]), (1, 0, 2));
    if let Err(error) = result {
        assert_ne!(error.raw_os_error(), Some(libc::EFAULT), "{error}");
        return;
    }
    let start = format!("{:x}-", bytes.as_ptr().addr());
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
    let huge = lines.find_map(|line| line.strip_prefix("ShmemPmdMapped:")).unwrap();
    assert_eq!(huge.trim(), "4096 kB");
}
