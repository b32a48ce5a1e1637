//! Is this object purged? By comparison: for each selector the newest purge, for each object the last one before it.
//!
//! One thread applies purges, any number check. A check reads atomics under a read lock that is its worker's own; the
//! write lock is taken only to put a larger table in place of a full one, for as long as that takes. So a check waits
//! for nothing, and a purge is seen by every check that begins after it was applied.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use parking_lot::{Mutex, RwLock};

use super::keys::{Class, Keys, key, segments};
use super::selector::Selector;
use super::table::Table;
use super::{Subject, Verdict};
use crate::rules::time::Millis;
use crate::telemetry::worker_slot;

/// Locks that readers share; more workers than that share them in turn.
const LOCKS: usize = 32;
/// Soft purges of a selector that follow each other within this time count as made when the first was.
const RUN_MS: i64 = 60_000;

/// Under a selector's key in the table of soft purges. The order is that of a reader; a writer's is the reverse.
const NEWEST: usize = 0;
/// When the run that the newest is part of began.
const BEGAN: usize = 1;
/// The newest purge before the run.
const BEFORE: usize = 2;
/// When the newest was; only the writer reads it.
const NEWEST_AT: usize = 3;

/// Numbers that no object can have noted in this log's life: an object that did belongs to purges that were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) from: u64,
    /// The first number after the gap.
    pub(super) until: u64,
}

#[derive(Clone, Debug)]
struct Tables {
    hard: Arc<Table<1>>,
    soft: Arc<Table<4>>,
}

/// A line of its own for each lock.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(RwLock<Tables>);

/// See the module.
#[derive(Debug)]
pub(super) struct Matcher {
    applied: AtomicU64,
    floor: AtomicU64,
    /// An object came from what is lost of the log; the floor is where it was noticed.
    noticed_loss: AtomicBool,
    /// In order.
    gaps: Vec<Gap>,
    keys: Keys,
    gates: Gates,
    /// Segments of the longest prefix.
    deepest: AtomicUsize,
    tables: Box<[Padded]>,
    /// Who applies holds it, and has the tables at hand.
    writer: Mutex<Tables>,
}

impl Matcher {
    /// Knows no purge.
    pub(super) fn new() -> Self {
        let tables = Tables { hard: Arc::new(Table::for_keys(0)), soft: Arc::new(Table::for_keys(0)) };
        Self {
            applied: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            noticed_loss: AtomicBool::new(false),
            gaps: Vec::new(),
            keys: Keys::default(),
            gates: Gates::default(),
            deepest: AtomicUsize::new(0),
            tables: (0..LOCKS).map(|_| Padded(RwLock::new(tables.clone()))).collect(),
            writer: Mutex::new(tables),
        }
    }

    /// The last purge that is applied.
    #[inline]
    pub(super) fn applied(&self) -> u64 {
        self.applied.load(Acquire)
    }

    /// All before `seq` is applied.
    pub(super) fn set_applied(&self, seq: u64) {
        self.applied.fetch_max(seq, Release);
    }

