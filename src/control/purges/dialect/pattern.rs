//! Regular expressions of other caches' clients, as far as they are lists of tags or hosts, exact URLs or prefixes.
//!
//! What clients send are a few forms of a few programs; nothing here evaluates an expression. One that is no such form
//! is an error, never a guess: half of a purge that looks like all of it is worse than none.

use crate::rules::tags::Separator;

/// Groups in groups.
const MAX_DEPTH: usize = 8;
/// What matches everything.
const EVERYTHING: [&str; 9] = [".*", ".+", "^.*", "^.+", ".*$", ".+$", "^.*$", "^.+$", "."];
/// Behind a path: it and what is below it.
const BELOW: [&str; 9] =
    ["/.*", "/.*$", "(/.*)?$", "(/|$)", "($|/)", "(/|\\?|$)", "([/?]|$)", "([/?].*)?$", "(/|\\?.*|$)"];

/// A list, or everything.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Matched<T> {
    Everything,
    These(Vec<T>),
}

/// A host as a pattern has it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HostName {
    pub(super) name: String,
    /// Between `^` and `$`: it and no longer name.
    pub(super) is_whole: bool,
}

/// A URL below its host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A path and a query.
    Exactly(String),
    /// A path and what is below it.
    Below(String),
}

/// Whether an expression matches whatever there is.
pub(super) fn is_everything(pattern: &str) -> bool {
    EVERYTHING.contains(&pattern)
}

/// An expression that is matched against a field of tags: alternatives, with or without what separates tags around
/// them. A name that is not fenced in means the tag all the same, and not each tag that contains it: that is how
/// Drupal's purgers send it.
pub(super) fn tags(pattern: &str, separator: Separator) -> Result<Matched<String>, String> {
    let pattern = pattern.trim();
    if is_everything(pattern) {
        return Ok(Matched::Everything);
    }
    let mut names = Vec::new();
    add_tags(pattern, 0, &mut names)?;
    let tags: Vec<_> = names.iter().flat_map(|name| split(name, separator)).map(str::to_owned).collect();
    if tags.is_empty() { Err("it names no tag".into()) } else { Ok(Matched::These(tags)) }
}

/// The tags of a plain list.
pub(super) fn split(list: &str, separator: Separator) -> Vec<&str> {
    match separator {
        Separator::Space => list.split_ascii_whitespace().collect(),
        Separator::Comma => list.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect(),
    }
}

fn add_tags(pattern: &str, depth: usize, names: &mut Vec<String>) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("it has groups in too many groups".into());
    }
    for part in alternatives(pattern)? {
        if let Some(inner) = group(part) {
            add_tags(inner, depth + 1, names)?;
            continue;
        }
        let (rest, begins) = without_fence(part, true);
        let (body, ends) = without_fence(rest, false);
        if begins && !ends {
            return Err(format!("{part:?} is the beginning of a tag; only whole tags can be purged"));
        }
        let (from, to) = (body.strip_prefix('^'), body.strip_suffix('$'));
        let body = match (from, to) {
            (Some(from), Some(_)) => from.strip_suffix('$').unwrap_or(from),
            _ => body,
        };
        match group(body) {
            Some(inner) => add_tags(inner, depth + 1, names)?,
            None => names.push(literal(body)?),
        }
    }
    Ok(())
}

/// An expression that is matched against Host.
pub(super) fn hosts(pattern: &str) -> Result<Matched<HostName>, String> {
    let pattern = pattern.trim();
    if is_everything(pattern) {
        return Ok(Matched::Everything);
    }
    let mut hosts = Vec::new();
    for part in alternatives(pattern)? {
        let part = group(part).unwrap_or(part);
        let (body, is_whole) = match (part.strip_prefix('^'), part.strip_suffix('$')) {
            (Some(body), Some(_)) => (body.strip_suffix('$').unwrap_or(body), true),
            (None, None) => (part, false),
            _ => {
                return Err(format!(
                    "{part:?} is anchored at one end; ^{}$ is a host",
                    part.trim_matches(['^', '$'])
                ));
            }
        };
        for name in alternatives(group(body).unwrap_or(body))? {
            hosts.push(HostName { name: literal(name)?, is_whole });
        }
    }
    Ok(Matched::These(hosts))
}

