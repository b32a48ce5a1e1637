//! What a response frame says: a key and all its variants, each with its head and where its body is.
//!
//! The whole entry of a key is one frame: the newest frame of a key is all that is to know of it, and
//! a change of one variant writes the small heads of all of them again, never their bodies.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use super::format::Bad;
use crate::object::{Encoded, Encodings, Head, Made, Offer, Place, Sum};
use crate::rules::dictionary::DictionaryHash;
use crate::rules::encoding::Coding;
use crate::rules::freshness::{Freshness, SOURCES};
use crate::rules::key::CacheKey;
use crate::rules::time::Millis;
use crate::rules::vary::{VariantKey, VaryRule};

/// In place of a segment's number: the frame's own body, from its start.
pub(super) const OWN: u32 = u32::MAX;
/// Added to the number of a coding.
const ONLY_DECODED: u8 = 0x80;

/// All that is stored under a key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta<'a> {
    /// The canonical URL.
    pub(super) key: &'a str,
    #[serde(borrow)]
    pub(super) variants: Vec<VariantMeta<'a>>,
}

/// A variant.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct VariantMeta<'a> {
    status: u16,
    #[serde(borrow)]
    fields: Vec<(&'a str, &'a [u8])>,
    #[serde(borrow)]
    vary: Vec<&'a str>,
    variant: &'a [u8],
    times: [i64; 5],
    no_cache: bool,
    never_stale: bool,
    source: u8,
    #[serde(borrow)]
    strip_fields: Vec<&'a str>,
    #[serde(borrow)]
    tags: Vec<&'a str>,
    pub(super) as_of: u64,
    pub(super) version: u64,
    generation: u64,
    /// The number of the coding that the origin sent it in, where clients choose; with [`ONLY_DECODED`], where that is all
    /// that is done for them.
    negotiated: Option<u8>,
    pub(super) must_revalidate: bool,
    pub(super) last_used: i64,
    pub(super) parts: Vec<PartMeta>,
    pub(super) encodings: Vec<EncodingMeta>,
}

/// What is known of an encoding. Without parts: it is not worth to be made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EncodingMeta {
    coding: u8,
    /// The SHA-256 of what it is encoded against.
    dictionary: Option<[u8; 32]>,
    pub(super) sum: [u8; 4],
    pub(super) is_best: bool,
    pub(super) parts: Vec<PartMeta>,
}

impl EncodingMeta {
    /// What is known of a coding that is not worth to be made.
    fn not_worth(coding: Coding, dictionary: Option<DictionaryHash>) -> Self {
        let dictionary = dictionary.map(|hash| hash.0);
        Self { coding: coding as u8, dictionary, sum: [0; 4], is_best: false, parts: Vec::new() }
    }

    pub(super) fn dictionary(&self) -> Option<DictionaryHash> {
        self.dictionary.map(DictionaryHash)
    }

    pub(super) fn size(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.place().length)).sum()
    }

    pub(super) fn coding(&self) -> Option<Coding> {
        Coding::ALL.get(usize::from(self.coding)).copied()
    }

    /// Of all encodings of an object, whose parts are where `place` says; what has left the store is left out.
    pub(super) fn of(
        encodings: &Encodings,
        mut place: impl FnMut(&Arc<Encoded>) -> Option<Vec<PartMeta>>,
    ) -> Vec<Self> {
        let plain = Coding::PLAIN.into_iter();
        let plain = plain.filter_map(|coding| Some((coding, None, encodings.made(coding)?)));
        let deltas = encodings.deltas().map(|delta| (delta.coding, Some(delta.dictionary), &delta.made));
        let meta = plain.chain(deltas).filter_map(|(coding, dictionary, made)| match made {
            Made::NotWorth => Some(Self::not_worth(coding, dictionary)),
            Made::Kept(encoded) => {
                let (sum, is_best) = (encoded.sum, encoded.is_best);
                Some(Self { sum, is_best, parts: place(encoded)?, ..Self::not_worth(coding, dictionary) })
            }
        });
        meta.collect()
    }
}

/// A part of a body: segment (or [`OWN`]), offset, length, sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartMeta(pub(super) u32, pub(super) u32, pub(super) u32, pub(super) [u8; 16]);

impl PartMeta {
    pub(super) fn new(segment: u32, place: Place) -> Self {
        Self(segment, place.offset, place.length, place.sum.0)
    }

    pub(super) fn segment(&self) -> u32 {
        self.0
    }

    pub(super) fn place(&self) -> Place {
        Place { offset: self.1, length: self.2, sum: Sum(self.3) }
    }
}

