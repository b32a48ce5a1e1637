//! Whether a purge would hit an object, without there being one: dry runs, and lists of what is held.

use super::matcher::Matcher;
use super::{Selector, Subject, Verdict};
use crate::rules::time::Millis;

/// What a purge with some selectors would hit. By the same comparison, so that the two can't disagree.
#[derive(Debug)]
pub struct Probe(Matcher);

impl Probe {
    /// Of a purge's selectors, and the site that restricts them.
    pub fn new(selectors: &[Selector], site: Option<&str>) -> Self {
        let matcher = Matcher::new();
        matcher.apply((1, Millis(0)), selectors, site, false);
        matcher.set_applied(1);
        Self(matcher)
    }

    /// Whether it would hit this.
    pub fn hits(&self, subject: &Subject<'_>) -> bool {
        self.0.check(subject, 0) != Verdict::Kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_hits_what_the_purge_would() {
        let tags = ["t".into()];
        let subject = Subject { site: "shop", host: "h", path: "/a/b", query: None, tags: &tags };
        let hits = |selector: Selector, site| Probe::new(&[selector], site).hits(&subject);
        assert!(hits(Selector::Tag("t".into()), None) && hits(Selector::Tag("t".into()), Some("shop")));
        assert!(!hits(Selector::Tag("t".into()), Some("blog")) && !hits(Selector::Tag("u".into()), None));
        assert!(hits(Selector::Prefix { host: "h".into(), path: "/a".into() }, None));
        assert!(!hits(Selector::Prefix { host: "h".into(), path: "/a/bc".into() }, None));
        assert!(hits(Selector::All, Some("shop")) && !hits(Selector::All, Some("blog")));
    }
}
