//! Accept-Encoding (RFC 9110 §12.5.3), reduced to the codings that a cache of static files can do something with.

use std::cmp::Reverse;

use http::{HeaderMap, header::ACCEPT_ENCODING, header::CONTENT_ENCODING};

use super::fields;

/// A content coding that a representation can have here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// None at all.
    Identity,
    /// Brotli (RFC 7932).
    Br,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
    /// Brotli against a dictionary that the client has (RFC 9842 §4).
    Dcb,
    /// Zstandard against a dictionary that the client has (RFC 9842 §5).
    Dcz,
}

impl Coding {
    /// Each of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Identity, Self::Br, Self::Zstd, Self::Gzip, Self::Dcb, Self::Dcz];
    /// Those that need no dictionary; the first of them all.
    pub const PLAIN: [Self; 4] = [Self::Identity, Self::Br, Self::Zstd, Self::Gzip];

    /// Its token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Br => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Dcb => "dcb",
            Self::Dcz => "dcz",
        }
    }

    /// The same against a dictionary; `None`: there is no such coding.
    #[must_use]
    pub fn against_dictionary(self) -> Option<Self> {
        match self {
            Self::Br => Some(Self::Dcb),
            Self::Zstd => Some(Self::Dcz),
            _ => None,
        }
    }

    /// Its token again, of those that need no dictionary.
    #[must_use]
    pub fn from_token(token: &[u8]) -> Option<Self> {
        let named =
            Self::PLAIN.into_iter().find(|coding| token.eq_ignore_ascii_case(coding.as_str().as_bytes()));
        named.or(token.eq_ignore_ascii_case(b"x-gzip").then_some(Self::Gzip))
    }

    /// What a response is encoded with; `None`: with something else, or with several codings.
    #[must_use]
    pub fn of(response: &HeaderMap) -> Option<Self> {
        let mut found = Self::Identity;
        for line in response.get_all(CONTENT_ENCODING) {
            for element in fields::elements(line.as_bytes()) {
                match Self::from_token(element)? {
                    Self::Identity => {}
                    coding if found == Self::Identity => found = coding,
                    _ => return None,
                }
            }
        }
        Some(found)
    }
}

/// The weights, in thousandths, that a client gives; 0 is "not acceptable".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Brotli (RFC 7932).
    pub br: u16,
    /// Also as `x-gzip`.
    pub gzip: u16,
    /// RFC 8878.
    pub zstd: u16,
    /// 1000 unless the client says otherwise.
    pub identity: u16,
    /// Only by its name, as [`Accepted::dcz`]: `*` says nothing of dictionaries.
    pub dcb: u16,
    /// See [`Accepted::dcb`].
    pub dcz: u16,
}

impl Accepted {
    /// What the client gives a coding; 0: it does not accept it.
    #[must_use]
    pub fn weight(self, coding: Coding) -> u16 {
        match coding {
            Coding::Identity => self.identity,
            Coding::Br => self.br,
            Coding::Zstd => self.zstd,
            Coding::Gzip => self.gzip,
            Coding::Dcb => self.dcb,
            Coding::Dcz => self.dcz,
        }
    }
}

/// The coding to send of those that are there, each with its length in bytes: what the client weighs highest, and of equals
/// the shortest. `None`: it accepts none of them.
#[must_use]
pub fn choose(accepted: Accepted, ready: impl Iterator<Item = (Coding, u64)>) -> Option<Coding> {
    let acceptable = ready.filter(|(coding, _)| accepted.weight(*coding) > 0);
    let best = acceptable.max_by_key(|(coding, length)| (accepted.weight(*coding), Reverse(*length)));
    best.map(|(coding, _)| coding)
}

