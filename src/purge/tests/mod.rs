//! The whole, on simulated and real disks.

mod commit;
mod compaction;
mod concurrency;
mod crash;
mod figures;
mod model;
mod sim;

use std::path::PathBuf;
use std::sync::Arc;

use sim::SimDisk;

use super::*;
use crate::telemetry::Clock;

/// A runtime for one thread's calls; nothing here needs a driver.
fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn open(disk: &SimDisk) -> Arc<Purges> {
    try_open(disk).unwrap()
}

fn try_open(disk: &SimDisk) -> Result<Arc<Purges>, OpenError> {
    Purges::on(Some(Arc::new(disk.clone())), PathBuf::from("purge.log"), 100, Clock::start())
}

fn request(selectors: Vec<Selector>) -> Request {
    let who = "test".into();
    Request { site: None, selectors, soft: false, note: None, who, from: None, source: Source::Api }
}

fn tag(tag: &str) -> Request {
    request(vec![Selector::tag(tag).unwrap()])
}

/// An object with one tag.
fn check(purges: &Purges, tag: &str, as_of: u64) -> Verdict {
    let subject = Subject { site: "shop", host: "h", path: "/p", query: None, tags: &[tag.into()] };
    purges.check(&subject, as_of)
}

#[test]
fn a_purge_is_in_effect_listed_and_found() {
    let purges = open(&SimDisk::default());
    let before = purges.applied();
    assert_eq!(check(&purges, "a", before), Verdict::Kept);
    let purge = block_on(purges.purge(tag("a"))).unwrap();
    assert_eq!(purge.seq, before + 1);
    assert_eq!(purges.applied(), purge.seq);
    assert!(purge.id.len() >= 16 && purge.applied_in_us.is_some());
    assert_eq!(check(&purges, "a", before), Verdict::Hard);
    assert_eq!(check(&purges, "b", before), Verdict::Kept);
    assert_eq!(check(&purges, "a", purge.seq), Verdict::Kept);
    assert_eq!(purges.get(&purge.id), Some(purge.clone()));
    assert_eq!(purges.get("?"), None);
    let second = block_on(purges.purge(tag("b"))).unwrap();
    assert_ne!(second.id, purge.id);
    assert_eq!(purges.list(None, 10), [second.clone(), purge.clone()]);
    assert_eq!(purges.list(None, 1), std::slice::from_ref(&second));
    assert_eq!(purges.list(Some(second.seq), 10), [purge]);
    assert!(matches!(block_on(purges.purge(request(vec![]))), Err(PurgeError::Request(_))));
    assert_eq!(purges.stats().entries, 2);
}

#[test]
fn a_site_restricts_and_the_scheme_does_not_count() {
    let purges = open(&SimDisk::default());
    let before = purges.applied();
    block_on(purges.purge(Request { site: Some("shop".into()), ..request(vec![Selector::All]) })).unwrap();
    let subject = |site| Subject { site, host: "h", path: "/p", query: None, tags: &[] };
    assert_eq!(purges.check(&subject("shop"), before), Verdict::Hard);
    assert_eq!(purges.check(&subject("blog"), before), Verdict::Kept);
    let soft = Request { soft: true, ..request(vec![Selector::Host("h".into())]) };
    let at = block_on(purges.purge(soft)).unwrap().at;
    assert_eq!(purges.check(&subject("blog"), before), Verdict::Soft { at });
    assert_eq!(purges.check(&subject("shop"), before), Verdict::Hard);
}

#[test]
fn without_a_directory_it_lives_in_memory() {
    let purges = Purges::open(Config::default(), Clock::start()).unwrap();
    let before = purges.applied();
    block_on(purges.purge(tag("a"))).unwrap();
    assert_eq!(check(&purges, "a", before), Verdict::Hard);
    assert_eq!((purges.stats().entries, purges.stats().bytes, purges.stats().syncs), (1, 0, 0));
    purges.compact(purges.applied()).unwrap();
    assert_eq!(purges.stats().selectors, 0);
    assert_eq!(purges.list(None, 10).len(), 1);
}

#[test]
fn metrics_have_the_shape_of_the_api() {
    let purges = open(&SimDisk::default());
    let soft = Request {
        soft: true,
        source: Source::Fastly,
        site: Some("shop".into()),
        ..request(vec![Selector::All, Selector::Tag("t".into())])
    };
    block_on(purges.purge(soft)).unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register_collector(Box::new(PurgeMetrics(purges)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        r#"purges_total{kind="site",soft="true",source="fastly"} 1"#,
        r#"purges_total{kind="tag",soft="true",source="fastly"} 1"#,
        "purge_duration_seconds_count 1",
        "purge_log_entries{} 1",
        r#"purge_log_syncs_total{outcome="failed"} 0"#,
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
