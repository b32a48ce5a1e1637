use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode};

use super::*;
use crate::object::{Body, Charge, Head, charged_chunk};
use crate::rules::freshness::Freshness;
use crate::rules::key::Scheme;
use crate::rules::time::Millis;
use crate::rules::vary::VaryRule;

const MIB: u64 = 1024 * 1024;

fn store(memory_bytes: u64) -> Arc<Store> {
    let disk = DiskConfig {
        path: None,
        bytes: 0,
        segment_bytes: MIB,
        memory_object_bytes: 64 * 1024,
        admission: Admission::All,
    };
    let config = Config { memory_bytes, max_object_bytes: memory_bytes / 4, workers: 0, disk };
    Store::open(&config, Clock::start()).unwrap()
}

fn insert(store: &Store, object: Arc<Object>, max_variants: usize) {
    let complete = Complete { body: Body::default(), is_admitted: false, permit: None };
    store.insert(object, max_variants, complete);
}

fn key(n: usize) -> CacheKey {
    CacheKey::new(Scheme::Http, "a.example", &format!("/{n}"), None)
}

fn object(store: &Store, key: &CacheKey, bytes: usize, vary: &[(&str, &str)]) -> Arc<Object> {
    let mut request = HeaderMap::new();
    for (name, value) in vary {
        let name = http::HeaderName::try_from(*name).unwrap();
        request.insert(name, HeaderValue::try_from(*value).unwrap());
    }
    let rule = VaryRule::new(request.keys().cloned().collect());
    let variant = rule.key(&request);
    let freshness = Freshness {
        response_time: Millis(0),
        initial_age_ms: 0,
        fresh_until: Millis(60_000),
        swr_until: Millis(60_000),
        sie_until: Millis(60_000),
        no_cache: false,
        never_stale: false,
        source: "max-age",
        strip_fields: Box::default(),
    };
    let head = Head::new(key.clone(), StatusCode::OK, HeaderMap::new(), (rule, variant), freshness);
    let charge = Charge::new(store.gauge(), bytes as u64);
    let body = Body::new(vec![charged_chunk(&vec![0; bytes], charge)]);
    Arc::new(Object::new(Arc::new(head), Arc::new(body), store.gauge()))
}

fn put(store: &Store, n: usize, bytes: usize) {
    let key = key(n);
    insert(store, object(store, &key, bytes, &[]), 8);
}

fn request(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::try_from(value).unwrap());
    headers
}

#[test]
fn what_is_stored_is_found_and_what_is_removed_is_not() {
    let store = store(MIB);
    let stored = object(&store, &key(1), 100, &[]);
    insert(&store, stored.clone(), 8);
    let entry = store.get(&key(1)).unwrap();
    assert!(Arc::ptr_eq(entry.select(&HeaderMap::new()).unwrap(), &stored));
    assert!(store.get(&key(2)).is_none());
    store.remove(&stored);
    assert!(store.get(&key(1)).is_none());
    assert_eq!(store.stats().objects, 0);
}

#[test]
fn a_removal_of_what_was_replaced_removes_nothing() {
    let store = store(MIB);
    let old = object(&store, &key(1), 100, &[]);
    insert(&store, old.clone(), 8);
    put(&store, 1, 200);
    store.remove(&old);
    assert_eq!(store.get(&key(1)).unwrap().variants()[0].body.len(), 200);
}

#[test]
fn variants_are_selected_by_their_vary_and_bounded() {
    let store = store(MIB);
    for value in ["a", "b", "c"] {
        insert(&store, object(&store, &key(1), 10, &[("x", value)]), 2);
    }
    let entry = store.get(&key(1)).unwrap();
    assert_eq!(entry.variants().len(), 2);
    assert!(entry.select(&request("x", "c")).is_some());
    assert!(entry.select(&request("x", "z")).is_none());
}

