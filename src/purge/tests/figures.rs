//! What things cost. Ignored: figures mean something in a release build and on an idle machine only.
//!
//! `cargo test --release --lib purge::tests::figures -- --ignored --nocapture --test-threads 1`

use std::fs;
use std::time::Instant;

use super::*;

struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        // Not the folder for temporary files, which may be in memory.
        let target = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let path = target.join(format!("larder-purge-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn open(&self) -> Arc<Purges> {
        Purges::open(Config { path: Some(self.0.clone()), ..Config::default() }, Clock::start()).unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
#[ignore = "figures"]
fn one_purge_after_the_other_with_a_real_sync() {
    let directory = Temporary::new("latency");
    let purges = directory.open();
    let mut us: Vec<u128> = (0..1000)
        .map(|i| {
            let started = Instant::now();
            block_on(purges.purge(tag(&format!("t{i}")))).unwrap();
            started.elapsed().as_micros()
        })
        .collect();
    us.sort_unstable();
    eprintln!("a purge: p50 {} µs, p99 {} µs, max {} µs", us[500], us[990], us[999]);
    let tags = (0..10_000).map(|i| Selector::tag(&format!("{i:0>100}")).unwrap()).collect();
    let started = Instant::now();
    block_on(purges.purge(request(tags))).unwrap();
    eprintln!("a purge of 10,000 tags, 1 MiB: {:?}", started.elapsed());
}

#[test]
#[ignore = "figures"]
fn a_million_purges() {
    let directory = Temporary::new("million");
    let before = 1_000;
    write_log(&directory.0, before);
    let started = Instant::now();
    let purges = directory.open();
    eprintln!("a million entries open in {:?}", started.elapsed());
    eprintln!("{:?}", purges.stats());
    assert_eq!(purges.stats().entries, 1_000_000);
    assert_eq!(check(&purges, "product-0", before), Verdict::Hard);
    check_costs(&purges, before);
    let last = block_on(purges.purge(tag("last"))).unwrap().seq;
    let started = Instant::now();
    purges.compact(last - 10).unwrap();
    eprintln!("compacted in {:?}: {:?}", started.elapsed(), purges.stats());
}

/// The worst case: no purge shared its sync with another.
fn write_log(path: &std::path::Path, before: u64) {
    let disk = Arc::new(file::Directory::new(path).unwrap());
    let mut log = log::Log::create(disk, Arc::default()).unwrap();
    log.push(&[log::encode_gap(matcher::Gap { from: 0, until: before })]);
    for i in 0..1_000_000 {
        let request = Request { site: Some("shop".into()), ..tag(&format!("product-{i}")) };
        let (seq, at) = (before + 1 + i, Clock::start().now().0);
        let record = format::Record::Purge { seq, id: [7; format::ID_BYTES], at, request: &request };
        log.push(&[record.encode().unwrap()]);
        if i % 10_000 == 9_999 {
            log.flush().unwrap();
        }
    }
    log.take_over().unwrap();
}

/// Of objects that are kept.
fn check_costs(purges: &Purges, as_of: u64) {
    let tags: Vec<Box<str>> = (0..20).map(|i| format!("kept-{i}").into()).collect();
    let measure = |name: &str, tags: &[Box<str>], as_of: u64| {
        let subject = Subject { site: "shop", host: "www.example", path: "/a/b/c/d.css", query: None, tags };
        let started = Instant::now();
        for _ in 0..1_000_000_u32 {
            let verdict = std::hint::black_box(purges).check(std::hint::black_box(&subject), as_of);
            assert_eq!(verdict, Verdict::Kept);
        }
        eprintln!("check, {name}: {} ns", started.elapsed().as_nanos() / 1_000_000);
    };
    measure("nothing new", &tags, purges.applied());
    measure("tags purged only, 0 tags", &[], as_of);
    measure("tags purged only, 20 tags", &tags, as_of);
    for soft in [false, true] {
        for site in [None, Some("shop".into())] {
            let url = |path: &str| Selector::Url { host: "h".into(), path: path.into(), query: None };
            let prefix = Selector::Prefix { host: "h".into(), path: "/1/2/3/4/5".into() };
            let site_all = if site.is_some() { url("/all") } else { Selector::Host("other".into()) };
            let selectors =
                vec![url("/x"), prefix, Selector::Host("i".into()), Selector::Tag("z".into()), site_all];
            let request = Request { site, soft, ..request(selectors) };
            block_on(purges.purge(request)).unwrap();
        }
    }
    measure("all kinds, hard and soft, with and without site, 0 tags", &[], as_of);
    measure("all kinds, hard and soft, with and without site, 20 tags", &tags, as_of);
}
