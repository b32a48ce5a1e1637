//! What is held, for who asks about more than one URL: dry runs, lists of objects and tags. Everything is looked at, so
//! it is for threads that may wait; what a purge has hit already is not held any more.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::Edge;
use super::inspect::{Place, Variant, describe_head};
use crate::purge::{Probe, Verdict};
use crate::rules::freshness::State;
use crate::rules::key::KeyHash;
use crate::rules::time::Millis;
use crate::store::{Held, Mode, Order, Position};

/// Keys that a page of a list looks at, at most; what is found by then is the page.
const MAX_LOOKED_AT: usize = 100_000;
/// URLs that stand for all in a count.
const SAMPLE: usize = 10;
/// Between two looks at the clock, in keys.
const CLOCK_EVERY: usize = 256;

/// Who asks for what.
#[derive(Debug)]
pub struct Holding<'a> {
    /// What is asked for.
    pub probe: &'a Probe,
    /// Sites that the asking one may know of.
    pub sites: &'a [&'a str],
    /// Whether it may know of all, and of what belongs to none any more.
    pub is_of_all_sites: bool,
    /// When what was found by then has to do.
    pub time: Duration,
}

/// How much there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Stored responses: each variant counts, slices of one response are one.
    pub objects: u64,
    /// Of their bodies.
    pub bytes: u64,
    /// Some of their URLs.
    pub sample: Vec<String>,
    /// Whether everything was looked at.
    pub is_complete: bool,
}

impl Holding<'_> {
    fn covers(&self, site: &str) -> bool {
        self.is_of_all_sites || self.sites.contains(&site)
    }
}

impl Edge {
    /// Counts what is held.
    pub fn count_held(&self, asked: &Holding<'_>) -> Count {
        let mut count = Count { is_complete: true, ..Count::default() };
        let mut in_parts = HashSet::new();
        let deadline = Deadline::new(asked.time);
        let mut looked_at = 0;
        self.store.scan(Order::Place, None, |_, held| {
            looked_at += 1;
            if deadline.is_over(looked_at) {
                count.is_complete = false;
                return ControlFlow::Break(());
            }
            for held in held.iter().filter(|held| self.is_asked_for(asked, held)) {
                count.bytes += held.size();
                let (url, part) = held.key().split_once('#').unwrap_or((held.key(), ""));
                count.objects += u64::from(part.is_empty() || in_parts.insert(KeyHash::of(url)));
                if count.sample.len() < SAMPLE && !count.sample.iter().any(|known| known == url) {
                    count.sample.push(url.to_owned());
                }
            }
            ControlFlow::Continue(())
        });
        count
    }

    /// A page of what is held behind `after`, by variant; and where the next page begins.
    pub fn list_held(
        &self,
        asked: &Holding<'_>,
        after: Option<Position>,
        limit: usize,
    ) -> (Vec<Variant>, Option<Position>) {
        let (mut found, mut next, mut last) = (Vec::new(), None, after);
        let deadline = Deadline::new(asked.time);
        let mut looked_at = 0;
        self.store.scan(Order::Position, after, |position, held| {
            looked_at += 1;
            if looked_at > MAX_LOOKED_AT || deadline.is_over(looked_at) {
                next = last;
                return ControlFlow::Break(());
            }
            let now = self.clock.now();
            let held = held.iter().filter(|held| self.is_asked_for(asked, held));
            let variants: Vec<Variant> = held.filter_map(|held| self.describe_held(held, now)).collect();
            // All variants of a key stand on one page.
            if !found.is_empty() && found.len() + variants.len() > limit {
                next = last;
                return ControlFlow::Break(());
            }
            found.extend(variants);
            last = Some(position);
            ControlFlow::Continue(())
        });
        (found, next)
    }

