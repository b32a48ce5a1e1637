//! Fields that end at this hop (RFC 9110 §7.6.1).
//!
//! Everything that Connection nominates goes, except fields that are meant for all recipients and on which framing,
//! routing, access or caching depend: a sender must not nominate those (RFC 9110 §7.6.1), and one that does anyway tries to
//! change what we store or whom the origin sees.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::fields;

const RESPONSE: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const REQUEST: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Fields that a nomination does not remove.
const PROTECTED: [&str; 41] = [
    "accept-encoding",
    "age",
    "authorization",
    "cache-control",
    "cdn-cache-control",
    "cdn-loop",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-security-policy",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expires",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "larder-cdn-cache-control",
    "last-modified",
    "location",
    "origin",
    "pragma",
    "range",
    "set-cookie",
    "strict-transport-security",
    "surrogate-control",
    "vary",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-frame-options",
    "x-real-ip",
];

/// Before a response is stored or forwarded.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers, &RESPONSE);
}

/// Before a request is forwarded.
pub fn strip_request(headers: &mut HeaderMap) {
    strip(headers, &REQUEST);
}

/// Before a request is keyed: of what [`strip_request`] removes, what its sender chooses. A field that the origin does not
/// see selects nothing.
pub fn strip_nominated(headers: &mut HeaderMap) {
    for name in nominated(headers) {
        headers.remove(name);
    }
}

/// Whether a Connection line may name fields; most say `keep-alive` or `close`.
#[must_use]
pub fn nominates(line: &HeaderValue) -> bool {
    let line = line.as_bytes();
    !line.eq_ignore_ascii_case(b"keep-alive") && !line.eq_ignore_ascii_case(b"close")
}

/// Whether [`strip_response`] would remove a field of this name when nothing nominates it.
pub(super) fn is_response_hop(name: &HeaderName) -> bool {
    RESPONSE.contains(&name.as_str())
}

fn strip(headers: &mut HeaderMap, listed: &[&str]) {
    strip_nominated(headers);
    for name in listed {
        headers.remove(*name);
    }
}

fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines
        .flat_map(|line| fields::elements(line.as_bytes()))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| PROTECTED.binary_search(&name.as_str()).is_err())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn nominated_fields_go_and_others_stay() {
        let mut response = headers(&[
            ("connection", "A, b"),
            ("connection", "close"),
            ("a", "1"),
            ("b", "2"),
            ("b", "3"),
            ("c", "4"),
        ]);
        strip_response(&mut response);
        assert_eq!(response, headers(&[("c", "4")]));
    }

    #[test]
    fn listed_fields_go_unasked() {
        for name in RESPONSE {
            let mut response = headers(&[(name, "x")]);
            strip_response(&mut response);
            assert!(response.is_empty(), "{name}");
        }
        for name in REQUEST {
            let mut request = headers(&[(name, "x")]);
            strip_request(&mut request);
            assert!(request.is_empty(), "{name}");
        }
    }

    #[test]
    fn what_a_sender_nominates_is_taken_out_alone() {
        let mut request =
            headers(&[("connection", "accept-language, te"), ("accept-language", "de"), ("x", "1")]);
        strip_nominated(&mut request);
        assert_eq!(request, headers(&[("connection", "accept-language, te"), ("x", "1")]));
        let says = |line| nominates(&HeaderValue::from_static(line));
        assert!(!says("Keep-Alive") && !says("close") && says("close, x") && says("x"));
    }

    #[test]
    fn nominating_what_caching_rests_on_removes_nothing() {
        assert!(PROTECTED.is_sorted(), "it is searched");
        for name in PROTECTED {
            let mut response = headers(&[("connection", name), (name, "x")]);
            strip_response(&mut response);
            assert!(response.contains_key(name), "{name}");
        }
    }
}
