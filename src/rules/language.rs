//! Accept-Language selection (RFC 9111 §4.1, RFC 9110 §12.5.4), for sites that switch it on.
//!
//! The order of a client's languages is never changed: RFC 9110 notes that some servers give it a meaning.

use http::{
    HeaderMap,
    header::{ACCEPT_LANGUAGE, CONTENT_LANGUAGE},
};

use super::{encoding::weighted, fields};

/// Whether a response stored for another Accept-Language is this client's first choice: the tag with the highest weight is
/// alone at that weight and equals the response's Content-Language.
#[must_use]
pub fn selects(request: &HeaderMap, stored: &HeaderMap) -> bool {
    let Some(language) = fields::single(stored, CONTENT_LANGUAGE.as_str()) else {
        return false;
    };
    best(request).is_some_and(|tag| tag.eq_ignore_ascii_case(fields::trim(language.as_bytes())))
}

/// The one tag that the client wants most, if it is one. A malformed field selects nothing.
fn best(request: &HeaderMap) -> Option<&[u8]> {
    let mut best: Option<(&[u8], u16)> = None;
    let mut unique = false;
    for line in request.get_all(ACCEPT_LANGUAGE) {
        for element in fields::elements(line.as_bytes()) {
            let (tag, weight) = weighted(element)?;
            match best {
                Some((_, highest)) if weight < highest => {}
                Some((_, highest)) if weight == highest => unique = false,
                _ => (best, unique) = (Some((tag, weight)), true),
            }
        }
    }
    best.filter(|&(tag, weight)| unique && weight > 0 && tag != b"*").map(|(tag, _)| tag)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn selected(accept: &'static str, content: &'static str) -> bool {
        selects(
            &HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_static(accept))]),
            &HeaderMap::from_iter([(CONTENT_LANGUAGE, HeaderValue::from_static(content))]),
        )
    }

    #[test]
    fn a_unique_first_choice_selects() {
        assert!(selected("en;q=0.5, de", "DE"));
        assert!(selected("fr, de;q=0.9, en;q=0.1", "fr"));
    }

    #[test]
    fn anything_else_does_not() {
        assert!(!selected("en, de", "de"));
        assert!(!selected("en, de;q=0.5", "de"));
        assert!(!selected("*", "*"));
        assert!(!selected("de;q=0", "de"));
        assert!(!selected("de, en;q=x", "de"));
        assert!(!selects(&HeaderMap::new(), &HeaderMap::new()));
    }
}
