//! Random purges and objects against a list of all purges, with restarts and compactions in between.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Purge {
        site: Option<usize>,
        selectors: Vec<Selector>,
        soft: bool,
    },
    /// A new object, or one that was fetched again.
    Fetch(Object),
    Restart,
    Kill,
    Compact,
}

#[derive(Clone, Debug)]
struct Object {
    site: usize,
    host: usize,
    path: String,
    query: Option<&'static str>,
    tags: Vec<Box<str>>,
}

const SITES: [&str; 2] = ["shop", "blog"];
const HOSTS: [&str; 3] = ["a", "b", "a:8443"];

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&["a", "b", "ab", ""][..]), 0..4)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

fn query() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(&[None, Some(""), Some("x=1")][..])
}

fn a_tag() -> impl Strategy<Value = Box<str>> {
    prop::sample::select(&["t", "u", "T", "a"][..]).prop_map(Into::into)
}

fn selector() -> impl Strategy<Value = Selector> {
    let host = || prop::sample::select(&HOSTS[..]).prop_map(Box::<str>::from);
    let any_or = || prop::sample::select(&["a", "b", "a:8443", ""][..]).prop_map(Box::<str>::from);
    prop_oneof![
        4 => (any_or(), path(), query()).prop_map(|(host, path, query)| Selector::Url {
            host,
            path: path.into(),
            query: query.map(Into::into),
        }),
        4 => (any_or(), path()).prop_map(|(host, path)| Selector::Prefix { host, path: path.into() }),
        3 => a_tag().prop_map(Selector::Tag),
        1 => host().prop_map(Selector::Host),
        1 => Just(Selector::All),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let purge = (prop::option::of(0..2_usize), prop::collection::vec(selector(), 1..3), any::<bool>());
    let object = (0..2_usize, 0..3_usize, path(), query(), prop::collection::vec(a_tag(), 0..3));
    prop_oneof![
        6 => purge.prop_map(|(site, selectors, soft)| Step::Purge { site, selectors, soft }),
        6 => object.prop_map(|(site, host, path, query, tags)| {
            Step::Fetch(Object { site, host, path, query, tags })
        }),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => Just(Step::Compact),
    ]
}

fn covers(purge: &Purge, object: &Object) -> bool {
    if purge.request.site.as_deref().is_some_and(|site| site != SITES[object.site]) {
        return false;
    }
    let is_of = |host: &str| host.is_empty() || host == HOSTS[object.host];
    purge.request.selectors.iter().any(|selector| match selector {
        Selector::Url { host, path, query } => {
            is_of(host) && **path == *object.path && query.as_deref() == object.query
        }
        Selector::Prefix { host, path } => {
            let prefix = path.strip_suffix('/').unwrap_or(path);
            let rest = object.path.strip_prefix(prefix);
            is_of(host) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        Selector::Tag(tag) => object.tags.contains(tag),
        Selector::Host(host) => is_of(host),
        Selector::All => true,
    })
}

fn assert_verdicts(purges: &Purges, reference: &[Arc<Purge>], objects: &[(Object, u64)]) {
    for (object, as_of) in objects {
        let subject = Subject {
            site: SITES[object.site],
            host: HOSTS[object.host],
            path: &object.path,
            query: object.query,
            tags: &object.tags,
        };
        let hits: Vec<_> = reference.iter().filter(|p| p.seq > *as_of && covers(p, object)).collect();
        let verdict = purges.check(&subject, *as_of);
        let first_soft = hits.iter().map(|purge| purge.at).min();
        match verdict {
            Verdict::Hard => assert!(hits.iter().any(|p| !p.request.soft), "{object:?} at {as_of}: Hard"),
            Verdict::Kept => assert!(hits.is_empty(), "{object:?} at {as_of}: Kept, but for {hits:?}"),
            Verdict::Soft { at } => {
                assert!(!hits.is_empty() && hits.iter().all(|p| p.request.soft), "{object:?}: Soft");
                // All of a test is one run.
                assert!(first_soft.is_some_and(|first| at <= first && first.saturating_sub(at) < 60_000));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn verdicts_are_those_of_a_list_of_all_purges(steps in prop::collection::vec(step(), 1..60)) {
        let mut disk = SimDisk::default();
        let mut purges = open(&disk);
        let mut reference: Vec<Arc<Purge>> = Vec::new();
        let mut objects: Vec<(Object, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Purge { site, selectors, soft } => {
                    let site = site.map(|site| SITES[site].into());
                    let request = Request { site, soft, ..request(selectors) };
                    reference.push(block_on(purges.purge(request)).unwrap());
                }
                Step::Fetch(object) => {
                    objects.retain(|(other, _)| {
                        (other.host, &other.path, other.query) != (object.host, &object.path, object.query)
                    });
                    objects.push((object, purges.applied()));
                }
                Step::Restart => {
                    drop(purges);
                    purges = open(&disk);
                }
                Step::Kill => {
                    let killed = disk.crash(&mut || 0);
                    drop(purges);
                    disk = killed;
                    purges = open(&disk);
                }
                Step::Compact => {
                    let oldest = objects.iter().map(|(_, as_of)| *as_of).min();
                    purges.compact(oldest.unwrap_or(u64::MAX)).unwrap();
                }
            }
            assert_verdicts(&purges, &reference, &objects);
        }
        let listed: Vec<u64> = purges.list(None, 100).iter().map(|purge| purge.seq).collect();
        let wanted: Vec<u64> = reference.iter().rev().map(|purge| purge.seq).collect();
        prop_assert_eq!(listed, wanted);
    }
}
