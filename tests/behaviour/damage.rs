//! Damage to the files of a store costs what was in the damaged place, and never serves a wrong byte.
//!
//! `LARDER_DAMAGE_TRIALS` sets how many damages are done, `LARDER_DAMAGE_SEED` which.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::node::{Node, node};
use crate::support::random::{Random, seed, setting};
use crate::support::request::get;
use crate::support::revisions::Revisions;
use crate::support::{heavy, pattern};

/// Damages between two starts.
const TOGETHER: u64 = 10;
const BLOCK: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    FlipBit,
    FlipBitOfHeader,
    FlipBitOfTrailer,
    FlipBitOfFooter,
    Truncate,
    Remove,
    Append,
    Zeroes,
    Garbage,
}

const DAMAGES: [Damage; 9] = [
    Damage::FlipBit,
    Damage::FlipBitOfHeader,
    Damage::FlipBitOfTrailer,
    Damage::FlipBitOfFooter,
    Damage::Truncate,
    Damage::Remove,
    Damage::Append,
    Damage::Zeroes,
    Damage::Garbage,
];

fn segments(store: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.join("segments")).expect("the segments");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn flip(file: &File, offset: u64, random: &mut Random) {
    let mut byte = [0];
    if file.read_exact_at(&mut byte, offset).is_ok() {
        byte[0] ^= 1 << random.within(0..8);
        file.write_all_at(&byte, offset).expect("a flipped bit");
    }
}

/// Damages one of the files.
fn damage(store: &Path, random: &mut Random) -> Damage {
    let files = segments(store);
    let (path, damage) = (random.pick(&files), *random.pick(&DAMAGES));
    if damage == Damage::Remove {
        fs::remove_file(path).expect("a removed file");
        return damage;
    }
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a segment");
    let length = file.metadata().expect("its length").len();
    let at = random.within(0..length);
    let block = at / BLOCK * BLOCK;
    match damage {
        Damage::FlipBit => flip(&file, at, random),
        Damage::FlipBitOfHeader => flip(&file, random.within(0..64), random),
        Damage::FlipBitOfTrailer => flip(&file, length.saturating_sub(random.within(1..65)), random),
        Damage::FlipBitOfFooter => flip(&file, length.saturating_sub(random.within(64..2048)), random),
        Damage::Truncate => file.set_len(at).expect("a shorter file"),
        Damage::Append => {
            let garbage = pattern(random.within(1..100_000) as usize, random.next());
            file.write_all_at(&garbage, length).expect("a longer file");
        }
        Damage::Zeroes => file.write_all_at(&[0; BLOCK as usize], block).expect("zeroes"),
        Damage::Garbage => {
            file.write_all_at(&pattern(BLOCK as usize, random.next()), block).expect("garbage");
        }
        Damage::Remove => {}
    }
    damage
}

/// Puts the undamaged files back.
fn restore(whole: &[(PathBuf, Vec<u8>)], store: &Path) {
    for path in segments(store) {
        fs::remove_file(path).expect("a removed file");
    }
    for (path, bytes) in whole {
        fs::write(path, bytes).expect("a whole file");
    }
}

fn paths() -> Vec<String> {
    let kinds = [("small", 150), ("large", 12), ("chunked", 15)];
    kinds.iter().flat_map(|(kind, count)| (0..*count).map(move |n| format!("/{kind}/{n}"))).collect()
}

/// Reads back what is stored; gives the paths that are not.
fn missing(node: &Node, revisions: &Revisions, paths: &[String]) -> Vec<String> {
    let mut client = Client::connect(node.http());
    let mut missing = Vec::new();
    for path in paths {
        let only_stored = get(path).with("Cache-Control", "only-if-cached");
        // A body whose damage is found when its head is out breaks off.
        let response =
            client.try_send(&only_stored.bytes()).ok().and_then(|()| client.try_response("GET").ok());
        match response {
            Some(response) if response.status == 200 => {
                revisions.revision(path, &response).unwrap_or_else(|wrong| panic!("{wrong}"));
            }
            Some(_) => missing.push(path.clone()),
            None => {
                missing.push(path.clone());
                client = Client::connect(node.http());
            }
        }
    }
    missing
}

#[test]
fn damaged_files_cost_only_what_was_in_them() {
    cost_only_what_was_in_them("16MiB", 100);
}

/// Where memory has no room, small bodies are served from the files too.
#[test]
fn so_they_do_where_memory_has_no_room() {
    cost_only_what_was_in_them("1MiB", 50);
}

fn cost_only_what_was_in_them(memory: &str, trials: u64) {
    let _alone = heavy();
    let trials = setting("LARDER_DAMAGE_TRIALS", trials);
    let mut random = Random::new(seed("LARDER_DAMAGE_SEED"));
    let (revisions, paths) = (Revisions::start(), paths());
    let builder = node(&revisions.origin).cache("honor_request_cache_control = true");
    let store = "segment = \"1MiB\"\nmax_object = \"2MiB\"";
    let mut node = builder.memory(memory).disk("64MiB").store(store).start();
    for path in &paths {
        node.get(path).assert_status(200);
    }
    node.await_metric("larder_store_writes_total{outcome=\"written\"}", paths.len() as f64);
    // The last segment is not sealed, the others are.
    node = node.restarted_after(Signal::KILL, |_| ());
    assert!(missing(&node, &revisions, &paths).is_empty(), "all is there without damage");
    let mut whole = Vec::new();
    node = node.restarted_after(Signal::KILL, |dir| {
        let files = segments(&dir.join("store"));
        whole.extend(files.into_iter().map(|path| (path.clone(), fs::read(path).expect("a segment"))));
    });

    let (mut done, mut lost, mut damaged) = (0, 0, Vec::new());
    while done < trials {
        damaged.clear();
        node = node.restarted_after(Signal::KILL, |dir| {
            let store = dir.join("store");
            restore(&whole, &store);
            damaged.extend((0..TOGETHER).map(|_| damage(&store, &mut random)));
        });
        done += TOGETHER;
        let missing = missing(&node, &revisions, &paths);
        lost += missing.len();
        // Of a file that is gone nothing tells that it was there.
        if !missing.is_empty() && !damaged.contains(&Damage::Remove) {
            let errors = node.metric("larder_store_errors_total");
            assert!(errors >= 1.0, "{damaged:?} cost {missing:?}, and no error was counted");
            let is_told = node.lines().iter().any(|line| line.contains("WARN") && line.contains("segment"));
            assert!(is_told, "{damaged:?}: {:#?}", node.lines());
        }
        if let Some(path) = missing.first() {
            let again = node.get(path);
            assert!(!again.is_hit(), "{path}: {:?}", again.fields);
            revisions.revision(path, &again).unwrap_or_else(|wrong| panic!("{wrong}"));
            node.await_hit(path);
        }
        node.assert_no_panic();
    }
    eprintln!("{done} damages, {lost} responses lost of {}", done / TOGETHER * paths.len() as u64);
    assert!(lost > 0, "nothing was damaged");
}
