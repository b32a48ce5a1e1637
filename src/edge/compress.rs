//! Which responses are served in the coding that each client prefers: `site.compress`.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::object::{CodingSet, Head, Offer};
use crate::rules::dictionary::AVAILABLE_DICTIONARY;
use crate::rules::encoding::Coding;
use crate::rules::targeted;
use crate::rules::vary::{self, Vary, VaryRule};

/// `site.compress`.
#[derive(Clone, Debug, Default)]
pub struct Compress {
    /// What is made, the first first; none: bodies are served as they come.
    pub codings: Vec<Coding>,
    /// Media types in lower case; `type/*` for all of a type.
    pub types: Vec<String>,
    /// Smaller bodies are left alone.
    pub min_bytes: u64,
    /// Larger bodies are left alone, and nothing unfolds to more.
    pub max_bytes: u64,
    /// Whether clients get bodies encoded against a dictionary that they have (RFC 9842).
    pub dictionaries: bool,
}

impl Compress {
    /// What clients may have a response in, if that depends on them; `length` is that of its body, where it is known.
    ///
    /// What came encoded can be decoded whatever its type and status are: clients that do not know its coding can do
    /// nothing with it.
    pub(super) fn offer(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        length: Option<u64>,
    ) -> Option<Offer> {
        let coding = Coding::of(headers)?;
        let is_encoded = coding != Coding::Identity;
        let is_made = matches!(status, StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION)
            && headers.get(header::CONTENT_TYPE).is_some_and(|kind| self.names(kind));
        // What came encoded may be needed in no coding, however small it is.
        let min_bytes = if is_encoded { 1 } else { self.min_bytes };
        let is_eligible = !self.codings.is_empty()
            && (is_made || is_encoded && has_content(status))
            && length.is_none_or(|length| (min_bytes..=self.max_bytes).contains(&length))
            && !headers.contains_key(header::CONTENT_RANGE)
            && !targeted::forbids_transforming(headers);
        is_eligible.then_some(Offer { coding, is_made })
    }

    fn names(&self, content_type: &HeaderValue) -> bool {
        let essence = content_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        let essence = essence.trim_ascii();
        self.types.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(kind) => {
                essence.len() >= kind.len() && essence[..kind.len()].eq_ignore_ascii_case(kind.as_bytes())
            }
            None => essence.eq_ignore_ascii_case(wanted.as_bytes()),
        })
    }

    /// Whether an encoding that is there is to be served.
    #[inline]
    pub(super) fn serves(&self, coding: Coding) -> bool {
        coding == Coding::Identity || self.codings.contains(&coding)
    }

    /// What is made at rest.
    #[inline]
    pub(super) fn wanted(&self) -> CodingSet {
        self.codings.iter().copied().collect()
    }

    /// The codings of deltas that are made, the first first.
    pub(super) fn deltas(&self) -> impl Iterator<Item = Coding> {
        let codings = self.codings.iter().filter(|_| self.dictionaries);
        codings.filter_map(|coding| coding.against_dictionary())
    }

    /// The head of a complete body: whether clients choose is decided now that its length is known.
    pub(super) fn settle(&self, head: &mut Head, length: u64) {
        if head.negotiated.is_some() && self.offer(head.status, &head.headers, Some(length)).is_none() {
            head.serve_as_it_is();
        }
    }
}

/// Whether the body of a response is all of some content.
fn has_content(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What selects among variants when clients choose the coding: not Accept-Encoding and Available-Dictionary, which select
/// among a variant's encodings.
pub(super) fn without_encoding(rule: &VaryRule) -> VaryRule {
    let is_other = |name: &&HeaderName| **name != header::ACCEPT_ENCODING && **name != AVAILABLE_DICTIONARY;
    let others = rule.names().iter().filter(is_other);
    VaryRule::new(others.cloned().collect())
}

/// Says that the answer may be another one for who has a dictionary (RFC 9842 §2.2).
pub(super) fn vary_by_dictionary(headers: &mut HeaderMap) {
    let is_silent = matches!(
        vary::parse(headers),
        Vary::Fields(rule) if !rule.names().contains(&AVAILABLE_DICTIONARY)
    );
    if is_silent {
        headers.append(header::VARY, HeaderValue::from_static("Available-Dictionary"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GZIP: (&str, &str) = ("content-encoding", "gzip");

    fn compress() -> Compress {
        Compress {
            codings: vec![Coding::Br],
            types: vec!["text/css".into(), "font/*".into()],
            min_bytes: 512,
            max_bytes: 1000,
            dictionaries: true,
        }
    }

    fn offer(fields: &[(&'static str, &'static str)], length: Option<u64>) -> Option<Offer> {
        let fields = fields
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)));
        compress().offer(StatusCode::OK, &fields.collect(), length)
    }

    #[test]
    fn by_type_size_and_wish() {
        const CSS: (&str, &str) = ("content-type", "Text/CSS ; charset=utf-8");
        let made = |coding| Some(Offer { coding, is_made: true });
        let identity = made(Coding::Identity);
        assert_eq!(offer(&[CSS], Some(512)), identity);
        assert_eq!(offer(&[CSS], None), identity);
        assert_eq!(offer(&[("content-type", "font/otf")], Some(600)), identity);
        for other in ["text/cssx", "text", "fontx/a", "image/png", ""] {
            assert_eq!(offer(&[("content-type", other)], Some(600)), None, "{other}");
        }
        assert_eq!(offer(&[], Some(600)), None);
        assert_eq!(offer(&[CSS], Some(511)), None);
        assert_eq!(offer(&[CSS], Some(1001)), None);
        assert_eq!(offer(&[CSS, GZIP], Some(20)), made(Coding::Gzip));
        assert_eq!(offer(&[CSS, GZIP], Some(0)), None);
        assert_eq!(offer(&[CSS, ("content-encoding", "compress")], Some(600)), None);
        assert_eq!(offer(&[CSS, ("cache-control", "max-age=5, No-Transform")], Some(600)), None);
        assert_eq!(offer(&[CSS, ("content-range", "bytes 0-1/2")], Some(600)), None);
        assert_eq!(Compress::default().offer(StatusCode::OK, &HeaderMap::new(), None), None);
    }

    #[test]
    fn what_came_encoded_is_decoded_whatever_it_is() {
        const IMAGE: (&str, &str) = ("content-type", "image/bmp");
        let decoded = Some(Offer { coding: Coding::Gzip, is_made: false });
        assert_eq!(offer(&[IMAGE, GZIP], Some(20)), decoded);
        assert_eq!(offer(&[GZIP], None), decoded);
        assert_eq!(offer(&[IMAGE, GZIP], Some(1001)), None);
        for other in ["gzip, br", "deflate", "compress", "identity"] {
            assert_eq!(offer(&[IMAGE, ("content-encoding", other)], Some(20)), None, "{other}");
        }
        assert_eq!(offer(&[IMAGE, GZIP, ("cache-control", "no-transform")], Some(20)), None);
        let headers = [(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))].into_iter().collect();
        for (status, expected) in [(404, decoded), (203, decoded), (204, None), (206, None), (304, None)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(compress().offer(status, &headers, Some(20)), expected, "{status}");
        }
        assert_eq!(Compress::default().offer(StatusCode::OK, &headers, None), None, "it is off");
    }
}
