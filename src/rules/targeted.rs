//! Targeted cache control (RFC 9213): which field decides how this cache handles a response.
//!
//! The first valid, non-empty field of `Larder-CDN-Cache-Control`, `CDN-Cache-Control`, `Surrogate-Control` decides alone;
//! Cache-Control and Expires are then not looked at. One exception is deliberate: Surrogate-Control is no standard and its
//! users expect `Cache-Control: private` to hold beside it, so there it does.

use http::HeaderMap;
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::{
    directives::{Delta, Directives},
    fields,
};

/// The field that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// For this product alone.
    LarderCdnCacheControl,
    /// For every CDN (RFC 9213 §3.1).
    CdnCacheControl,
    /// The older custom.
    SurrogateControl,
    /// No targeted field is usable: Cache-Control, Expires and the heuristic count.
    CacheControl,
}

impl Field {
    /// The field's name in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Field::LarderCdnCacheControl => "larder-cdn-cache-control",
            Field::CdnCacheControl => "cdn-cache-control",
            Field::SurrogateControl => "surrogate-control",
            Field::CacheControl => "cache-control",
        }
    }
}

/// The directives that count, and where they stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deciding {
    /// Of the deciding field only.
    pub directives: Directives,
    /// Where they stood.
    pub field: Field,
}

/// Picks the deciding field of a response (RFC 9213 §2.2). `surrogate` is what this cache calls itself in
/// Surrogate-Capability, and what directives of Surrogate-Control name when they mean it.
#[must_use]
pub fn decide(headers: &HeaderMap, surrogate: &str) -> Deciding {
    for field in [Field::LarderCdnCacheControl, Field::CdnCacheControl] {
        if let Some(directives) = dictionary(headers, field.as_str()) {
            return Deciding { directives, field };
        }
    }
    let cache_control = Directives::parse(headers);
    if let Some(mut directives) = surrogate_control(headers, surrogate) {
        directives.private |= cache_control.private;
        return Deciding { directives, field: Field::SurrogateControl };
    }
    Deciding { directives: cache_control, field: Field::CacheControl }
}

/// Whether any of the fields says that the content is to stay as it is (RFC 9111 §5.2.2.6). Which of them decides about
/// storing does not matter here: that one says nothing of it lifts no prohibition of another.
#[must_use]
pub fn forbids_transforming(headers: &HeaderMap) -> bool {
    let by_targeted =
        |field: Field| dictionary(headers, field.as_str()).is_some_and(|directives| directives.no_transform);
    by_targeted(Field::LarderCdnCacheControl)
        || by_targeted(Field::CdnCacheControl)
        || Directives::parse(headers).no_transform
}

/// RFC 9213 §2.1. A parse error makes the whole field absent; a wrong type spoils only its own directive.
fn dictionary(headers: &HeaderMap, name: &str) -> Option<Directives> {
    let value = fields::combined(headers, name)?;
    let members: Dictionary = Parser::new(&*value).parse().ok()?;
    if members.is_empty() {
        return None;
    }
    let mut directives = Directives::default();
    for (key, entry) in &members {
        apply(&mut directives, key.as_str(), item(entry));
    }
    Some(directives)
}

/// An inner list is no value of any directive.
fn item(entry: &ListEntry) -> Option<&BareItem> {
    match entry {
        ListEntry::Item(item) => Some(&item.bare_item),
        ListEntry::InnerList(_) => None,
    }
}

fn apply(to: &mut Directives, key: &str, value: Option<&BareItem>) {
    let granted = matches!(value, Some(BareItem::Boolean(true)));
    // A restriction of the wrong type still restricts; only an explicit ?0 takes it back.
    let restricts = !matches!(value, Some(BareItem::Boolean(false)));
    match key {
        "no-store" => to.no_store = restricts,
        "private" => to.private = restricts,
        "must-revalidate" => to.must_revalidate = restricts,
        "proxy-revalidate" => to.proxy_revalidate = restricts,
        "no-transform" => to.no_transform = restricts,
        "no-cache" => match value {
            Some(BareItem::String(names)) => to.no_cache_named(names.as_str().as_bytes()),
            _ => to.no_cache = restricts,
        },
        "public" => to.public = granted,
        "must-understand" => to.must_understand = granted,
        "immutable" => to.immutable = granted,
        "max-age" => to.max_age = Some(delta(value)),
        "s-maxage" => to.s_maxage = Some(delta(value)),
        "stale-while-revalidate" => to.stale_while_revalidate = Some(delta(value)),
        "stale-if-error" => to.stale_if_error = Some(delta(value)),
        _ => {}
    }
}

fn delta(value: Option<&BareItem>) -> Delta {
    match value {
        Some(BareItem::Integer(secs)) => {
            u64::try_from(i64::from(*secs)).map_or(Delta::Invalid, Delta::from_secs)
        }
        _ => Delta::Invalid,
    }
}

/// Surrogate-Control (W3C note "Edge Architecture", 2001): `max-age=N[+M]`, `no-store`, `content="..."`, each with an
/// optional `;target`. `None` when nothing in it concerns storage, so that `content="ESI/1.0"` alone decides nothing.
fn surrogate_control(headers: &HeaderMap, surrogate: &str) -> Option<Directives> {
    let value = fields::combined(headers, "surrogate-control")?;
    let mut directives = Directives::default();
    let mut of_all = None;
    let mut of_this = None;
    for element in fields::elements(&value) {
        let mut parts = element.splitn(2, |&b| b == b';');
        let directive = fields::trim(parts.next().unwrap_or_default());
        let target = parts.next().map(fields::trim);
        let (name, argument) = match directive.iter().position(|&b| b == b'=') {
            Some(at) => (&directive[..at], &directive[at + 1..]),
            None => (directive, &[][..]),
        };
        let named = fields::trim(name);
        if named.eq_ignore_ascii_case(b"no-store") || named.eq_ignore_ascii_case(b"no-store-remote") {
            // A prohibition is heeded whoever it is meant for.
            directives.no_store = true;
        } else if named.eq_ignore_ascii_case(b"must-revalidate")
            || named.eq_ignore_ascii_case(b"proxy-revalidate")
        {
            // No words of this field, but clear ones. They forbid what is stale, and permit nothing.
            directives.proxy_revalidate = true;
        } else if named.eq_ignore_ascii_case(b"max-age") {
            // As in Cache-Control, whitespace beside "=" is malformed.
            let lifetime = if named == name { surrogate_max_age(argument) } else { (Delta::Invalid, None) };
            match target {
                None => of_all.get_or_insert(lifetime),
                Some(target) if target.eq_ignore_ascii_case(surrogate.as_bytes()) => {
                    of_this.get_or_insert(lifetime)
                }
                // A lifetime meant for another surrogate is not ours.
                Some(_) => continue,
            };
        }
    }
    if let Some((lifetime, extension)) = of_this.or(of_all) {
        directives.max_age = Some(lifetime);
        directives.stale_while_revalidate = extension;
    }
    (directives.no_store || directives.max_age.is_some()).then_some(directives)
}

/// `N+M`: N seconds fresh, then M seconds during which a stale answer will do while it is revalidated.
fn surrogate_max_age(argument: &[u8]) -> (Delta, Option<Delta>) {
    let number = |digits: &[u8]| fields::digits(digits).map_or(Delta::Invalid, Delta::from_secs);
    match argument.iter().position(|&b| b == b'+') {
        Some(at) => (number(&argument[..at]), Some(number(&argument[at + 1..]))),
        None => (number(argument), None),
    }
}

#[cfg(test)]
mod tests;
