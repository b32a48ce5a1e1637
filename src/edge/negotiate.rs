//! In which coding does a client get a response (RFC 9110 §12.5.3)?
//!
//! Of what is ready, what the client weighs highest, and of equals the shortest. Where nothing that is ready may be
//! sent, the body is decoded or encoded on its way, once for this client: then its length is not known, its entity tag is
//! weak, and ranges of it are not served. Where the client accepts nothing at all, it gets what is stored.
//!
//! Who comes before the encodings of something large has it encoded on its way too, at a level that takes next to no
//! time, as long as few others do: by any link that is slower than a machine room's, its last byte comes much earlier
//! (`benches/README.md`).
//!
//! A strong entity tag names bytes: each encoding has one of its own. Where the origin gives none, nothing tells the bytes
//! of two encodings apart, so that ranges are never served by a date.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::admit::Admitted;
use super::respond::content_length;
use crate::encode::LiveTurn;
use crate::object::{Body, Encoded, Encodings, Head, Made, Object};
use crate::rules::dictionary;
use crate::rules::encoding::{self, Accepted, Coding};
use crate::rules::etag;

/// Of equals, what is quickest to be made while a client waits.
const LIVE: [Coding; 4] = [Coding::Identity, Coding::Zstd, Coding::Gzip, Coding::Br];
/// What is smaller is with the client in one round trip anyhow: ten segments (RFC 6928).
const LIVE_BYTES: u64 = 16 * 1024;
/// Digests of a body's bytes, or of what they stand for in their coding.
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// What a client gets of a response.
#[derive(Debug)]
pub(super) enum Chosen<'a> {
    /// What is stored, or comes.
    AsItIs,
    /// An encoding at rest.
    Made(&'a Arc<Encoded>),
    /// What is made on its way; with a turn, as a favour.
    Live { from: Coding, to: Coding, turn: Option<LiveTurn> },
}

/// Of a stored response.
#[inline]
pub(super) fn choose<'a>(object: &'a Object, request: &HeaderMap, admitted: &Admitted) -> Chosen<'a> {
    match &object.encodings {
        None => Chosen::AsItIs,
        Some(encodings) => among(object, encodings, request, admitted),
    }
}

/// The bytes that it is made of.
pub(super) fn body_of<'a>(object: &'a Object, request: &HeaderMap, admitted: &Admitted) -> &'a Arc<Body> {
    match choose(object, request, admitted) {
        Chosen::Made(encoded) => &encoded.body,
        Chosen::AsItIs | Chosen::Live { .. } => &object.body,
    }
}

/// Of a response that is still coming.
pub(super) fn choose_coming(head: &Head, request: &HeaderMap, admitted: &Admitted) -> Chosen<'static> {
    let Some(negotiated) = head.negotiated else { return Chosen::AsItIs };
    let accepted = encoding::accepted(request);
    if accepted.weight(negotiated.coding) > 0 {
        let favour = Favour { head, length: content_length(&head.headers), encodings: None, admitted };
        return favour.choose(request, accepted);
    }
    live(negotiated.coding, None, accepted)
}

fn among<'a>(
    object: &'a Object,
    encodings: &'a Encodings,
    request: &HeaderMap,
    admitted: &Admitted,
) -> Chosen<'a> {
    let Some(negotiated) = object.head.negotiated else { return Chosen::AsItIs };
    let (from, compress) = (negotiated.coding, &admitted.treatment.compress);
    let accepted = encoding::accepted(request);
    let plain = encodings.plain().filter(|encoded| compress.serves(encoded.coding));
    let dictionary = if compress.dictionaries { dictionary::available(request) } else { None };
    let deltas = encodings.deltas().filter(|delta| Some(delta.dictionary) == dictionary);
    let made = plain.chain(deltas.filter_map(|delta| delta.made.kept()));
    let ready = made.map(|encoded| (encoded.coding, encoded.body.len()));
    match encoding::choose(accepted, std::iter::once((from, object.body.len())).chain(ready)) {
        Some(coding) if coding == from => {
            let length = Some(object.body.len());
            Favour { head: &object.head, length, encodings: Some(encodings), admitted }
                .choose(request, accepted)
        }
        Some(coding) => {
            let delta = || encodings.delta(dictionary?, coding)?.kept();
            encodings.get(coding).or_else(delta).map_or(Chosen::AsItIs, Chosen::Made)
        }
        None => live(from, Some(encodings), accepted),
    }
}