/// An expression that is matched against path and query.
pub(super) fn targets(pattern: &str) -> Result<Matched<Target>, String> {
    let pattern = pattern.trim();
    let mut targets = Vec::new();
    for part in alternatives(pattern)? {
        let part = group(part).unwrap_or(part);
        if is_everything(part) || ["/", "^/", "^"].contains(&part) {
            return Ok(Matched::Everything);
        }
        let (body, is_anchored) = part.strip_prefix('^').map_or((part, false), |body| (body, true));
        let below = BELOW.iter().filter_map(|end| body.strip_suffix(end)).min_by_key(|body| body.len());
        let below = below.or_else(|| body.strip_suffix('/').filter(|_| is_anchored));
        let (body, is_below) = match below {
            Some(body) => (body, true),
            None if is_anchored && body.ends_with('$') => (&body[..body.len() - 1], false),
            None => {
                let how = "^/a$ is a URL, ^/a/ and /a/.* are a path and what is below it";
                return Err(format!("{part:?} is neither a URL nor whole segments of a path: {how}"));
            }
        };
        if body.is_empty() && is_below {
            return Ok(Matched::Everything);
        }
        for body in alternatives(group(body).unwrap_or(body))? {
            let text = literal(body)?;
            if !text.starts_with('/') {
                return Err(format!("{part:?} does not begin with a path"));
            }
            targets.push(if is_below { Target::Below(text) } else { Target::Exactly(text) });
        }
    }
    Ok(Matched::These(targets))
}

