//! Queries: which parameters reach the origin, and the key.

use std::borrow::Cow;

use super::structured::percent;

/// Which parameters are kept. Names are compared after percent-decoding, with their case; `@tracking` stands for the
/// parameters that advertising adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryMode {
    /// Every parameter.
    All,
    /// No query at all.
    None,
    /// These only.
    Allow(Vec<String>),
    /// All but these.
    Deny(Vec<String>),
}

/// What a site does with queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryRule {
    /// Which parameters stay.
    pub mode: QueryMode,
    /// By name; parameters of one name keep their order, which may mean something.
    pub sort: bool,
}

impl Default for QueryRule {
    fn default() -> Self {
        QueryRule { mode: QueryMode::All, sort: false }
    }
}

/// The group `@tracking`, beside everything that begins with `utm_`.
const TRACKING: [&str; 21] = [
    "_ga",
    "_gl",
    "dclid",
    "fbclid",
    "gad_source",
    "gbraid",
    "gclid",
    "gclsrc",
    "igshid",
    "li_fat_id",
    "mc_cid",
    "mc_eid",
    "mkt_tok",
    "msclkid",
    "oly_anon_id",
    "oly_enc_id",
    "srsltid",
    "ttclid",
    "twclid",
    "wbraid",
    "yclid",
];

/// The query that the origin receives. `None`: nothing is left, and no "?" either.
///
/// With everything kept and no sorting it is borrowed unchanged, so that an empty query stays one. Where parameters are
/// filtered, empty ones (`a&&b`) go too. Raw bytes beyond ASCII are encoded, as they are in a path: browsers send them
/// encoded, and people type them as they are.
#[must_use]
pub fn filter_query<'a>(query: &'a str, rule: &QueryRule) -> Option<Cow<'a, str>> {
    if !query.is_ascii() {
        return filter_query(&encoded(query), rule).map(|filtered| Cow::Owned(filtered.into_owned()));
    }
    let filtered = match &rule.mode {
        QueryMode::All => Cow::Borrowed(query),
        QueryMode::None => return None,
        QueryMode::Allow(names) => keep(query, |name| contains(names, name))?,
        QueryMode::Deny(names) => keep(query, |name| !contains(names, name))?,
    };
    Some(if rule.sort { sorted(filtered) } else { filtered })
}

fn encoded(query: &str) -> String {
    let mut out = String::with_capacity(query.len() + 16);
    for byte in query.bytes() {
        if byte.is_ascii() {
            out.push(char::from(byte));
        } else {
            out.extend(percent(byte).map(char::from));
        }
    }
    out
}

fn keep(query: &str, wanted: impl Fn(&str) -> bool) -> Option<Cow<'_, str>> {
    let wanted = |parameter: &&str| !parameter.is_empty() && wanted(name(parameter));
    if query.is_empty() {
        return None;
    }
    if query.split('&').all(|parameter| wanted(&parameter)) {
        return Some(Cow::Borrowed(query));
    }
    let mut out = String::with_capacity(query.len());
    for parameter in query.split('&').filter(wanted) {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(parameter);
    }
    (!out.is_empty()).then_some(Cow::Owned(out))
}

fn sorted(query: Cow<'_, str>) -> Cow<'_, str> {
    if query.split('&').is_sorted_by_key(name) {
        return query;
    }
    let mut parameters: Vec<&str> = query.split('&').collect();
    parameters.sort_by_key(|parameter| name(parameter));
    Cow::Owned(parameters.join("&"))
}

fn name(parameter: &str) -> &str {
    parameter.split('=').next().unwrap_or_default()
}

fn contains(names: &[String], name: &str) -> bool {
    let name = decoded(name);
    names.iter().any(|listed| if listed == "@tracking" { is_tracking(&name) } else { *listed == *name })
}

fn is_tracking(name: &str) -> bool {
    name.starts_with("utm_") || TRACKING.contains(&name)
}

/// A name with its triplets decoded, for comparison only; what does not decode to text is left as it is.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [byte, after @ ..] = rest {
        if let Some(decoded) = super::path::triplet(rest) {
            out.push(decoded);
            rest = &rest[3..];
        } else {
            out.push(*byte);
            rest = after;
        }
    }
    String::from_utf8(out).map_or(Cow::Borrowed(name), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(query: &str, mode: QueryMode, sort: bool) -> Option<String> {
        filter_query(query, &QueryRule { mode, sort }).map(Cow::into_owned)
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn all_is_borrowed_unchanged() {
        for query in ["", "b=1&a=2", "&&", "a=%zz"] {
            assert!(
                matches!(filter_query(query, &QueryRule::default()), Some(Cow::Borrowed(same)) if same == query)
            );
        }
        assert_eq!(filtered("a=1", QueryMode::None, false), None);
    }

    #[test]
    fn what_is_not_ascii_is_encoded_and_the_rest_is_left_alone() {
        assert_eq!(filtered("q=\u{fc}&r=%c3%bc a", QueryMode::All, false).unwrap(), "q=%C3%BC&r=%c3%bc a");
        let allow = QueryMode::Allow(names(&["\u{fc}"]));
        assert_eq!(filtered("x=1&\u{fc}=\u{20ac}", allow, true).unwrap(), "%C3%BC=%E2%82%AC");
    }

    #[test]
    fn tracking_is_denied_as_a_group() {
        let deny = || QueryMode::Deny(names(&["@tracking"]));
        assert_eq!(filtered("v=1&utm_source=x&gclid=y&b", deny(), false).as_deref(), Some("v=1&b"));
        assert_eq!(filtered("utm%5Fsource=x&v=1", deny(), false).as_deref(), Some("v=1"));
        assert_eq!(filtered("fbclid=1", deny(), false), None);
        assert_eq!(filtered("", deny(), false), None);
        assert_eq!(filtered("UTM_x=1", deny(), false).as_deref(), Some("UTM_x=1"));
        assert!(matches!(
            filter_query("v=1", &QueryRule { mode: deny(), sort: false }),
            Some(Cow::Borrowed("v=1"))
        ));
    }

    #[test]
    fn only_what_is_allowed_stays() {
        let allow = QueryMode::Allow(names(&["v", "w"]));
        assert_eq!(filtered("w=1&x=2&&v=3&v", allow.clone(), false).as_deref(), Some("w=1&v=3&v"));
        assert_eq!(filtered("x=2", allow, false), None);
    }

    #[test]
    fn sorting_keeps_the_order_of_equal_names() {
        assert_eq!(filtered("b=2&a=2&b=1&a=1", QueryMode::All, true).as_deref(), Some("a=2&a=1&b=2&b=1"));
        assert_eq!(filtered("", QueryMode::All, true).as_deref(), Some(""));
        assert!(matches!(
            filter_query("a&b", &QueryRule { mode: QueryMode::All, sort: true }),
            Some(Cow::Borrowed("a&b"))
        ));
    }
}