/// Canonical Accept-Encoding to key and to send to the origin: the known codings that the client accepts, in a fixed order.
///
/// `None` when only identity is acceptable or wanted: the field is absent, empty or malformed, or weighs identity higher
/// than any known coding.
#[must_use]
pub fn normalize(headers: &HeaderMap) -> Option<&'static str> {
    let accepted = accepted(headers);
    let best = accepted.br.max(accepted.gzip).max(accepted.zstd);
    if best == 0 || accepted.identity > best {
        return None;
    }
    Some(match (accepted.br > 0, accepted.gzip > 0, accepted.zstd > 0) {
        (true, true, true) => "br, gzip, zstd",
        (true, true, false) => "br, gzip",
        (true, false, true) => "br, zstd",
        (true, false, false) => "br",
        (false, true, true) => "gzip, zstd",
        (false, true, false) => "gzip",
        (false, false, true) => "zstd",
        (false, false, false) => return None,
    })
}

/// What the client accepts, and how gladly. Elements that are malformed are skipped; of duplicates the first counts.
#[must_use]
pub fn accepted(headers: &HeaderMap) -> Accepted {
    let mut named = Named::default();
    for line in headers.get_all(ACCEPT_ENCODING) {
        for element in fields::elements(line.as_bytes()) {
            if let Some((coding, weight)) = weighted(element) {
                named.set(coding, weight);
            }
        }
    }
    let rest = named.any.unwrap_or(0);
    Accepted {
        br: named.br.unwrap_or(rest),
        gzip: named.gzip.unwrap_or(rest),
        zstd: named.zstd.unwrap_or(rest),
        // Unlisted identity is acceptable without a preference; only `*;q=0` or its own q=0 exclude it.
        identity: named.identity.unwrap_or(u16::from(named.any != Some(0))),
        dcb: named.dcb.unwrap_or(0),
        dcz: named.dcz.unwrap_or(0),
    }
}

#[derive(Default)]
struct Named {
    br: Option<u16>,
    gzip: Option<u16>,
    zstd: Option<u16>,
    identity: Option<u16>,
    dcb: Option<u16>,
    dcz: Option<u16>,
    any: Option<u16>,
}

impl Named {
    fn set(&mut self, coding: &[u8], weight: u16) {
        let slot = match coding {
            b"*" => &mut self.any,
            _ if coding.eq_ignore_ascii_case(b"br") => &mut self.br,
            _ if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") => {
                &mut self.gzip
            }
            _ if coding.eq_ignore_ascii_case(b"zstd") => &mut self.zstd,
            _ if coding.eq_ignore_ascii_case(b"identity") => &mut self.identity,
            _ if coding.eq_ignore_ascii_case(b"dcb") => &mut self.dcb,
            _ if coding.eq_ignore_ascii_case(b"dcz") => &mut self.dcz,
            _ => return,
        };
        slot.get_or_insert(weight);
    }
}

/// `token [ OWS ";" OWS "q=" qvalue ]` (RFC 9110 §12.4.2), the weight in thousandths.
pub(super) fn weighted(element: &[u8]) -> Option<(&[u8], u16)> {
    let Some(at) = element.iter().position(|&b| b == b';') else {
        return fields::is_token(element).then_some((element, 1000));
    };
    let (token, parameter) = (fields::trim(&element[..at]), fields::trim(&element[at + 1..]));
    let [b'q' | b'Q', b'=', value @ ..] = parameter else {
        return None;
    };
    if !fields::is_token(token) {
        return None;
    }
    Some((token, qvalue(value)?))
}