/// What stands between the bars that are in no group.
fn alternatives(pattern: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let (mut depth, mut from) = (0_usize, 0);
    let mut is_escaped = false;
    for (at, byte) in pattern.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1).ok_or("it closes a group that is not open")?,
            b'|' if depth == 0 => {
                parts.push(&pattern[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&pattern[from..]);
    if depth > 0 || is_escaped {
        return Err("it is not complete".into());
    }
    if parts.iter().any(|part| part.is_empty()) {
        return Err("it has an empty alternative, which matches everything; .* says so".into());
    }
    Ok(parts)
}

/// What is in the one group that an expression is.
fn group(pattern: &str) -> Option<&str> {
    let inner = pattern.strip_prefix('(')?.strip_suffix(')')?;
    let inner = inner.strip_prefix("?:").unwrap_or(inner);
    let mut depth = 0_usize;
    let mut is_escaped = false;
    for byte in inner.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'(' => depth += 1,
            b')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    (depth == 0 && !is_escaped).then_some(inner)
}

/// Takes off what says that a tag begins, or ends, here: `(^|,)`, `(\s|$)`, `(,.+)?$`.
fn without_fence(pattern: &str, is_begin: bool) -> (&str, bool) {
    const ENDS: [&str; 3] = ["(,.+)?$", "(,.*)?$", "\\b"];
    if is_begin {
        if let Some(rest) = pattern.strip_prefix("\\b") {
            return (rest, true);
        }
        if let Some(end) = pattern.starts_with('(').then(|| pattern.find(')')).flatten()
            && is_fence(&pattern[1..end], "^")
        {
            return (&pattern[end + 1..], true);
        }
        return (pattern, false);
    }
    if let Some(rest) = ENDS.iter().find_map(|end| pattern.strip_suffix(end)) {
        return (rest, true);
    }
    if let Some(start) = pattern.ends_with(')').then(|| pattern.rfind('(')).flatten()
        && is_fence(&pattern[start + 1..pattern.len() - 1], "$")
    {
        return (&pattern[..start], true);
    }
    (pattern, false)
}

fn is_fence(alternatives: &str, anchor: &str) -> bool {
    const SEPARATORS: [&str; 9] = [",", " ", "\\s", ", ", ",\\s*", ", *", "[ ,]", "[, ]", "[\\s,]"];
    let alternatives = alternatives.strip_prefix("?:").unwrap_or(alternatives);
    let parts = || alternatives.split('|');
    parts().any(|part| part == anchor) && parts().all(|part| part == anchor || SEPARATORS.contains(&part))
}

/// The text that an expression means, if it means one. A bare dot is a dot: nobody who writes names escapes them all.
fn literal(pattern: &str) -> Result<String, String> {
    let mut text = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped) if escaped.is_ascii_punctuation() || escaped == ' ' => text.push(escaped),
                _ => return Err(format!("{pattern:?} has a class of characters")),
            },
            '*' | '+' | '?' | '[' | ']' | '(' | ')' | '{' | '}' | '^' | '$' | '|' => {
                return Err(format!("{pattern:?} has {character:?}, which stands for more than itself"));
            }
            _ => text.push(character),
        }
    }
    if text.is_empty() { Err("it names nothing".into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn these<T>(list: impl IntoIterator<Item = T>) -> Matched<T> {
        Matched::These(list.into_iter().collect())
    }

    #[test]
    fn lists_of_tags() {
        for (pattern, wanted) in [
            ("((^|,)cat_p_1(,|$))|((^|,)cat_p(,|$))", &["cat_p_1", "cat_p"][..]),
            ("((^|,)cat_p_1(,|$))", &["cat_p_1"]),
            ("(^|,)(mytag|othertag)(,|$)", &["mytag", "othertag"]),
            ("(^|,)(post\\-1|post_type\\-3)(,|$)", &["post-1", "post_type-3"]),
            ("(foo|bar\\.x)(,.+)?$", &["foo", "bar.x"]),
            ("node:1|node_list", &["node:1", "node_list"]),
            ("config:user.role.anonymous", &["config:user.role.anonymous"]),
            ("(?:^|,)(?:a|b)(?:,|$)", &["a", "b"]),
            ("(^|,\\s*)a(,|$)", &["a"]),
            ("\\bnode:1\\b", &["node:1"]),
            ("^only$", &["only"]),
            ("(a|(b|c))", &["a", "b", "c"]),
            ("a, b", &["a", "b"]),
            ("(^|,)home page(,|$)", &["home page"]),
        ] {
            let wanted = these(wanted.iter().map(ToString::to_string));
            assert_eq!(tags(pattern, Separator::Comma), Ok(wanted), "{pattern}");
        }
        assert_eq!(tags("(^|\\s)a(\\s|$)", Separator::Space), Ok(these(["a".to_owned()])));
        assert_eq!(tags("4fa1 bb2", Separator::Space), Ok(these(["4fa1".to_owned(), "bb2".to_owned()])));
        for pattern in [".*", " .* ", ".+", "^.*$"] {
            assert_eq!(tags(pattern, Separator::Comma), Ok(Matched::Everything), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags() {
        for pattern in [
            "",
            "|",
            "a||b",
            "cat_p_.*",
            "(^|,)cat_p_",
            "cat_[0-9]+",
            "a+",
            "a\\d",
            "(a",
            "a)",
            "a\\",
            "a(b|c)",
            "^cat_",
            "cat$",
            "((^|,)a(,|$))|",
            "(^|,)(,|$)",
            "[ab]",
        ] {
            assert!(tags(pattern, Separator::Comma).is_err(), "{pattern:?}");
        }
        assert!(tags(&"(".repeat(9000), Separator::Comma).is_err());
        assert!(tags(&format!("{}a{}", "(".repeat(9000), ")".repeat(9000)), Separator::Comma).is_err());
    }

    #[test]
    fn lists_of_hosts() {
        let host = |name: &str, is_whole| HostName { name: name.to_owned(), is_whole };
        for (pattern, wanted) in [
            ("^(fos.lo|fos2.lo)$", vec![host("fos.lo", true), host("fos2.lo", true)]),
            ("^shop\\.example$", vec![host("shop.example", true)]),
            ("^a\\.b$|^c\\.d$", vec![host("a.b", true), host("c.d", true)]),
            ("shop.example", vec![host("shop.example", false)]),
        ] {
            assert_eq!(hosts(pattern), Ok(Matched::These(wanted)), "{pattern}");
        }
        assert_eq!(hosts(".*"), Ok(Matched::Everything));
        for pattern in ["", "^shop", "shop$", ".*\\.example$", "^(a|b", "^[a-z]+\\.example$"] {
            assert!(hosts(pattern).is_err(), "{pattern:?}");
        }
    }

    #[test]
    fn urls_and_prefixes() {
        let exactly = |text: &str| Target::Exactly(text.to_owned());
        let below = |text: &str| Target::Below(text.to_owned());
        for (pattern, wanted) in [
            ("^/a$", vec![exactly("/a")]),
            ("^/$", vec![exactly("/")]),
            ("^/a\\?x=1$", vec![exactly("/a?x=1")]),
            ("^/a\\.css$|^/b\\.css$", vec![exactly("/a.css"), exactly("/b.css")]),
            ("^(/a|/b)$", vec![exactly("/a"), exactly("/b")]),
            ("/articles/.*", vec![below("/articles")]),
            ("^/articles/.*$", vec![below("/articles")]),
            ("^/a/", vec![below("/a")]),
            ("^/a(/.*)?$", vec![below("/a")]),
            ("^/a(/|$)", vec![below("/a")]),
            ("^/a([/?]|$)", vec![below("/a")]),
        ] {
            assert_eq!(targets(pattern), Ok(Matched::These(wanted)), "{pattern}");
        }
        for pattern in [".*", "^/", "/.*", "^/.*$", "/", "^.*$"] {
            assert_eq!(targets(pattern), Ok(Matched::Everything), "{pattern}");
        }
        for pattern in [
            "",
            "/a",
            "^/a",
            "/a$",
            "^/a.*",
            "/a.*",
            ".*\\.png$",
            "^/a/.*\\.png$",
            "a/.*",
            "^/[ab]$",
            "/a(/.*",
        ] {
            assert!(targets(pattern).is_err(), "{pattern:?}: {:?}", targets(pattern));
        }
    }
}
