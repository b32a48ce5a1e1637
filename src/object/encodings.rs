//! The encodings of an object: the same content under other codings, kept with it.
//!
//! They are no variants of their own. They hang on the object and are shared by what a 304 makes of it, since both
//! share the body: so an encoding is replaced, purged, invalidated, evicted and fresh exactly as what it was made of,
//! and no comparison of versions has to say so. What differs in the head (coding, length, entity tag) is put into a copy
//! of the object's head when it is served.

use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release,
};
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderValue, header};

use super::{Body, Charge, Head, Place};
use crate::rules::dictionary::DictionaryHash;
use crate::rules::encoding::Coding;
use crate::rules::vary::{self, Vary};

/// What an encoding costs beside its body: its own allocation and its places.
const ENCODING_OVERHEAD_BYTES: u64 = 192;
/// The places for all encodings of an object.
const PLACES_BYTES: u64 = 256;

/// What clients may have a body in, by the coding that they accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What the origin sent it in.
    pub coding: Coding,
    /// Whether it is made in other codings, and each client gets what it prefers. Else it is decoded on the way to who
    /// does not accept its coding, and nothing more: which requests select it is the origin's affair.
    pub is_made: bool,
}

/// That the coding of a response depends on the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// What there is to choose from.
    pub offer: Offer,
    /// Whether the line `Vary: Accept-Encoding` is ours.
    pub adds_vary: bool,
}

/// An encoding at rest.
#[derive(Debug)]
pub struct Encoded {
    /// The coding.
    pub coding: Coding,
    /// The first 32 bits of the BLAKE3 hash of its bytes; part of its entity tag.
    pub sum: [u8; 4],
    /// Made at the highest level.
    pub is_best: bool,
    /// Its bytes.
    pub body: Arc<Body>,
    inline: OnceLock<(u32, Place)>,
    _charge: Charge,
}

impl Encoded {
    /// An encoding with these bytes; `gauge` is charged for it until it is gone.
    pub fn new(coding: Coding, sum: [u8; 4], is_best: bool, body: Arc<Body>, gauge: &Arc<AtomicU64>) -> Self {
        let charge = Charge::new(gauge, ENCODING_OVERHEAD_BYTES + body.uncharged_weight());
        Self { coding, sum, is_best, body, inline: OnceLock::new(), _charge: charge }
    }

    /// What its entity tag ends in: `br-1f2e3d4c`.
    pub fn suffix(&self) -> String {
        format!("{}-{:08x}", self.coding.as_str(), u32::from_be_bytes(self.sum))
    }

    /// As [`super::Object::set_inline`].
    pub fn set_inline(&self, segment: u32, place: Place) {
        let _ = self.inline.set((segment, place));
    }

    /// As [`super::Object::inline`].
    pub fn inline(&self) -> Option<(u32, Place)> {
        self.inline.get().copied()
    }
}

/// What became of an encoding.
#[derive(Clone, Debug)]
pub enum Made {
    /// It is kept.
    Kept(Arc<Encoded>),
    /// It would save next to nothing, or the body can't be decoded: not tried again.
    NotWorth,
}

impl Made {
    /// The encoding, where there is one.
    pub fn kept(&self) -> Option<&Arc<Encoded>> {
        match self {
            Self::Kept(encoded) => Some(encoded),
            Self::NotWorth => None,
        }
    }
}

/// A coding's place. The second word, of the highest level, takes the place of the first; both are said once, so
/// that a hit takes what is there without a lock.
#[derive(Debug, Default)]
struct Slot {
    first: OnceLock<Made>,
    best: OnceLock<Made>,
}

/// Deltas kept of a body: two codings for each of four dictionaries.
const DELTAS: usize = 8;

/// A body encoded against a dictionary, or word that this would save next to nothing.
#[derive(Debug)]
pub struct Delta {
    /// The dictionary.
    pub dictionary: DictionaryHash,
    /// `dcb` or `dcz`.
    pub coding: Coding,
    /// What became of it.
    pub made: Made,
}

/// Seconds of being asked for more than once that make it very hot.
const HOT: u8 = 30;

const IDLE: u8 = 0;
const CLAIMED: u8 = 1;
/// With the [`CodingSet`] that was wanted above it.
const SETTLED: u8 = 2;
const STATE_BITS: u32 = 2;

/// Codings, one bit each: what there is nothing left to be made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CodingSet(u8);

impl FromIterator<Coding> for CodingSet {
    fn from_iter<I: IntoIterator<Item = Coding>>(codings: I) -> Self {
        Self(codings.into_iter().fold(0, |set, coding| set | 1 << coding as u8))
    }
}

impl CodingSet {
    fn settled(self) -> u8 {
        self.0 << STATE_BITS | SETTLED
    }
}

