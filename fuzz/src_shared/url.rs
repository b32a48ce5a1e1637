//! Normalising twice is normalising once, and what is normal costs nothing.

use std::borrow::Cow;

use larder::rules::{
    invalidate::{self, Target},
    key::{self, CacheKey, QueryMode, QueryRule, Scheme},
};

/// Host, path and query, a line each.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let (host, path, query) =
        (lines.next().unwrap_or_default(), lines.next().unwrap_or_default(), lines.next());
    for scheme in [Scheme::Http, Scheme::Https] {
        if let Ok(once) = key::normalize_host(host, scheme) {
            assert!(matches!(key::normalize_host(&once, scheme), Ok(Cow::Borrowed(twice)) if twice == once));
        }
    }
    if let Ok(once) = key::normalize_path(path) {
        assert!(matches!(key::normalize_path(&once), Ok(Cow::Borrowed(twice)) if twice == once));
        let key = CacheKey::new(Scheme::Https, "a.example", &once, query);
        assert_eq!(key, CacheKey::from_canonical(key.canonical().into()));
        let target = Target { scheme: Scheme::Https, host: "a.example", path: &once, query };
        if let Some(resolved) = invalidate::resolve(&target, text) {
            assert!(resolved.path.starts_with('/'));
        }
    }
    let names = || vec!["a".to_owned(), "@tracking".to_owned()];
    for mode in [QueryMode::All, QueryMode::None, QueryMode::Allow(names()), QueryMode::Deny(names())] {
        for sort in [false, true] {
            let rule = QueryRule { mode: mode.clone(), sort };
            let once = key::filter_query(query.unwrap_or_default(), &rule);
            let twice = once.as_deref().and_then(|once| key::filter_query(once, &rule));
            assert_eq!(once, twice);
        }
    }
}