#[test]
fn the_least_recently_used_variant_leaves() {
    let store = store(MIB);
    for (ms, value) in [(1, "a"), (2, "b")] {
        let object = object(&store, &key(1), 10, &[("x", value)]);
        object.touch(Millis(ms));
        insert(&store, object, 2);
    }
    let entry = store.get(&key(1)).unwrap();
    entry.select(&request("x", "a")).unwrap().touch(Millis(3));
    insert(&store, object(&store, &key(1), 10, &[("x", "c")]), 2);
    let entry = store.get(&key(1)).unwrap();
    assert!(entry.select(&request("x", "a")).is_some());
    assert!(entry.select(&request("x", "b")).is_none());
}

#[test]
fn an_invalidated_key_is_marked_in_every_variant() {
    let store = store(MIB);
    for value in ["a", "b"] {
        insert(&store, object(&store, &key(1), 10, &[("x", value)]), 8);
    }
    store.invalidate(&key(1));
    assert!(store.get(&key(1)).unwrap().variants().iter().all(|object| object.is_invalidated()));
}

#[test]
fn what_was_asked_for_before_a_change_is_marked_when_it_comes() {
    let store = store(MIB);
    let is_marked = |n| store.get(&key(n)).unwrap().variants()[0].is_invalidated();
    put(&store, 1, 10);
    store.changed(&key(1));
    assert!(is_marked(1));
    // Their fetches began before everything.
    put(&store, 1, 10);
    put(&store, 2, 10);
    assert!(is_marked(1) && !is_marked(2));
    drop(write(&store, 1, 10));
    assert!(!is_marked(1), "it was asked for after the change");
}

#[test]
fn the_budget_holds_whatever_is_stored() {
    let store = store(4 * MIB);
    for n in 0..3000 {
        put(&store, n, 1000 + (n * 7919) % 60_000);
        assert!(store.stats().resident_bytes <= 4 * MIB / 8 * 7);
    }
    let stats = store.stats();
    assert!(stats.resident_bytes > 2 * MIB, "{stats:?}");
    assert_eq!(stats.resident_bytes, recount(&store), "the sum is kept in step");
}

fn recount(store: &Store) -> u64 {
    (0..3000).filter_map(|n| store.get(&key(n))).map(|entry| entry.weight()).sum()
}

#[test]
fn an_object_larger_than_a_shards_share_is_stored() {
    let store = store(8 * MIB);
    put(&store, 1, 2 * MIB as usize);
    assert!(store.get(&key(1)).is_some());
}

#[test]
fn a_scan_does_not_flush_what_is_asked_for_often() {
    let store = store(4 * MIB);
    let hot: Vec<CacheKey> = (0..100).map(key).collect();
    for n in 0..100 {
        put(&store, n, 10_000);
    }
    for _ in 0..10 {
        for key in &hot {
            store.get(key);
            store.promote(key.hash());
        }
    }
    for n in 1000..6000 {
        put(&store, n, 10_000);
    }
    let kept = hot.iter().filter(|key| store.get(key).is_some()).count();
    assert!(kept >= 90, "{kept} of 100 hot objects survived a scan of 50 MB through 4 MiB");
}

#[test]
fn yesterdays_favourites_do_not_lock_out_todays() {
    let store = store(4 * MIB);
    let mut ask = |n: usize| {
        if store.get(&key(n)).is_none() {
            put(&store, n, 10_000);
        }
        store.promote(key(n).hash());
    };
    for _ in 0..50 {
        (0..350).for_each(&mut ask);
    }
    for _ in 0..200 {
        (1000..1200).for_each(&mut ask);
    }
    let kept = (1000..1200).filter(|n| store.get(&key(*n)).is_some()).count();
    assert!(kept >= 180, "{kept} of 200 new favourites are stored");
}