/// See the module.
#[derive(Debug)]
pub struct Encodings {
    slots: [Slot; Coding::PLAIN.len()],
    /// Against dictionaries: the first come, each said once.
    deltas: OnceLock<Box<[OnceLock<Delta>; DELTAS]>>,
    /// Whether somebody makes a delta.
    is_at_delta: AtomicBool,
    /// Whether somebody makes what is missing, or nothing is.
    state: AtomicU8,
    /// How much it is asked for: see [`Encodings::warm`].
    heat: AtomicU8,
    /// Whether decoding it on the way has failed.
    is_undecodable: AtomicBool,
}

impl Default for Encodings {
    fn default() -> Self {
        let (deltas, is_at_delta) = (OnceLock::new(), AtomicBool::new(false));
        Self {
            slots: Default::default(),
            deltas,
            is_at_delta,
            state: AtomicU8::new(IDLE),
            heat: AtomicU8::new(0),
            is_undecodable: AtomicBool::new(false),
        }
    }
}

impl Encodings {
    /// What is known of a coding.
    #[inline]
    pub fn made(&self, coding: Coding) -> Option<&Made> {
        let slot = self.slots.get(coding as usize)?;
        slot.best.get().or_else(|| slot.first.get())
    }

    /// An encoding that is there.
    #[inline]
    pub fn get(&self, coding: Coding) -> Option<&Arc<Encoded>> {
        self.made(coding)?.kept()
    }

    /// All that are there and need no dictionary.
    pub fn plain(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        Coding::PLAIN.into_iter().filter_map(|coding| self.get(coding))
    }

    /// All that are there.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.plain().chain(self.deltas().filter_map(|delta| delta.made.kept()))
    }

    /// What is known of deltas.
    pub fn deltas(&self) -> impl Iterator<Item = &Delta> {
        self.deltas.get().into_iter().flat_map(|places| places.iter().filter_map(OnceLock::get))
    }

    /// What is known of a delta.
    pub fn delta(&self, dictionary: DictionaryHash, coding: Coding) -> Option<&Made> {
        let mut deltas = self.deltas();
        let found = deltas.find(|delta| (delta.dictionary, delta.coding) == (dictionary, coding))?;
        Some(&found.made)
    }

    /// Whether one more delta may be kept.
    pub fn has_room(&self) -> bool {
        self.deltas().count() < DELTAS
    }

    /// Adds a delta, or word of it; false when that was said before, or there is no place. Only the store calls it, with the
    /// key locked.
    pub fn add_delta(&self, delta: Delta) -> bool {
        if self.delta(delta.dictionary, delta.coding).is_some() {
            return false;
        }
        let mut delta = Some(delta);
        for place in self.deltas.get_or_init(Box::default).iter() {
            if let Some(said) = delta.take() {
                delta = place.set(said).err();
            }
        }
        delta.is_none()
    }

    /// Whether nobody makes a delta; then it is the caller's turn.
    pub fn claim_delta(&self) -> bool {
        !self.is_at_delta.swap(true, AcqRel)
    }

    /// Ends what [`Encodings::claim_delta`] began.
    pub fn release_delta(&self) {
        self.is_at_delta.store(false, Release);
    }

    /// All bodies, those that better ones have taken the place of among them: they are held until the object goes.
    pub(super) fn bodies(&self) -> impl Iterator<Item = &Arc<Body>> {
        let words = self.slots.iter().flat_map(|slot| [slot.first.get(), slot.best.get()]);
        let words = words.flatten().chain(self.deltas().map(|delta| &delta.made));
        words.filter_map(Made::kept).map(|encoded| &encoded.body)
    }

    /// Adds one, or word of it; false when that was said before. Only the store calls it, with the key locked.
    pub fn add(&self, coding: Coding, made: Made) -> bool {
        let Some(slot) = self.slots.get(coding as usize) else { return false };
        let is_best = matches!(&made, Made::Kept(encoded) if encoded.is_best);
        if is_best && slot.first.get().is_some() { slot.best.set(made) } else { slot.first.set(made) }.is_ok()
    }

    /// Whether nobody makes what may be missing of these; then it is the caller's turn.
    #[inline]
    pub fn claim(&self, wanted: CodingSet) -> bool {
        let state = self.state.load(Acquire);
        // What was settled was so for what was wanted then.
        state != CLAIMED
            && state != wanted.settled()
            && self.state.compare_exchange(state, CLAIMED, AcqRel, Acquire).is_ok()
    }

    /// Whether somebody makes what is missing.
    pub fn is_claimed(&self) -> bool {
        self.state.load(Acquire) == CLAIMED
    }

    /// Ends what [`Encodings::claim`] began: for good as far as these are wanted, or to be tried again when somebody asks.
    pub fn release(&self, settled: Option<CodingSet>) {
        self.state.store(settled.map_or(IDLE, CodingSet::settled), Release);
    }

    /// Counts that it was asked for again within a second; a worker counts that once a second at most. When it turns out
    /// to be very hot, there is something to be made again.
    #[cold]
    pub fn warm(&self) {
        if !self.is_hot() && self.heat.fetch_add(1, AcqRel) + 1 == HOT {
            let reopened = |state| (state != CLAIMED).then_some(IDLE);
            let _ = self.state.fetch_update(AcqRel, Acquire, reopened);
        }
    }

    /// Notes that what is stored can't be decoded.
    pub fn set_undecodable(&self) {
        self.is_undecodable.store(true, Release);
    }

    /// Whether what is stored, of a coding, is known not to be in it, or to unfold without measure.
    pub fn is_undecodable(&self) -> bool {
        self.is_undecodable.load(Acquire) || matches!(self.made(Coding::Identity), Some(Made::NotWorth))
    }

    /// Whether it is asked for very often.
    pub fn is_hot(&self) -> bool {
        self.heat.load(Acquire) >= HOT
    }

    /// Takes memory: all of them, in bytes.
    pub(super) fn weight(&self) -> u64 {
        let kept = self.bodies().map(|body| ENCODING_OVERHEAD_BYTES + body.weight());
        PLACES_BYTES + kept.sum::<u64>()
    }
}