/// What is encoded on its way though it need not be.
struct Favour<'a> {
    head: &'a Head,
    length: Option<u64>,
    encodings: Option<&'a Encodings>,
    admitted: &'a Admitted,
}

impl Favour<'_> {
    fn choose(&self, request: &HeaderMap, accepted: Accepted) -> Chosen<'static> {
        let Self { head, length, encodings, admitted } = self;
        let is_none = head.negotiated.is_none_or(|negotiated| negotiated.coding != Coding::Identity)
            || head.status != StatusCode::OK
            || length.is_some_and(|length| length < LIVE_BYTES)
            // The node's own requests want it stored, and nothing else.
            || admitted.is_own
            // Ranges are of bytes that are there.
            || request.contains_key(header::RANGE);
        if is_none {
            return Chosen::AsItIs;
        }
        // What was made is smaller, or not worth it; what is equal to identity is better.
        let is_open = |coding: &Coding| {
            accepted.weight(*coding) > 0
                && accepted.weight(*coding) >= accepted.identity
                && admitted.treatment.compress.serves(*coding)
                && encodings.is_none_or(|encodings| encodings.made(*coding).is_none())
        };
        let to =
            LIVE[1..].iter().copied().rev().filter(is_open).max_by_key(|coding| accepted.weight(*coding));
        match to.and_then(|to| Some((to, LiveTurn::take()?))) {
            Some((to, turn)) => Chosen::Live { from: Coding::Identity, to, turn: Some(turn) },
            None => Chosen::AsItIs,
        }
    }
}

#[cold]
fn live<'a>(from: Coding, encodings: Option<&Encodings>, accepted: Accepted) -> Chosen<'a> {
    let is_undecodable = from != Coding::Identity
        && encodings
            .and_then(|encodings| encodings.made(Coding::Identity))
            .is_some_and(|made| matches!(made, Made::NotWorth));
    let acceptable = LIVE.into_iter().filter(|coding| accepted.weight(*coding) > 0);
    match acceptable.rev().max_by_key(|coding| accepted.weight(*coding)) {
        Some(to) if !is_undecodable => Chosen::Live { from, to, turn: None },
        _ => Chosen::AsItIs,
    }
}

impl Chosen<'_> {
    /// Makes of a copy of the stored head that of what was chosen.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        let (coding, tag) = match self {
            Self::AsItIs => return,
            Self::Made(encoded) => {
                headers.insert(header::CONTENT_LENGTH, encoded.body.len().into());
                let tag = headers.get(header::ETAG).and_then(|tag| derived(tag, encoded));
                (encoded.coding, tag)
            }
            Self::Live { to, .. } => {
                headers.remove(header::CONTENT_LENGTH);
                (*to, headers.get(header::ETAG).and_then(etag::weaken))
            }
        };
        let has_ranges = tag.as_ref().is_some_and(|tag| etag::is_strong(tag.as_bytes()));
        match tag {
            Some(tag) => headers.insert(header::ETAG, tag),
            // Not even a tag: it would be that of other bytes.
            None => headers.remove(header::ETAG),
        };
        if !has_ranges {
            headers.remove(header::ACCEPT_RANGES);
        }
        match coding {
            Coding::Identity => headers.remove(header::CONTENT_ENCODING),
            coding => headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str())),
        };
        for digest in DIGESTS {
            headers.remove(digest);
        }
    }

    /// Whether ranges of it may be served, by its head: of encodings that nothing tells apart, and of what is made on its
    /// way, they may not.
    pub(super) fn has_ranges(&self, headers: &HeaderMap, request: &HeaderMap) -> bool {
        let is_strong = || headers.get(header::ETAG).is_some_and(|tag| etag::is_strong(tag.as_bytes()));
        match self {
            Self::Live { .. } => false,
            Self::Made(_) => is_strong(),
            Self::AsItIs => is_strong() || !request.contains_key(header::IF_UNMODIFIED_SINCE),
        }
    }
}

/// The tag of an encoding: a weak one names the content in every coding.
fn derived(tag: &HeaderValue, encoded: &Encoded) -> Option<HeaderValue> {
    if etag::is_strong(tag.as_bytes()) {
        return etag::with_suffix(tag, &encoded.suffix());
    }
    etag::weaken(tag)
}