    /// Below that everything is purged.
    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Acquire)
    }

    /// Adds the newest gap. One that begins at 0 is the floor.
    pub(super) fn add_gap(&mut self, gap: Gap) {
        if gap.from == 0 {
            self.floor.fetch_max(gap.until, Release);
        } else {
            self.gaps.push(gap);
        }
        self.set_applied(gap.until);
    }

    /// What happened to this object since `as_of`. See [`super::Purges::check`].
    pub(super) fn check(&self, subject: &Subject<'_>, as_of: u64) -> Verdict {
        let applied = self.applied();
        if as_of == applied {
            return Verdict::Kept;
        }
        let tables = self.tables[worker_slot() % LOCKS].0.read();
        // With the lock held: whoever takes selectors out raises the floor first.
        if as_of < self.floor() {
            return Verdict::Hard;
        }
        if as_of > applied && as_of > self.latest_applied() || self.is_in_gap(as_of) {
            self.notice_loss();
            return Verdict::Hard;
        }
        let open = self.gates.newer_than(as_of);
        if open == 0 {
            return Verdict::Kept;
        }
        Search { matcher: self, tables: &tables, as_of, open, site: None, soft: None }.run(subject)
    }

    /// A plain load may be older than the number that another thread noted and handed over without a barrier.
    #[cold]
    fn latest_applied(&self) -> u64 {
        self.applied.fetch_add(0, AcqRel)
    }

    fn is_in_gap(&self, as_of: u64) -> bool {
        let next = self.gaps.partition_point(|gap| gap.until <= as_of);
        self.gaps.get(next).is_some_and(|gap| gap.from <= as_of)
    }

    /// The log had more than it has: what is missing may have purged anything that is older than now.
    #[cold]
    fn notice_loss(&self) {
        self.floor.fetch_max(self.latest_applied(), Release);
        self.noticed_loss.store(true, Release);
    }

    /// The floor, if a loss was noticed since the last call.
    pub(super) fn take_loss(&self) -> Option<u64> {
        self.noticed_loss.swap(false, Acquire).then(|| self.floor())
    }

    /// Applies one purge. To its caller nothing is applied until [`Self::set_applied`] says so.
    pub(super) fn apply<S: AsRef<str>>(
        &self,
        (seq, at): (u64, Millis),
        selectors: &[Selector<S>],
        site: Option<&str>,
        soft: bool,
    ) {
        let mut tables = self.writer.lock();
        for selector in selectors {
            let selector = self.keys.selector(selector, site);
            if soft {
                self.apply_soft(&mut tables, selector.key, seq, at);
            } else {
                self.apply_hard(&mut tables, selector.key, seq);
            }
            self.deepest.fetch_max(selector.depth, Release);
            self.gates.open(selector.class, site.is_some(), soft, seq);
        }
    }

    fn apply_hard(&self, tables: &mut Tables, key: u64, seq: u64) {
        if let Some([newest]) = tables.hard.get(key) {
            newest.store(seq, Release);
            return;
        }
        if tables.hard.is_full() {
            tables.hard = Arc::new(tables.hard.copy(|_| true));
            self.publish(tables);
        }
        tables.hard.insert(key, [seq]);
    }

    fn apply_soft(&self, tables: &mut Tables, key: u64, seq: u64, at: Millis) {
        if let Some(words) = tables.soft.get(key) {
            let read = |word: usize| words[word].load(Relaxed);
            let (newest_at, began) = (Millis(read(NEWEST_AT) as i64), Millis(read(BEGAN) as i64));
            words[NEWEST_AT].store(at.0 as u64, Release);
            if at.saturating_sub(newest_at) < RUN_MS {
                words[BEGAN].store(began.min(at).0 as u64, Release);
            } else {
                // Before the time: who sees the new time must not take it for that of an older purge.
                words[BEFORE].store(read(NEWEST), Release);
                words[BEGAN].store(at.0 as u64, Release);
            }
            words[NEWEST].store(seq, Release);
            return;
        }
        if tables.soft.is_full() {
            tables.soft = Arc::new(tables.soft.copy(|_| true));
            self.publish(tables);
        }
        tables.soft.insert(key, [seq, at.0 as u64, 0, at.0 as u64]);
    }

    /// Everything below is purged, and what purged it is dropped.
    pub(super) fn drop_below(&self, floor: u64) {
        let mut tables = self.writer.lock();
        self.floor.fetch_max(floor, Release);
        tables.hard = Arc::new(tables.hard.copy(|[newest]| *newest > floor));
        tables.soft = Arc::new(tables.soft.copy(|words| words[NEWEST] > floor));
        self.publish(&tables);
    }

    /// When this returns, no reader has an older table.
    fn publish(&self, tables: &Tables) {
        for lock in &self.tables {
            *lock.0.write() = tables.clone();
        }
    }

    /// Distinct selectors, and the memory that they take.
    pub(super) fn size(&self) -> (usize, usize) {
        let tables = self.writer.lock();
        (tables.hard.len() + tables.soft.len(), tables.hard.bytes() + tables.soft.bytes())
    }
}

/// The newest purge of each class, so that a check only looks for what can be there.
#[derive(Debug, Default)]
struct Gates([AtomicU64; Class::COUNT * 4]);

/// A gate; bit 0: soft, bit 1: of a site.
fn gate(class: Class, is_of_site: bool, soft: bool) -> usize {
    class as usize * 4 + usize::from(is_of_site) * 2 + usize::from(soft)
}

impl Gates {
    fn open(&self, class: Class, is_of_site: bool, soft: bool, seq: u64) {
        self.0[gate(class, is_of_site, soft)].store(seq, Release);
    }

    /// A bit for each gate.
    fn newer_than(&self, as_of: u64) -> u32 {
        let bits =
            self.0.iter().enumerate().map(|(at, newest)| u32::from(newest.load(Acquire) > as_of) << at);
        bits.fold(0, |all, bit| all | bit)
    }
}

