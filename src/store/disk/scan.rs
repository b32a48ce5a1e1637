//! A walk over everything that is held, in memory and in the log, each key once. It is for people who ask: it runs on a
//! thread of its own, takes the locks that serving takes for moments only, loads nothing into memory and counts as no
//! request.
//!
//! What is in memory is the truth of its key; else what is about to be written; else the record in the log. A key that
//! comes or goes during the walk may be seen or not; none is seen twice.

use std::borrow::Cow;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::format::{self, FLAG_MUST_REVALIDATE, Frame};
use super::index::{Found, Index, SHARDS};
use super::meta::{Meta, OWN, VariantMeta};
use super::position::Position;
use super::segment::Segment;
use super::{Mode, Tier};
use crate::object::{Head, Object, Sum};
use crate::rules::key::{CacheKey, KeyHash};
use crate::store::Entry;

/// Keys that are sorted by their place in the log at a time.
const GROUP_KEYS: usize = 200_000;
/// Read of a record at first: enough for most heads, and never the body.
const HEAD_BYTES: usize = 4096;

/// In which order keys are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By position: a walk can go on where another one ended.
    Position,
    /// Mostly as records lie on disk: quicker for a walk over everything.
    Place,
    /// The same, and of what is in memory the record on disk as well.
    Records,
}

/// A stored response.
#[derive(Debug)]
pub struct Held<'a>(What<'a>);

#[derive(Debug)]
enum What<'a> {
    Memory(&'a Arc<Object>),
    Disk { key: &'a str, variant: &'a VariantMeta<'a>, segment: u32, must_revalidate: bool, is_stale: bool },
}

impl<'a> Held<'a> {
    /// The object, when it is in memory.
    pub fn object(&self) -> Option<&'a Arc<Object>> {
        match self.0 {
            What::Memory(object) => Some(object),
            What::Disk { .. } => None,
        }
    }

    /// Its canonical URL.
    pub fn key(&self) -> &'a str {
        match self.0 {
            What::Memory(object) => object.head.key.canonical(),
            What::Disk { key, .. } => key,
        }
    }

    /// Names under which it may be purged.
    pub fn tags(&self) -> Cow<'a, [Box<str>]> {
        match self.0 {
            What::Memory(object) => Cow::Borrowed(&object.head.tags),
            What::Disk { variant, .. } => variant.tags().iter().map(|tag| Box::from(*tag)).collect(),
        }
    }

    /// The last purge that it is known to have outlived.
    pub fn as_of(&self) -> u64 {
        match self.0 {
            What::Memory(object) => object.as_of(),
            What::Disk { variant, .. } => variant.as_of,
        }
    }

    /// Bytes of its body.
    pub fn size(&self) -> u64 {
        match self.0 {
            What::Memory(object) => object.body.len(),
            What::Disk { variant, .. } => variant.size(),
        }
    }

    /// Whether it is to be revalidated before its next use.
    pub fn must_revalidate(&self) -> bool {
        match self.0 {
            What::Memory(object) => object.is_invalidated(),
            What::Disk { must_revalidate, .. } => must_revalidate,
        }
    }

    /// Whether the clock went back while the node was down, so that its freshness says nothing.
    pub fn is_stale(&self) -> bool {
        matches!(self.0, What::Disk { is_stale: true, .. })
    }

    /// What is kept of it in other codings: coding and bytes.
    pub fn encodings(&self) -> Vec<(&'static str, u64)> {
        match self.0 {
            What::Memory(object) => {
                let kept = object.encodings.iter().flat_map(|encodings| encodings.all());
                kept.map(|encoded| (encoded.coding.as_str(), encoded.body.len())).collect()
            }
            What::Disk { variant, .. } => {
                let kept = variant.encodings.iter().filter(|encoding| !encoding.parts.is_empty());
                kept.filter_map(|encoding| Some((encoding.coding()?.as_str(), encoding.size()))).collect()
            }
        }
    }

    /// `memory` or `disk`.
    pub fn tier(&self) -> &'static str {
        self.object().map_or("disk", |object| object.tier())
    }

    /// The segments of the log that hold its body, each once.
    pub fn segments(&self) -> Vec<u32> {
        let mut segments: Vec<u32> = match self.0 {
            What::Memory(object) => {
                let parts = object.parts().filter(|part| !part.pages().is_resident());
                parts.map(|part| part.place().0).chain(object.inline().map(|(id, _)| id)).collect()
            }
            What::Disk { variant, segment, .. } => {
                let own = |id| if id == OWN { segment } else { id };
                variant.all_parts().map(|part| own(part.segment())).collect()
            }
        };
        segments.sort_unstable();
        segments.dedup();
        segments
    }

    /// Its head; `None`: what is on disk of it can't be read.
    pub fn head(&self) -> Option<Arc<Head>> {
        match self.0 {
            What::Memory(object) => Some(object.head.clone()),
            What::Disk { key, variant, .. } => {
                variant.head(&CacheKey::from_canonical(key.into())).ok().map(Arc::new)
            }
        }
    }
}

/// A key to be visited: one of memory is known in full, one of the index by its record.
enum Candidate {
    Memory(KeyHash),
    Disk(Found),
}