    /// A page of the tags that begin with `prefix`, in order behind `after`, and how many objects have each; and whether
    /// there are more, and whether everything was looked at.
    pub fn list_tags(
        &self,
        asked: &Holding<'_>,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> (Vec<(Box<str>, u64)>, bool, bool) {
        let mut tags: BTreeMap<Box<str>, u64> = BTreeMap::new();
        let (mut has_more, mut is_complete) = (false, true);
        let deadline = Deadline::new(asked.time);
        let mut looked_at = 0;
        self.store.scan(Order::Place, None, |_, held| {
            looked_at += 1;
            if deadline.is_over(looked_at) {
                is_complete = false;
                return ControlFlow::Break(());
            }
            for held in held.iter().filter(|held| self.is_asked_for(asked, held)) {
                for tag in held.tags().iter() {
                    if !tag.starts_with(prefix) || after.is_some_and(|after| **tag <= *after) {
                        continue;
                    }
                    *tags.entry(tag.clone()).or_default() += 1;
                    if tags.len() > limit {
                        // The last in order: it can't come back, since what stays only gets smaller.
                        tags.pop_last();
                        has_more = true;
                    }
                }
            }
            ControlFlow::Continue(())
        });
        (tags.into_iter().collect(), has_more, is_complete)
    }

    /// The last purge that was applied before the fetch of the oldest object, of those that are stored and of those that
    /// will be. `None`: the disk is off, and nobody knows what is on it.
    pub fn oldest_as_of(&self) -> Option<u64> {
        if self.store.stats().disk.mode == Mode::Off {
            return None;
        }
        // Before the walk: what is stored while it runs was either under way here, or is newer.
        let applied = self.purges.applied();
        let mut oldest = self.collapse.oldest_as_of().map_or(applied, |as_of| as_of.min(applied));
        self.store.scan(Order::Records, None, |_, held| {
            let kept = held.iter().filter(|held| match held.object() {
                // Which notes that it did.
                Some(object) => self.survives(object),
                None => self.verdict(held.key(), &held.tags(), held.as_of()) != Verdict::Hard,
            });
            oldest = kept.map(Held::as_of).fold(oldest, u64::min);
            ControlFlow::Continue(())
        });
        Some(oldest)
    }

    /// What to note instead of `as_of` of what is written again, so that it does not stay the oldest for ever: the last
    /// purge that it outlived. `None`: it is purged.
    pub fn outlived(&self, key: &str, tags: &[Box<str>], as_of: u64) -> Option<u64> {
        // Before the comparison.
        let applied = self.purges.applied();
        match self.verdict(key, tags, as_of) {
            Verdict::Kept => Some(applied),
            Verdict::Soft { .. } => Some(as_of),
            Verdict::Hard => None,
        }
    }

    fn is_asked_for(&self, asked: &Holding<'_>, held: &Held<'_>) -> bool {
        let tags = held.tags();
        let subject = self.subject(held.key(), &tags);
        if !asked.covers(subject.site) || !asked.probe.hits(&subject) {
            return false;
        }
        match held.object() {
            Some(object) => self.survives(object),
            None => self.purges.check(&subject, held.as_of()) != Verdict::Hard,
        }
    }

    fn describe_held(&self, held: &Held<'_>, now: Millis) -> Option<Variant> {
        let head = held.head()?;
        let mut freshness = match held.object() {
            Some(object) => object.freshness().into_owned(),
            None => head.freshness.clone(),
        };
        if held.object().is_none() {
            if held.is_stale() {
                freshness.expire(now);
            }
            if let Verdict::Soft { at } = self.verdict(held.key(), &head.tags, held.as_of()) {
                freshness.expire(at.max(freshness.response_time));
            }
        }
        let state = if held.must_revalidate() { State::MustRevalidate } else { freshness.state(now) };
        let place = Place {
            tier: held.tier(),
            segments: held.segments(),
            size: held.size(),
            encodings: held.encodings(),
        };
        Some(describe_head(&head, &freshness, (state, now), place))
    }
}

struct Deadline(Instant);

impl Deadline {
    fn new(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    fn is_over(&self, looked_at: usize) -> bool {
        looked_at.is_multiple_of(CLOCK_EVERY) && Instant::now() >= self.0
    }
}