#[test]
fn a_reservation_makes_room_and_what_readers_hold_counts() {
    let store = store(MIB);
    for n in 0..20 {
        put(&store, n, 40_000);
    }
    let room = store.budget.reserve(600_000).expect("room is made by eviction");
    assert!(store.stats().charged_bytes <= MIB);
    drop(room);
    // Readers hold every object; evicting them frees nothing.
    let held: Vec<_> = (100..120)
        .map(|n| {
            let object = object(&store, &key(n), 45_000, &[]);
            insert(&store, object.clone(), 8);
            object
        })
        .collect();
    assert!(store.budget.reserve(600_000).is_none(), "there is no room while the readers hold it");
    drop(held);
    assert!(store.budget.reserve(100_000).is_some());
}

#[test]
fn a_failed_growth_changes_nothing() {
    let store = store(MIB);
    let mut room = store.budget.reserve(1000).unwrap();
    assert!(!store.budget.grow(None, &mut room, 2 * MIB));
    assert_eq!(room.bytes(), 1000);
    assert_eq!(store.stats().charged_bytes, 1000);
}

/// A folder for segments; it goes with its owner.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("larder-store-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn open(&self) -> Arc<Store> {
        let disk = DiskConfig {
            path: Some(self.0.clone()),
            bytes: 16 * MIB,
            segment_bytes: MIB,
            memory_object_bytes: 64 * 1024,
            admission: Admission::All,
        };
        let config = Config { memory_bytes: 4 * MIB, max_object_bytes: MIB, workers: 0, disk };
        // The one before lets go of the folder when its threads have ended.
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match Store::open(&config, Clock::start()) {
                Err(OpenError::InUse(_)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                opened => return opened.unwrap(),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Puts an object of which the version is new, and has it written.
fn write(store: &Store, n: usize, bytes: usize) -> Arc<Object> {
    let plain = object(store, &key(n), bytes, &[]);
    let mut freshness = plain.head.freshness.clone();
    freshness.fresh_until = Millis(i64::MAX / 2);
    let selecting = (plain.head.vary.clone(), plain.head.variant.clone());
    let mut head = Head::new(key(n), StatusCode::OK, HeaderMap::new(), selecting, freshness);
    head.version = store.version();
    let object = Arc::new(Object::new(Arc::new(head), plain.body.clone(), store.gauge()));
    let complete = Complete { body: Body::default(), is_admitted: true, permit: None };
    store.insert(object.clone(), 8, complete);
    object
}

#[tokio::test]
async fn a_segment_that_says_what_was_removed_does_not_go_before_the_one_it_was_in() {
    let folder = Folder::new("removed");
    let store = folder.open();
    let removed = write(&store, 1, 100);
    // These stay alive in the first segment, and the second one begins.
    (100..125).for_each(|n| drop(write(&store, n, 40_000)));
    (0..3).for_each(|_| drop(write(&store, 2, 40_000)));
    store.remove(&removed);
    // The segment with the removal is dead soon.
    (0..60).for_each(|_| drop(write(&store, 2, 40_000)));
    (200..580).for_each(|n| drop(write(&store, n, 40_000)));
    store.close().await;
    let stats = store.stats().disk;
    assert!(stats.counters.evicted_segments > 0, "{stats:?}");
    drop(store);
    let store = folder.open();
    assert!(store.load(&key(1)).await.is_none(), "it is back");
}

#[tokio::test]
async fn a_clock_behind_the_newest_record_makes_everything_stale() {
    let folder = Folder::new("clock");
    let store = folder.open();
    write(&store, 1, 100);
    store.close().await;
    drop(store);
    let is_stale = async |store: Arc<Store>| {
        let entry = store.load(&key(1)).await.unwrap();
        let now = Clock::start().now();
        entry.variants()[0].head.freshness.state(now) != crate::rules::freshness::State::Fresh
    };
    let store = folder.open();
    assert!(!is_stale(store.clone()).await);
    // What is written next was written in a year from now.
    store.versions.resume(store.version() + ((365 * 86_400_000) << 16));
    write(&store, 2, 100);
    store.close().await;
    drop(store);
    assert!(is_stale(folder.open()).await);
}