impl Tier {
    /// See the module; `after`: only what stands behind it.
    pub(crate) fn scan(
        &self,
        order: Order,
        after: Option<Position>,
        mut visit: impl FnMut(Position, &[Held<'_>]) -> ControlFlow<()>,
    ) {
        let in_memory = self.positions_in_memory();
        let mut group = Vec::new();
        for shard in after.map_or(0, Position::shard)..SHARDS as u16 {
            self.collect(shard, (&in_memory, order), after, &mut group);
            let is_last = usize::from(shard) + 1 == SHARDS;
            if order != Order::Position && group.len() < GROUP_KEYS && !is_last {
                continue;
            }
            match order {
                Order::Position => group.sort_unstable_by_key(|(position, _)| *position),
                Order::Place | Order::Records => {
                    group.sort_unstable_by_key(|(_, candidate)| match candidate {
                        Candidate::Memory(_) => (0, 0),
                        Candidate::Disk(found) => (found.location.slot, found.location.offset),
                    });
                }
            }
            for (position, candidate) in group.drain(..) {
                if self.look_at(position, &candidate, &mut visit).is_break() {
                    return;
                }
            }
        }
    }

    /// Of what is in memory or about to be written, in order.
    fn positions_in_memory(&self) -> Vec<(Position, KeyHash)> {
        let pending: Vec<KeyHash> = self.pending.lock().keys().copied().collect();
        let keys = self.budget.memory.keys().into_iter().chain(pending);
        let mut positions: Vec<_> = keys.map(|key| (Index::position(key), key)).collect();
        positions.sort_unstable_by_key(|(position, key)| (*position, key.0));
        positions.dedup();
        positions
    }

    fn collect(
        &self,
        shard: u16,
        (in_memory, order): (&[(Position, KeyHash)], Order),
        after: Option<Position>,
        group: &mut Vec<(Position, Candidate)>,
    ) {
        let from = in_memory.partition_point(|(position, _)| position.shard() < shard);
        let here = &in_memory[from..];
        let here = &here[..here.partition_point(|(position, _)| position.shard() == shard)];
        let is_behind = |position: &Position| after.is_none_or(|after| *position > after);
        let known = here.iter().filter(|(position, _)| is_behind(position));
        group.extend(known.map(|(position, key)| (*position, Candidate::Memory(*key))));
        if self.health.mode() == Mode::Off {
            return;
        }
        let is_known = |position: &Position| {
            order != Order::Records && here.binary_search_by_key(position, |(p, _)| *p).is_ok()
        };
        let slots = self.index.slots(shard).into_iter();
        let others = slots.filter(|(position, _)| is_behind(position) && !is_known(position));
        group.extend(others.map(|(position, found)| (position, Candidate::Disk(found))));
    }

    fn look_at(
        &self,
        position: Position,
        candidate: &Candidate,
        visit: &mut impl FnMut(Position, &[Held<'_>]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let found = match candidate {
            Candidate::Disk(found) => *found,
            Candidate::Memory(key) => {
                if let Some(entry) = self.budget.memory.get(*key).or_else(|| self.pending_entry(*key)) {
                    return visit_entry(position, &entry, visit);
                }
                // It left memory meanwhile, and may still be on disk.
                match self.index.get(*key) {
                    Some(found) if self.health.mode() != Mode::Off => found,
                    _ => return ControlFlow::Continue(()),
                }
            }
        };
        // What can't be read is no longer held, or is found out when somebody asks for it.
        let Ok(Some((segment, bytes))) = self.read_head(found) else { return ControlFlow::Continue(()) };
        let Some((frame, meta)) = meta_of(&bytes, segment.id, found) else {
            return ControlFlow::Continue(());
        };
        let must_revalidate = found.must_revalidate || frame.flags & FLAG_MUST_REVALIDATE != 0;
        let held = |variant| {
            let variant: &VariantMeta<'_> = variant;
            Held(What::Disk {
                key: meta.key,
                variant,
                segment: segment.id,
                must_revalidate: must_revalidate || variant.must_revalidate,
                is_stale: variant.version < self.stale_below,
            })
        };
        let is_there = |variant: &&VariantMeta<'_>| {
            let mut parts = variant.parts.iter();
            parts.all(|part| part.segment() == OWN || self.table.get(part.segment()).is_some())
        };
        let variants: Vec<Held<'_>> = meta.variants.iter().filter(is_there).map(held).collect();
        if variants.is_empty() { ControlFlow::Continue(()) } else { visit(position, &variants) }
    }

    /// The beginning of a record, with the whole of its meta.
    fn read_head(&self, found: Found) -> io::Result<Option<(Arc<Segment>, Vec<u8>)>> {
        let Some(segment) = self.table.at(found.location.slot) else { return Ok(None) };
        let offset = u64::from(found.location.offset);
        let whole = u64::from(found.length).min(segment.length.saturating_sub(offset)) as usize;
        let mut bytes = vec![0; whole.min(HEAD_BYTES)];
        segment.file().read_at(&mut bytes, offset)?;
        let Ok(frame) = Frame::decode(&bytes, segment.id, found.location.offset) else { return Ok(None) };
        let needed = (format::HEADER_BYTES + frame.meta_bytes as usize).min(whole);
        if needed > bytes.len() {
            bytes.resize(needed, 0);
            segment.file().read_at(&mut bytes[HEAD_BYTES..], offset + HEAD_BYTES as u64)?;
        }
        Ok(Some((segment, bytes)))
    }
}

fn visit_entry(
    position: Position,
    entry: &Entry,
    visit: &mut impl FnMut(Position, &[Held<'_>]) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let held: Vec<Held<'_>> = entry.variants().iter().map(|object| Held(What::Memory(object))).collect();
    visit(position, &held)
}

fn meta_of(bytes: &[u8], segment: u32, found: Found) -> Option<(Frame, Meta<'_>)> {
    let frame = Frame::decode(bytes, segment, found.location.offset).ok()?;
    let meta = bytes.get(format::HEADER_BYTES..format::HEADER_BYTES + frame.meta_bytes as usize)?;
    if Sum::of(meta) != frame.sum {
        return None;
    }
    Some((frame, Meta::decode(meta).ok()?))
}
