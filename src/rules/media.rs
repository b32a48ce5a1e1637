//! Accept: which of two media types does a client want (RFC 9110 §12.5.1)?

use http::{HeaderMap, header::ACCEPT};

use super::{encoding::qvalue, fields};

/// Whether a client that names one of these media types wants it at least as much as plain text. The first of them that it
/// names counts; a wildcard names none.
#[must_use]
pub fn prefers_to_text(request: &HeaderMap, named: &[&str]) -> bool {
    let Some(accept) = fields::combined(request, ACCEPT.as_str()) else { return false };
    // Elements whose weight is malformed are skipped; of duplicates the first counts.
    let weight_of = |range: &str| {
        let mut elements = fields::elements(&accept);
        elements.find_map(|element| weighted(element, range))
    };
    let Some(weight) = named.iter().find_map(|media| weight_of(media)) else { return false };
    // The more specific range has precedence.
    let text = ["text/plain", "text/*", "*/*"].into_iter().find_map(weight_of).unwrap_or(0);
    weight > 0 && weight >= text
}

/// The weight, in thousandths, of an element for this very range, whatever its other parameters are.
fn weighted(element: &[u8], range: &str) -> Option<u16> {
    let mut parts = element.split(|&byte| byte == b';').map(fields::trim);
    if !parts.next()?.eq_ignore_ascii_case(range.as_bytes()) {
        return None;
    }
    let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    weight.map_or(Some(1000), qvalue)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn is_json(lines: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, HeaderValue::from_str(line).unwrap());
        }
        prefers_to_text(&headers, &["application/problem+json", "application/json"])
    }

    #[test]
    fn json_is_for_who_names_it_and_wants_it_as_much_as_text() {
        for lines in [
            &["application/json"][..],
            &["Application/JSON; charset=utf-8 ; Q=0.1"],
            &["application/problem+json, application/json;q=0"],
            &["text/html", "application/json;q=0.9"],
            &["application/json, text/plain, */*"],
            &["application/json;q=0.5, text/plain;q=0.4, */*"],
            &["application/json;q=2, application/json"],
        ] {
            assert!(is_json(lines), "{lines:?}");
        }
        for lines in [
            &[][..],
            &[""],
            &["*/*"],
            &["application/*"],
            &["text/html, */*;q=0.8"],
            &["application/json;q=0"],
            &["application/json;q=0.000, */*"],
            &["application/json;q=0.5, */*"],
            &["application/json;q=0.5, text/*;q=0.6, */*;q=0.1"],
            &["application/problem+json;q=0, application/json"],
            &["application/json;q=x"],
            &["application/jsonp", "text/json"],
        ] {
            assert!(!is_json(lines), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn no_soup_panics_and_a_weight_of_zero_is_never_json(soup in "[ -~]{0,40}") {
            is_json(&[&soup]);
            prop_assert!(!is_json(&["application/json;q=0, application/problem+json;q=0.0", &soup]));
        }
    }
}
