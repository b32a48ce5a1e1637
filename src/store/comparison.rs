//! How what is stored is compared with purges, of which the store itself knows nothing.

use std::fmt;
use std::sync::{Arc, OnceLock};

/// Given a URL, the tags of what is stored under it and an `as_of`: the `as_of` from now on; `None`: it is purged.
pub(super) type Compare = Arc<dyn Fn(&str, &[Box<str>], u64) -> Option<u64> + Send + Sync>;

/// See the module; nothing is ever purged until it is said how to compare.
#[derive(Default)]
pub(super) struct Comparison(OnceLock<Compare>);

impl fmt::Debug for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Comparison")
    }
}

impl Comparison {
    /// Says, once, how.
    pub(super) fn set(&self, compare: Compare) {
        let _ = self.0.set(compare);
    }

    /// See [`Compare`].
    pub(super) fn outlived(&self, url: &str, tags: &[Box<str>], as_of: u64) -> Option<u64> {
        self.0.get().map_or(Some(as_of), |compare| compare(url, tags, as_of))
    }
}