impl Head {
    /// Has each client served what it accepts of an offer; says so to caches behind this one.
    pub fn negotiate(&mut self, offer: Offer) {
        let adds_vary = match vary::parse(&self.headers) {
            Vary::Any => false,
            Vary::Fields(rule) => !rule.names().contains(&header::ACCEPT_ENCODING),
        };
        if adds_vary {
            self.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        self.negotiated = Some(Negotiated { offer, adds_vary });
    }

    /// Has it served as it is, after all.
    pub fn serve_as_it_is(&mut self) {
        take_vary(&mut self.headers, self.negotiated.take());
    }
}

/// Takes our own Vary line out of a copy of a head's fields.
pub(super) fn take_vary(headers: &mut HeaderMap, negotiated: Option<Negotiated>) {
    if negotiated.is_none_or(|negotiated| !negotiated.adds_vary) {
        return;
    }
    // Ours is the last.
    let mut lines: Vec<HeaderValue> = headers.get_all(header::VARY).iter().cloned().collect();
    lines.pop();
    headers.remove(header::VARY);
    for line in lines {
        headers.append(header::VARY, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(coding: Coding, is_best: bool, text: &'static [u8]) -> Made {
        let body = Arc::new(Body::new(vec![bytes::Bytes::from_static(text)]));
        Made::Kept(Arc::new(Encoded::new(coding, [0, 0, 0x1f, 0x2e], is_best, body, &Arc::default())))
    }

    #[test]
    fn the_first_word_counts_until_the_best_is_said() {
        let encodings = Encodings::default();
        assert!(encodings.get(Coding::Br).is_none());
        assert!(encodings.add(Coding::Br, encoded(Coding::Br, false, b"abc")));
        assert!(!encodings.add(Coding::Br, encoded(Coding::Br, false, b"abcd")));
        assert_eq!(encodings.get(Coding::Br).unwrap().body.len(), 3);
        assert_eq!(encodings.get(Coding::Br).unwrap().suffix(), "br-00001f2e");
        let before = encodings.weight();
        assert!(encodings.add(Coding::Br, encoded(Coding::Br, true, b"a")));
        assert_eq!(encodings.get(Coding::Br).unwrap().body.len(), 1);
        assert!(encodings.weight() > before, "responses may still have the first");
        assert!(encodings.add(Coding::Gzip, Made::NotWorth) && encodings.get(Coding::Gzip).is_none());
        assert_eq!(encodings.all().count(), 1);
    }

    #[test]
    fn one_makes_what_is_missing() {
        let encodings = Encodings::default();
        let all: CodingSet = Coding::ALL.into_iter().collect();
        let br: CodingSet = [Coding::Br].into_iter().collect();
        assert!(encodings.claim(br) && !encodings.claim(br) && !encodings.claim(all));
        encodings.release(None);
        assert!(encodings.claim(br));
        encodings.release(Some(br));
        assert!(!encodings.claim(br) && encodings.claim(all), "more is wanted now");
        encodings.release(Some(all));
        assert!(!encodings.claim(all));
        for _ in 1..HOT {
            encodings.warm();
            assert!(!encodings.claim(all) && !encodings.is_hot());
        }
        encodings.warm();
        assert!(encodings.is_hot() && encodings.claim(all), "once");
        encodings.release(Some(all));
        encodings.warm();
        assert!(!encodings.claim(all));
    }
}
