//! Invalidation by unsafe methods (RFC 9111 §4.4) and the reference resolution that it needs (RFC 3986 §5).

use std::borrow::Cow;

use http::{HeaderMap, Method, StatusCode, header};

use super::{
    fields,
    key::{self, Scheme},
};

/// A request's target, normalised as its cache key is.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Of the request.
    pub scheme: Scheme,
    /// With its port, if that is not the default one.
    pub host: &'a str,
    /// Normalised.
    pub path: &'a str,
    /// Without the "?".
    pub query: Option<&'a str>,
}

/// A URL of the target's scheme and authority; the path is normalised, the query is not yet filtered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Normalised.
    pub path: String,
    /// Without the "?".
    pub query: Option<String>,
}

/// Methods that change nothing (RFC 9110 §9.2.1 and the registry); whatever is unknown is unsafe.
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(
        method.as_str(),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PROPFIND" | "REPORT" | "SEARCH" | "QUERY"
    )
}

/// Whether the answer to a request invalidates what is stored for its target: a non-error answer to an unsafe method.
#[must_use]
pub fn invalidates(method: &Method, status: StatusCode) -> bool {
    !is_safe(method) && (status.is_success() || status.is_redirection())
}

/// What else an unsafe request invalidates: Location and Content-Location, where they are of the same origin. The target
/// itself is not among them.
#[must_use]
pub fn targets(target: &Target<'_>, response: &HeaderMap) -> Vec<Resolved> {
    let named = [header::LOCATION, header::CONTENT_LOCATION].into_iter().filter_map(|name| {
        let reference = fields::single(response, name.as_str())?.to_str().ok()?;
        resolve(target, reference)
    });
    let mut found: Vec<Resolved> = Vec::new();
    for resolved in named {
        if !is_target(target, &resolved) && !found.contains(&resolved) {
            found.push(resolved);
        }
    }
    found
}

/// Whether Content-Location says that the answer is a representation of the target (RFC 9110 §8.7).
#[must_use]
pub fn content_location_is_target(target: &Target<'_>, response: &HeaderMap) -> bool {
    let reference =
        fields::single(response, header::CONTENT_LOCATION.as_str()).and_then(|value| value.to_str().ok());
    reference
        .and_then(|reference| resolve(target, reference))
        .is_some_and(|resolved| is_target(target, &resolved))
}

/// Resolves a URI reference against a target; `None` when it leads to another origin or nowhere.
#[must_use]
pub fn resolve(target: &Target<'_>, reference: &str) -> Option<Resolved> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (rest, absolute) = match scheme_of(reference) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(target.scheme.as_str()) => (rest, true),
        Some(_) => return None,
        None => (reference, false),
    };
    let (rest, has_authority) = match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let host = key::normalize_host(&rest[..end], target.scheme).ok()?;
            if host != target.host {
                return None;
            }
            (&rest[end..], true)
        }
        // `https:path` names no authority, so it names no origin either.
        None if absolute => return None,
        None => (rest, false),
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let (path, query) = match (path, query) {
        ("", None) if !has_authority => (Cow::Borrowed(target.path), target.query),
        ("", query) if !has_authority => (Cow::Borrowed(target.path), query),
        (path, query) if has_authority || path.starts_with('/') => (Cow::Borrowed(path), query),
        (path, query) => {
            let directory = target.path.rfind('/').map_or("/", |at| &target.path[..=at]);
            (Cow::Owned(format!("{directory}{path}")), query)
        }
    };
    let path = key::normalize_path(&path).ok()?.into_owned();
    Some(Resolved { path, query: query.map(str::to_owned) })
}

fn is_target(target: &Target<'_>, resolved: &Resolved) -> bool {
    resolved.path == target.path && resolved.query.as_deref() == target.query
}

/// RFC 3986 §3.1; a colon after the first "/" or "?" belongs to the path or query.
fn scheme_of(reference: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = reference.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    valid.then_some((scheme, rest))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const TARGET: Target<'static> =
        Target { scheme: Scheme::Https, host: "a.example", path: "/x/y", query: Some("q") };

    fn resolved(reference: &str) -> Option<String> {
        let resolved = resolve(&TARGET, reference)?;
        Some(match resolved.query {
            Some(query) => format!("{}?{query}", resolved.path),
            None => resolved.path,
        })
    }

    #[test]
    fn unsafe_methods() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"] {
            assert!(is_safe(&Method::from_bytes(method.as_bytes()).unwrap()));
        }
        for method in ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "get"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert!(invalidates(&method, StatusCode::OK) && invalidates(&method, StatusCode::SEE_OTHER));
            assert!(!invalidates(&method, StatusCode::NOT_FOUND));
            assert!(!invalidates(&method, StatusCode::INTERNAL_SERVER_ERROR));
        }
    }

    #[test]
    fn references_of_the_same_origin_resolve() {
        for (reference, wanted) in [
            ("/z", "/z"),
            ("z", "/x/z"),
            ("../z?1", "/z?1"),
            ("./", "/x/"),
            ("", "/x/y?q"),
            ("#f", "/x/y?q"),
            ("?r", "/x/y?r"),
            ("https://a.example/z", "/z"),
            ("HTTPS://A.Example:443/z#f", "/z"),
            ("//a.example/%7ez", "/~z"),
            ("https://a.example", "/"),
            ("https://a.example?r", "/?r"),
            ("z:1/../w", ""),
            ("./z:1", "/x/z:1"),
            ("/a:b", "/a:b"),
        ] {
            let wanted = (!wanted.is_empty()).then(|| wanted.to_owned());
            assert_eq!(resolved(reference), wanted, "{reference}");
        }
    }

    #[test]
    fn other_origins_do_not() {
        for reference in [
            "http://a.example/z",
            "https://b.example/z",
            "//b.example/z",
            "https://a.example:8443/z",
            "https:z",
            "https://u@a.example/z",
            "mailto:x",
            "https:///z",
            "//",
        ] {
            assert_eq!(resolved(reference), None, "{reference}");
        }
    }

    #[test]
    fn both_fields_are_targets_but_not_the_target() {
        let response: HeaderMap = HeaderMap::from_iter([
            (header::LOCATION, HeaderValue::from_static("/new")),
            (header::CONTENT_LOCATION, HeaderValue::from_static("/x/y?q")),
        ]);
        assert_eq!(targets(&TARGET, &response), [Resolved { path: "/new".into(), query: None }]);
        assert!(content_location_is_target(&TARGET, &response));
        assert!(!content_location_is_target(&TARGET, &HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn never_panics(reference in "\\PC{0,40}") {
            let _ = resolve(&TARGET, &reference);
        }
    }
}
