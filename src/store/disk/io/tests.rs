use std::sync::atomic::AtomicU32;

use super::*;

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("larder-disk-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(file: &Arc<dyn DiskFile>, len: usize, offset: u64) -> Vec<u8> {
    let mut buf = vec![0xff; len];
    file.read_at(&mut buf, offset).unwrap();
    buf
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// What every disk does.
fn check(disk: &dyn Disk) {
    let file = disk.create(7, 10_000).unwrap();
    assert_eq!(kind(disk.create(7, 10_000)), Some(ErrorKind::AlreadyExists));
    assert_eq!(read(&file, 10_000, 0), vec![0; 10_000]);

    let bufs = [IoSlice::new(b""), IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")];
    file.write_at(&bufs, 128).unwrap();
    file.write_at(&[], 128).unwrap();
    file.write_at(&bufs[..1], 128).unwrap();
    file.sync().unwrap();
    assert_eq!(read(&file, 9, 127), b"\0one two\0");
    assert_eq!(kind(file.read_at(&mut [0; 2], 9_999)), Some(ErrorKind::UnexpectedEof));

    // More than the kernel takes at once.
    let many: Vec<[u8; 1]> = (0..3000).map(|n| [n as u8]).collect();
    let bufs: Vec<IoSlice<'_>> = many.iter().map(|byte| IoSlice::new(byte)).collect();
    file.write_at(&bufs, 4096).unwrap();
    assert_eq!(read(&file, 3000, 4096), many.concat());

    disk.create(3, 64).unwrap();
    disk.create(u32::MAX, 1).unwrap();
    assert_eq!(disk.list().unwrap(), [(3, 64), (7, 10_000), (u32::MAX, 1)]);
    assert_eq!(read(&disk.open(7).unwrap(), 7, 128), b"one two");
    assert_eq!(kind(disk.open(8)), Some(ErrorKind::NotFound));

    disk.remove(7).unwrap();
    disk.remove(7).unwrap();
    assert_eq!(disk.list().unwrap(), [(3, 64), (u32::MAX, 1)]);
    assert_eq!(kind(disk.open(7)), Some(ErrorKind::NotFound));
    assert_eq!(read(&file, 7, 128), b"one two", "whoever holds it still reads it");
}

#[test]
fn a_directory_is_a_disk() {
    let folder = Folder::new();
    let disk = Directory::new(&folder.0.join("made/when/missing")).unwrap();
    check(&disk);
    assert!(disk.is_persistent());
}

#[test]
fn memory_is_a_disk() {
    check(&Memory::default());
    assert!(!Memory::default().is_persistent());
}

#[test]
fn a_simulated_disk_is_a_disk() {
    check(&super::super::sim::SimDisk::new(1));
}

#[test]
fn a_directory_keeps_its_files_and_leaves_others_alone() {
    let folder = Folder::new();
    let disk = Directory::new(&folder.0).unwrap();
    disk.create(12, 4096).unwrap().write_at(&[IoSlice::new(b"kept")], 0).unwrap();
    let segments = folder.0.join("segments");
    for name in
        ["0000012.seg", "000000012.seg", "00000013.seg.new", "+0000014.seg", "99999999999.seg", "notes"]
    {
        fs::write(segments.join(name), "not ours").unwrap();
    }
    fs::create_dir(segments.join("00000015.seg")).unwrap();
    std::os::unix::fs::symlink("00000012.seg", segments.join("00000016.seg")).unwrap();

    let disk = Directory::new(&folder.0).unwrap();
    assert_eq!(disk.list().unwrap(), [(12, 4096)]);
    assert_eq!(read(&disk.open(12).unwrap(), 4, 0), b"kept");
}

#[test]
fn a_new_file_has_its_blocks_and_is_private() {
    use std::os::unix::fs::MetadataExt;

    let folder = Folder::new();
    let disk = Directory::new(&folder.0).unwrap();
    disk.create(1, 1 << 20).unwrap();
    let metadata = fs::metadata(folder.0.join("segments/00000001.seg")).unwrap();
    assert_eq!(metadata.len(), 1 << 20);
    assert!(metadata.blocks() * 512 >= 1 << 20);
    assert_eq!(metadata.mode() & 0o777, FILE_MODE);
}

#[test]
fn a_file_that_finds_no_room_is_not_left_behind() {
    let folder = Folder::new();
    let disk = Directory::new(&folder.0).unwrap();
    // More than any file system takes in one file: too large, no room or over quota, depending on it.
    assert!(disk.create(1, i64::MAX as u64).is_err());
    assert_eq!(disk.list().unwrap(), []);
    disk.create(1, 64).unwrap();
}

#[test]
fn a_path_that_is_a_file_is_an_error() {
    let folder = Folder::new();
    fs::write(folder.0.join("file"), "").unwrap();
    assert!(Directory::new(&folder.0.join("file")).is_err());
    fs::write(folder.0.join("segments"), "").unwrap();
    assert_eq!(kind(Directory::new(&folder.0)), Some(ErrorKind::AlreadyExists));
}

#[test]
fn short_writes_are_continued_and_a_write_of_nothing_is_an_error() {
    let bufs = [IoSlice::new(b"abc"), IoSlice::new(b""), IoSlice::new(b"defgh")];
    let mut taken: Vec<u8> = Vec::new();
    write_all(&bufs, 10, |bufs, offset| {
        assert_eq!(offset, 10 + taken.len() as u64);
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(2).collect();
        taken.extend(&bytes);
        Ok(bytes.len())
    })
    .unwrap();
    assert_eq!(taken, b"abcdefgh");

    let mut calls = 0;
    let result = write_all(&bufs, 0, |_, _| {
        calls += 1;
        Ok(if calls == 1 { 4 } else { 0 })
    });
    assert_eq!((kind(result), calls), (Some(ErrorKind::WriteZero), 2));
}