impl<'a> VariantMeta<'a> {
    /// Of a head; `fields` are its fields without the places held for each answer, `parts` those of the body.
    pub(super) fn new(
        head: &'a Head,
        fields: &'a HeaderMap,
        parts: Vec<PartMeta>,
        encodings: Vec<EncodingMeta>,
    ) -> Self {
        let freshness = &head.freshness;
        let times = [
            freshness.response_time.0,
            freshness.initial_age_ms,
            freshness.fresh_until.0,
            freshness.swr_until.0,
            freshness.sie_until.0,
        ];
        Self {
            status: head.status.as_u16(),
            fields: fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
            vary: head.vary.names().iter().map(HeaderName::as_str).collect(),
            variant: head.variant.as_bytes(),
            times,
            no_cache: freshness.no_cache,
            never_stale: freshness.never_stale,
            source: SOURCES.iter().position(|source| *source == freshness.source).unwrap_or(0) as u8,
            strip_fields: freshness.strip_fields.iter().map(HeaderName::as_str).collect(),
            tags: head.tags.iter().map(AsRef::as_ref).collect(),
            as_of: head.as_of,
            version: head.version,
            generation: head.generation,
            negotiated: head.negotiated.map(|negotiated| number_of(negotiated.offer)),
            must_revalidate: false,
            last_used: 0,
            parts,
            encodings,
        }
    }

    /// All parts of its bodies.
    pub(super) fn all_parts(&self) -> impl Iterator<Item = &PartMeta> {
        self.parts.iter().chain(self.encodings.iter().flat_map(|encoding| &encoding.parts))
    }

    /// The same, to be changed.
    pub(super) fn all_parts_mut(&mut self) -> impl Iterator<Item = &mut PartMeta> {
        let encoded = self.encodings.iter_mut().flat_map(|encoding| &mut encoding.parts);
        self.parts.iter_mut().chain(encoded)
    }

    /// The names under which it may be purged.
    pub(super) fn tags(&self) -> &[&'a str] {
        &self.tags
    }

    /// Of its body.
    pub(super) fn size(&self) -> u64 {
        self.parts.iter().map(|part| u64::from(part.place().length)).sum()
    }

    /// The head again.
    pub(super) fn head(&self, key: &CacheKey) -> Result<Head, Bad> {
        let names = |names: &[&str]| names.iter().map(|name| name.parse::<HeaderName>()).collect();
        let names = |list: &[&str]| -> Result<Vec<HeaderName>, Bad> {
            let names: Result<Vec<_>, _> = names(list);
            names.map_err(|_| Bad::Shape)
        };
        let mut headers = HeaderMap::with_capacity(self.fields.len() + 2);
        // Their values are in one allocation, as `object::compact` makes them.
        let values: Vec<&[u8]> = self.fields.iter().map(|(_, value)| *value).collect();
        let mut values = Bytes::from(values.concat());
        for (name, value) in &self.fields {
            let name: HeaderName = name.parse().map_err(|_| Bad::Shape)?;
            let value = HeaderValue::from_maybe_shared(values.split_to(value.len()));
            headers.append(name, value.map_err(|_| Bad::Shape)?);
        }
        let [response_time, initial_age_ms, fresh_until, swr_until, sie_until] = self.times;
        let freshness = Freshness {
            response_time: Millis(response_time),
            initial_age_ms,
            fresh_until: Millis(fresh_until),
            swr_until: Millis(swr_until),
            sie_until: Millis(sie_until),
            no_cache: self.no_cache,
            never_stale: self.never_stale,
            source: SOURCES.get(usize::from(self.source)).copied().unwrap_or(SOURCES[0]),
            strip_fields: names(&self.strip_fields)?.into_boxed_slice(),
        };
        let selecting = (VaryRule::new(names(&self.vary)?), VariantKey::from_bytes(self.variant));
        let status = StatusCode::from_u16(self.status).map_err(|_| Bad::Shape)?;
        let mut head = Head::of_compact(key.clone(), status, headers, selecting, freshness);
        (head.version, head.generation) = (self.version, self.generation);
        if let Some(number) = self.negotiated {
            head.negotiate(offer_of(number).ok_or(Bad::Shape)?);
        }
        head.as_of = self.as_of;
        head.tags = self.tags.iter().map(|tag| Box::from(*tag)).collect();
        Ok(head)
    }
}

fn number_of(offer: Offer) -> u8 {
    offer.coding as u8 | if offer.is_made { 0 } else { ONLY_DECODED }
}

