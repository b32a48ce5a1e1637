//! In which coding does a client get a response (RFC 9110 §12.5.3)?
//!
//! Of what is ready, what the client weighs highest, and of equals the shortest. Where nothing that is ready may be
//! sent, the body is decoded or encoded on its way, once for this client: then its length is not known, its entity tag is
//! weak, and ranges of it are not served. Where the client accepts nothing at all, it gets what is stored.
//!
//! A strong entity tag names bytes: each encoding has one of its own. Where the origin gives none, nothing tells the bytes
//! of two encodings apart, so that ranges are never served by a date.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};

use crate::object::{Body, Encoded, Encodings, Head, Made, Object};
use crate::rules::encoding::{self, Accepted, Coding};
use crate::rules::etag;

/// Of equals, what is quickest to be made while a client waits.
const LIVE: [Coding; 4] = [Coding::Identity, Coding::Zstd, Coding::Gzip, Coding::Br];
/// Digests of a body's bytes, or of what they stand for in their coding.
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

/// What a client gets of a response.
#[derive(Clone, Debug)]
pub(super) enum Chosen<'a> {
    /// What is stored, or comes.
    AsItIs,
    /// An encoding at rest.
    Made(&'a Arc<Encoded>),
    /// What is made on its way.
    Live { from: Coding, to: Coding },
}

/// Of a stored response.
#[inline]
pub(super) fn choose<'a>(object: &'a Object, request: &HeaderMap) -> Chosen<'a> {
    match &object.encodings {
        None => Chosen::AsItIs,
        Some(encodings) => among(&object.head, object.body.len(), Some(encodings), request),
    }
}

/// The bytes that it is made of.
pub(super) fn body_of<'a>(object: &'a Object, request: &HeaderMap) -> &'a Arc<Body> {
    match choose(object, request) {
        Chosen::Made(encoded) => &encoded.body,
        Chosen::AsItIs | Chosen::Live { .. } => &object.body,
    }
}

/// Of a response that is still coming.
pub(super) fn choose_coming(head: &Head, request: &HeaderMap) -> Chosen<'static> {
    among(head, 0, None, request)
}

fn among<'a>(head: &Head, length: u64, encodings: Option<&'a Encodings>, request: &HeaderMap) -> Chosen<'a> {
    let Some(negotiated) = head.negotiated else { return Chosen::AsItIs };
    let from = negotiated.coding;
    let accepted = encoding::accepted(request);
    let made = encodings.into_iter().flat_map(Encodings::all);
    let made = made.map(|encoded| (encoded.coding, encoded.body.len()));
    match encoding::choose(accepted, std::iter::once((from, length)).chain(made)) {
        Some(coding) if coding == from => Chosen::AsItIs,
        Some(coding) => {
            encodings.and_then(|encodings| encodings.get(coding)).map_or(Chosen::AsItIs, Chosen::Made)
        }
        None => live(from, encodings, accepted),
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
        Some(to) if !is_undecodable => Chosen::Live { from, to },
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
