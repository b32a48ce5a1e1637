//! In which coding does a client get a response (RFC 9110 §12.5.3)?
//!
//! Of what is ready, what the client weighs highest, and of equals the shortest. Where nothing that is ready may be
//! sent, the body is decoded or encoded on its way, once for this client: then its length is not known, its entity tag is
//! weak, and ranges of it are not served. Where the client accepts nothing that can be made, it gets 406 (RFC 9110
//! §15.5.7): that it refuses identity too, it has to say in so many words. What has no other coding to be had in is sent to
//! everybody, as §12.1 allows: an image is of more use than a 406 to who forgot that not all is compressed. What turned out
//! to unfold to more than is allowed, or not to be in the coding that it is said to be in, can be had as it is only: by who
//! accepts that coding, and by who says nothing of codings.
//!
//! What came encoded and is of no type that is compressed is decoded on its way to who does not accept its coding, and
//! nothing else: no encoding of it is made or kept, and the origin's own Vary selects it as ever.
//!
//! Who comes before the encodings of something large has it encoded on its way too, at a level that takes next to no
//! time, as long as few others do: by any link that is slower than a machine room's, its last byte comes much earlier
//! (`benches/README.md`).
//!
//! A strong entity tag names bytes: each encoding has one of its own. Where the origin gives none, nothing tells the bytes
//! of two encodings apart, so that ranges are never served by a date.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::accepted::accepted;
use super::admit::Admitted;
use super::respond::content_length;
use crate::encode::LiveTurn;
use crate::object::{Body, Encoded, Encodings, Head, Object, Offer};
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
    Live { from: Coding, to: Coding, turn: Option<LiveTurn>, of: Option<&'a Arc<Encodings>> },
    /// The client accepts none that it could be had in.
    Refused,
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
        Chosen::AsItIs | Chosen::Live { .. } | Chosen::Refused => &object.body,
    }
}

/// Of a response that is still coming.
pub(super) fn choose_coming(head: &Head, request: &HeaderMap, admitted: &Admitted) -> Chosen<'static> {
    let Some(negotiated) = head.negotiated else { return Chosen::AsItIs };
    choose_of(negotiated.offer, (head.status, &head.headers), request, admitted)
}

/// Of what has these fields, none of its encodings being there.
pub(super) fn choose_of(
    offer: Offer,
    (status, headers): (StatusCode, &HeaderMap),
    request: &HeaderMap,
    admitted: &Admitted,
) -> Chosen<'static> {
    let accepted = accepted(request);
    if accepted.weight(offer.coding) > 0 {
        let favour = Favour { offer, status, length: content_length(headers), encodings: None, admitted };
        return favour.choose(request, accepted);
    }
    live(offer, None, accepted, request)
}

fn among<'a>(
    object: &'a Object,
    encodings: &'a Arc<Encodings>,
    request: &HeaderMap,
    admitted: &Admitted,
) -> Chosen<'a> {
    let Some(negotiated) = object.head.negotiated else { return Chosen::AsItIs };
    let (from, compress) = (negotiated.offer.coding, &admitted.treatment.compress);
    let accepted = accepted(request);
    let plain = encodings.plain().filter(|encoded| compress.serves(encoded.coding));
    let dictionary = if compress.dictionaries { dictionary::available(request) } else { None };
    let deltas = encodings.deltas().filter(|delta| Some(delta.dictionary) == dictionary);
    let made = plain.chain(deltas.filter_map(|delta| delta.made.kept()));
    let ready = made.map(|encoded| (encoded.coding, encoded.body.len()));
    match encoding::choose(accepted, std::iter::once((from, object.body.len())).chain(ready)) {
        Some(coding) if coding == from => {
            let (offer, status) = (negotiated.offer, object.head.status);
            let length = Some(object.body.len());
            Favour { offer, status, length, encodings: Some(encodings), admitted }.choose(request, accepted)
        }
        Some(coding) => {
            let delta = || encodings.delta(dictionary?, coding)?.kept();
            encodings.get(coding).or_else(delta).map_or(Chosen::AsItIs, Chosen::Made)
        }
        None => live(negotiated.offer, Some(encodings), accepted, request),
    }
}

/// What is encoded on its way though it need not be.
struct Favour<'a> {
    offer: Offer,
    status: StatusCode,
    length: Option<u64>,
    encodings: Option<&'a Encodings>,
    admitted: &'a Admitted,
}

impl Favour<'_> {
    fn choose(&self, request: &HeaderMap, accepted: Accepted) -> Chosen<'static> {
        let Self { offer, status, length, encodings, admitted } = self;
        let is_none = offer.coding != Coding::Identity
            || *status != StatusCode::OK
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
            Some((to, turn)) => Chosen::Live { from: Coding::Identity, to, turn: Some(turn), of: None },
            None => Chosen::AsItIs,
        }
    }
}

#[cold]
fn live<'a>(
    offer: Offer,
    of: Option<&'a Arc<Encodings>>,
    accepted: Accepted,
    request: &HeaderMap,
) -> Chosen<'a> {
    let from = offer.coding;
    if from != Coding::Identity && of.is_some_and(|encodings| encodings.is_undecodable()) {
        // Who says nothing accepts any (RFC 9110 §12.5.3).
        let is_silent = !request.contains_key(header::ACCEPT_ENCODING);
        return if is_silent { Chosen::AsItIs } else { Chosen::Refused };
    }
    if !offer.is_made && accepted.identity > 0 {
        return Chosen::Live { from, to: Coding::Identity, turn: None, of };
    }
    let acceptable = LIVE.into_iter().filter(|coding| accepted.weight(*coding) > 0);
    match acceptable.rev().max_by_key(|coding| accepted.weight(*coding)) {
        Some(to) => Chosen::Live { from, to, turn: None, of },
        None => Chosen::Refused,
    }
}

impl Chosen<'_> {
    /// Makes of a copy of the stored head that of what was chosen.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        let (coding, tag) = match self {
            Self::AsItIs | Self::Refused => return,
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
            Self::Live { .. } | Self::Refused => false,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_made_on_its_way_is_acceptable_and_a_refusal_is_just(
            field in "[ -~]{0,60}|((br|gzip|zstd|identity|\\*|x-gzip|dcb|dcz)(;q=[01](\\.[0-9]{0,3})?)?, ?){0,6}",
            coding in 0_usize..4,
            is_made: bool,
            is_undecodable: bool,
        ) {
            let request = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_str(&field).unwrap())]);
            let accepted = encoding::accepted(&request);
            let offer = Offer { coding: Coding::PLAIN[coding], is_made };
            prop_assume!(accepted.weight(offer.coding) == 0);
            let encodings = Arc::new(Encodings::default());
            if is_undecodable {
                encodings.set_undecodable();
            }
            match live(offer, Some(&encodings), accepted, &request) {
                Chosen::Live { from, to, .. } => {
                    prop_assert_eq!(from, offer.coding);
                    prop_assert!(accepted.weight(to) > 0);
                    prop_assert!(offer.is_made || to == Coding::Identity || accepted.identity == 0);
                }
                Chosen::Refused => {
                    let is_all = Coding::PLAIN.into_iter().all(|coding| accepted.weight(coding) == 0);
                    prop_assert!(is_all || is_undecodable && offer.coding != Coding::Identity);
                }
                Chosen::AsItIs => prop_assert!(false, "it is not accepted"),
                Chosen::Made(_) => prop_assert!(false, "nothing is made"),
            }
        }
    }
}