fn offer_of(number: u8) -> Option<Offer> {
    let coding = *Coding::ALL.get(usize::from(number & !ONLY_DECODED))?;
    Some(Offer { coding, is_made: number & ONLY_DECODED == 0 })
}

impl<'a> Meta<'a> {
    /// The bytes of a frame's meta.
    pub(super) fn encode(&self) -> Result<Vec<u8>, Bad> {
        postcard::to_stdvec(self).map_err(|_| Bad::Shape)
    }

    /// Reads a frame's meta.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Bad> {
        postcard::from_bytes(bytes).map_err(|_| Bad::Shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::key::Scheme;
    use proptest::prelude::*;

    #[test]
    fn a_head_is_read_back() {
        let mut headers = HeaderMap::new();
        headers.append("etag", HeaderValue::from_static("\"a\""));
        headers.append("x-two", HeaderValue::from_static("1"));
        headers.append("x-two", HeaderValue::from_bytes(b"\xe9").unwrap());
        let mut request = HeaderMap::new();
        request.insert("accept-language", HeaderValue::from_static("de"));
        let vary = VaryRule::new(vec![http::header::ACCEPT_LANGUAGE]);
        let variant = vary.key(&request);
        let freshness = Freshness {
            response_time: Millis(5),
            initial_age_ms: 6,
            fresh_until: Millis(7),
            swr_until: Millis(8),
            sie_until: Millis(i64::MAX),
            no_cache: true,
            never_stale: true,
            source: "heuristic",
            strip_fields: Box::new([http::header::SET_COOKIE]),
        };
        let key = CacheKey::new(Scheme::Https, "a.example", "/x", Some("q"));
        let mut head = Head::new(key.clone(), StatusCode::OK, headers, (vary, variant), freshness);
        head.version = 42;
        (head.as_of, head.tags, head.generation) = (7, [Box::from("tag")].into(), 41);
        head.negotiate(Offer { coding: Coding::Identity, is_made: true });
        let fields = head.fields();
        let place = Place { offset: 64, length: 3, sum: Sum::of(b"abc") };
        let encoding = EncodingMeta {
            coding: 1,
            dictionary: None,
            sum: [9; 4],
            is_best: true,
            parts: vec![PartMeta::new(7, place)],
        };
        let delta = EncodingMeta::not_worth(Coding::Dcz, Some(DictionaryHash([3; 32])));
        let encodings = vec![encoding, EncodingMeta::not_worth(Coding::Gzip, None), delta];
        let variant = VariantMeta::new(&head, &fields, vec![PartMeta::new(OWN, place)], encodings);
        assert_eq!(variant.all_parts().map(PartMeta::segment).collect::<Vec<_>>(), [OWN, 7]);
        let bytes = Meta { key: key.canonical(), variants: vec![variant] }.encode().unwrap();
        let meta = Meta::decode(&bytes).unwrap();
        assert_eq!(meta.key, "https://a.example/x?q");
        let again = meta.variants[0].head(&key).unwrap();
        assert_eq!(again.headers, head.headers);
        assert_eq!(again.freshness, head.freshness);
        assert_eq!((again.vary, again.variant, again.version), (head.vary, head.variant, 42));
        assert_eq!((again.as_of, again.tags, again.generation), (7, head.tags, 41));
        assert_eq!(again.negotiated, head.negotiated);
        assert_eq!(again.headers.get_all("vary").iter().count(), 1);
        let codings = meta.variants[0].encodings.iter().map(|e| (e.coding(), e.is_best, e.parts.len()));
        assert_eq!(
            codings.collect::<Vec<_>>(),
            [(Some(Coding::Br), true, 1), (Some(Coding::Gzip), false, 0), (Some(Coding::Dcz), false, 0)]
        );
        let dictionaries = meta.variants[0].encodings.iter().map(EncodingMeta::dictionary);
        assert_eq!(dictionaries.collect::<Vec<_>>(), [None, None, Some(DictionaryHash([3; 32]))]);
        assert_eq!(meta.variants[0].parts[0].place(), place);
        assert!(Meta::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn what_is_offered_is_read_back() {
        for coding in Coding::ALL {
            for is_made in [true, false] {
                let offer = Offer { coding, is_made };
                assert_eq!(offer_of(number_of(offer)), Some(offer));
            }
        }
        assert_eq!((offer_of(6), offer_of(0x86)), (None, None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(meta) = Meta::decode(&bytes) {
                let key = CacheKey::new(Scheme::Https, "a.example", "/", None);
                for variant in &meta.variants {
                    let _ = variant.head(&key);
                }
            }
        }
    }
}