/// A weight in thousandths; `None`: it is malformed.
pub(super) fn qvalue(value: &[u8]) -> Option<u16> {
    let (whole, decimals) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut thousandths = 0_u16;
    for place in 0..3 {
        let digit = decimals.get(place).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        thousandths = thousandths * 10 + u16::from(digit - b'0');
    }
    match (whole, thousandths) {
        (b'0', _) => Some(thousandths),
        (b'1', 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn normal(value: &str) -> Option<&'static str> {
        normalize(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap())]))
    }

    #[test]
    fn order_case_and_unknown_codings_do_not_matter() {
        for value in ["gzip, deflate, br, zstd", "ZSTD,BR;q=0.1 , x-gzip", "*", "zstd;q=0.9, *;q=0.1"] {
            assert_eq!(normal(value), Some("br, gzip, zstd"), "{value}");
        }
        assert_eq!(normal("gzip, deflate"), Some("gzip"));
        assert_eq!(normal("gzip;q=1.000, br;q=0.000"), Some("gzip"));
        assert_eq!(normal("gzip;q=0, *"), Some("br, zstd"));
        assert_eq!(normal("gzip, dcb, dcz"), Some("gzip"), "dictionaries are between the client and us");
    }

    #[test]
    fn only_identity() {
        for value in [
            "",
            "identity",
            "deflate",
            "gzip;q=0",
            "*;q=0",
            "gzip;q=2",
            "gzip;q=0.1234",
            "identity, gzip;q=0.5",
            "gzip;level=1",
        ] {
            assert_eq!(normal(value), None, "{value}");
        }
        assert_eq!(normalize(&HeaderMap::new()), None);
        assert_eq!(normal("identity;q=0.5, gzip"), Some("gzip"));
    }

    #[test]
    fn several_lines_are_one_list() {
        let mut headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]);
        headers.append(ACCEPT_ENCODING, HeaderValue::from_static("br"));
        assert_eq!(normalize(&headers), Some("br, gzip"));
    }

    #[test]
    fn the_shortest_of_what_is_wanted_most() {
        let choose = |value: &str, ready: &[(Coding, u64)]| {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(value).unwrap())]);
            choose(accepted(&headers), ready.iter().copied())
        };
        use Coding::{Br, Gzip, Identity, Zstd};
        let all = [(Identity, 100), (Br, 20), (Zstd, 22), (Gzip, 25)];
        for (value, expected) in [
            ("gzip, deflate, br, zstd", Some(Br)),
            ("gzip, deflate", Some(Gzip)),
            ("deflate, gzip, br;q=0.5", Some(Gzip)),
            ("*", Some(Br)),
            ("br;q=0, *", Some(Zstd)),
            ("", Some(Identity)),
            ("identity", Some(Identity)),
            ("identity, gzip;q=0.5", Some(Identity)),
            ("identity;q=0", None),
            ("identity;q=0, gzip", Some(Gzip)),
            ("*;q=0", None),
            ("*;q=0, zstd;q=0.001", Some(Zstd)),
            ("br;q=1.5, gzip", Some(Gzip)),
            ("compress, deflate", Some(Identity)),
        ] {
            assert_eq!(choose(value, &all), expected, "{value}");
        }
        assert_eq!(choose("br", &[(Identity, 100), (Gzip, 25)]), Some(Identity));
        assert_eq!(choose("br", &[(Gzip, 25)]), None);
    }

    #[test]
    fn what_a_response_is_encoded_with() {
        let of = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_ENCODING, HeaderValue::from_str(line).unwrap());
            }
            Coding::of(&headers)
        };
        assert_eq!(of(&[]), Some(Coding::Identity));
        assert_eq!(of(&["identity"]), Some(Coding::Identity));
        assert_eq!(of(&["X-GZip"]), Some(Coding::Gzip));
        assert_eq!(of(&["identity, br"]), Some(Coding::Br));
        for other in [&["deflate"][..], &["gzip, br"], &["gzip", "gzip"], &["foo"]] {
            assert_eq!(of(other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_acceptable(value in "[ -~]{0,60}|((br|gzip|zstd|identity|\\*|x-gzip|dcb|dcz)(;q=[01](\\.[0-9]{0,3})?)?, ?){0,6}", there in 0_u8..64) {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_str(&value).unwrap())]);
            let accepted = accepted(&headers);
            let ready = || Coding::ALL.into_iter().enumerate().filter(|(i, _)| there & (1 << i) != 0);
            match choose(accepted, ready().map(|(i, coding)| (coding, i as u64))) {
                Some(coding) => prop_assert!(accepted.weight(coding) > 0),
                None => prop_assert!(ready().all(|(_, coding)| accepted.weight(coding) == 0)),
            }
        }

        #[test]
        fn normalizing_is_idempotent(value in "[ -~]{0,60}") {
            let once = normal(&value);
            prop_assert_eq!(once.and_then(normal), once);
        }
    }
}