/// One check.
struct Search<'a> {
    matcher: &'a Matcher,
    tables: &'a Tables,
    as_of: u64,
    open: u32,
    site: Option<u64>,
    /// The earliest soft purge so far.
    soft: Option<Millis>,
}

impl Search<'_> {
    fn run(mut self, subject: &Subject<'_>) -> Verdict {
        if self.is_purged(subject) {
            return Verdict::Hard;
        }
        self.soft.map_or(Verdict::Kept, |at| Verdict::Soft { at })
    }

    fn is_purged(&mut self, subject: &Subject<'_>) -> bool {
        let keys = &self.matcher.keys;
        // Half of the gates are those of sites.
        if self.open & 0xcccc_cccc != 0 {
            self.site = Some(keys.text(subject.site));
        }
        if self.wants(Class::All) && self.is_hard(Class::All, keys.all()) {
            return true;
        }
        if self.wants(Class::Tag) && subject.tags.iter().any(|tag| self.is_hard(Class::Tag, keys.text(tag))) {
            return true;
        }
        let of_target = [Class::Host, Class::Prefix, Class::Url].map(|class| self.wants(class));
        of_target.contains(&true) && self.is_target_purged(subject)
            || self.wants(Class::AnyHost) && self.is_path_purged(subject)
    }

    /// On every host.
    fn is_path_purged(&mut self, subject: &Subject<'_>) -> bool {
        let mut target = self.matcher.keys.target("");
        let deepest = self.matcher.deepest.load(Acquire);
        for (depth, segment) in (1..).zip(segments(subject.path)) {
            target.push(segment);
            if depth <= deepest && self.is_hard_of(Class::AnyHost, Class::Prefix, target.hash()) {
                return true;
            }
        }
        self.is_hard_of(Class::AnyHost, Class::Url, target.with_query(subject.query))
    }

    fn is_target_purged(&mut self, subject: &Subject<'_>) -> bool {
        let mut target = self.matcher.keys.target(subject.host);
        if self.wants(Class::Host) && self.is_hard(Class::Host, target.hash()) {
            return true;
        }
        let deepest = if self.wants(Class::Prefix) { self.matcher.deepest.load(Acquire) } else { 0 };
        if deepest == 0 && !self.wants(Class::Url) {
            return false;
        }
        for (depth, segment) in (1..).zip(segments(subject.path)) {
            target.push(segment);
            if depth <= deepest && self.is_hard(Class::Prefix, target.hash()) {
                return true;
            }
        }
        self.wants(Class::Url) && self.is_hard(Class::Url, target.with_query(subject.query))
    }

    fn wants(&self, class: Class) -> bool {
        self.open >> gate(class, false, false) & 0b1111 != 0
    }

    /// Whether a hard purge of this hits; notes soft ones.
    fn is_hard(&mut self, class: Class, hash: u64) -> bool {
        self.is_hard_of(class, class, hash)
    }

    /// The same, behind the gate of another class.
    fn is_hard_of(&mut self, behind: Class, class: Class, hash: u64) -> bool {
        let open = self.open >> gate(behind, false, false);
        let all = open & 0b0011 != 0 && self.is_hard_by(key(class, hash, None), open);
        all || open & 0b1100 != 0 && self.is_hard_by(key(class, hash, self.site), open >> 2)
    }

    fn is_hard_by(&mut self, key: u64, open: u32) -> bool {
        if open & 0b01 != 0
            && let Some([newest]) = self.tables.hard.get(key)
            && newest.load(Acquire) > self.as_of
        {
            return true;
        }
        if open & 0b10 != 0
            && let Some(words) = self.tables.soft.get(key)
            && words[NEWEST].load(Acquire) > self.as_of
        {
            let began = Millis(words[BEGAN].load(Acquire) as i64);
            let is_older = self.as_of < words[BEFORE].load(Acquire);
            let at = if is_older { Millis::MIN } else { began };
            self.soft = Some(self.soft.map_or(at, |soft| soft.min(at)));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(path: &str) -> Subject<'_> {
        Subject { site: "shop", host: "h", path, query: None, tags: &[] }
    }

    fn apply(matcher: &Matcher, seq: u64, at: i64, selector: Selector<&str>, soft: bool) {
        matcher.apply((seq, Millis(at)), &[selector], None, soft);
        matcher.set_applied(seq);
    }

    #[test]
    fn prefixes_cover_whole_segments() {
        let matcher = Matcher::new();
        apply(&matcher, 1, 0, Selector::Prefix { host: "h", path: "/a/b/" }, false);
        for (path, wanted) in [
            ("/a/b", Verdict::Hard),
            ("/a/b/", Verdict::Hard),
            ("/a/b/c/d", Verdict::Hard),
            ("/a/bc", Verdict::Kept),
            ("/a", Verdict::Kept),
            ("/x/a/b", Verdict::Kept),
        ] {
            assert_eq!(matcher.check(&subject(path), 0), wanted, "{path}");
            assert_eq!(matcher.check(&Subject { query: Some("q"), ..subject(path) }, 0), wanted, "{path}?q");
            assert_eq!(matcher.check(&Subject { host: "i", ..subject(path) }, 0), Verdict::Kept);
        }
        assert_eq!(matcher.check(&subject("/a/b"), 1), Verdict::Kept);
    }

    #[test]
    fn numbers_that_nobody_can_have_noted_are_purged() {
        let mut matcher = Matcher::new();
        matcher.add_gap(Gap { from: 0, until: 10 });
        matcher.add_gap(Gap { from: 20, until: 30 });
        matcher.add_gap(Gap { from: 31, until: 40 });
        let verdict = |matcher: &Matcher, as_of| matcher.check(&subject("/"), as_of);
        for known_or_old in [10, 19, 30, 40, 0, 9] {
            let wanted = if known_or_old < 10 { Verdict::Hard } else { Verdict::Kept };
            assert_eq!(verdict(&matcher, known_or_old), wanted, "{known_or_old}");
        }
        assert_eq!(matcher.take_loss(), None);
        for lost in [20, 29, 31, 39, 41, u64::MAX] {
            let mut matcher = Matcher::new();
            matcher.add_gap(Gap { from: 0, until: 10 });
            matcher.add_gap(Gap { from: 20, until: 30 });
            matcher.add_gap(Gap { from: 31, until: 40 });
            assert_eq!(verdict(&matcher, lost), Verdict::Hard, "{lost}");
            // What is missing may have purged anything.
            assert_eq!(verdict(&matcher, 30), Verdict::Hard);
            assert_eq!(verdict(&matcher, 40), Verdict::Kept, "noted since");
            assert_eq!((matcher.take_loss(), matcher.take_loss()), (Some(40), None));
        }
    }

    #[test]
    fn a_soft_purge_is_never_dated_too_late() {
        let matcher = Matcher::new();
        let tag = Selector::Tag("t");
        let tags = ["t".into()];
        let soft = |as_of| match matcher.check(&Subject { tags: &tags, ..subject("/") }, as_of) {
            Verdict::Soft { at } => Some(at.0),
            verdict => {
                assert_eq!(verdict, Verdict::Kept);
                None
            }
        };
        apply(&matcher, 1, 1_000, tag.clone(), true);
        assert_eq!((soft(0), soft(1)), (Some(1_000), None));
        // A run counts from its first.
        apply(&matcher, 2, 40_000, tag.clone(), true);
        apply(&matcher, 3, 90_000, tag.clone(), true);
        assert_eq!((soft(0), soft(2)), (Some(1_000), Some(1_000)));
        // After a pause: exact for what came after the run, unknown before.
        apply(&matcher, 4, 500_000, tag, true);
        assert_eq!((soft(3), soft(2), soft(0)), (Some(500_000), Some(i64::MIN), Some(i64::MIN)));
        // The earliest of all that hit; a hard one beats them.
        apply(&matcher, 5, 600_000, Selector::Host("h"), true);
        assert_eq!((soft(3), soft(4)), (Some(500_000), Some(600_000)));
        apply(&matcher, 6, 0, Selector::All, false);
        assert_eq!(matcher.check(&subject("/"), 5), Verdict::Hard);
    }

    #[test]
    fn selectors_that_can_hit_nothing_any_more_are_dropped() {
        let matcher = Matcher::new();
        for seq in 1..=10_000_u64 {
            let tag = format!("t{}", seq % 5_000);
            apply(&matcher, seq, 0, Selector::Tag(&tag), seq.is_multiple_of(2));
        }
        let (selectors, bytes) = matcher.size();
        assert_eq!(selectors, 5_000);
        matcher.drop_below(9_990);
        assert_eq!(matcher.size().0, 10);
        assert!(matcher.size().1 < bytes);
        let tags = ["t4999".into()];
        let subject = Subject { tags: &tags, ..subject("/") };
        assert_eq!(matcher.check(&subject, 9_998), Verdict::Hard);
        assert_eq!(matcher.check(&subject, 9_999), Verdict::Kept);
        assert_eq!(matcher.check(&subject, 9_989), Verdict::Hard);
    }
}
