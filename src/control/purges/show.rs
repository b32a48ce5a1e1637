//! A purge as JSON.

use serde_json::{Value, json};

use crate::edge::Count;
use crate::purge::{Purge, Selector};
use crate::telemetry::rfc3339;

/// What whoever purges gets to know.
pub(super) fn summary(purge: &Purge) -> Value {
    json!({
        "id": purge.id,
        "seq": purge.seq,
        "state": "applied",
        "soft": purge.request.soft,
        "entries": purge.request.selectors.len(),
        "applied_in_us": purge.applied_in_us,
    })
}

/// What a purge would hit.
pub(super) fn dry_run(count: &Count) -> Value {
    json!({
        "matches": { "objects": count.objects, "bytes": count.bytes },
        "sample": count.sample,
        "complete": count.is_complete,
    })
}

/// The nodes that applied it: this one.
pub(super) fn nodes(purge: &Purge, name: &str) -> Value {
    json!([{ "node": name, "state": "applied", "applied_at": rfc3339(purge.at) }])
}

/// Who, when, what, and why; not more than `limit` of its entries.
pub(super) fn purge(purge: &Purge, limit: usize) -> Value {
    let mut shown = summary(purge);
    let request = &purge.request;
    let what = |selector: &Selector| json!({ "kind": selector.kind(request.site.is_some()), "value": text(selector) });
    let selectors: Vec<Value> = request.selectors.iter().take(limit).map(what).collect();
    let more = json!({
        "at": rfc3339(purge.at),
        "site": request.site,
        "who": request.who,
        "from": request.from,
        "source": request.source.as_str(),
        "note": request.note,
        "selectors": selectors,
    });
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.extend(more);
    }
    shown
}

/// A selector as a line.
pub(in crate::control) fn selector(selector: &Selector, is_of_site: bool) -> String {
    format!("{} {}", selector.kind(is_of_site), text(selector)).trim_end().to_owned()
}

fn text(selector: &Selector) -> String {
    let every = |host: &str| if host.is_empty() { "*".to_owned() } else { host.to_owned() };
    match selector {
        Selector::Url { host, path, query: Some(query) } => format!("{}{path}?{query}", every(host)),
        Selector::Url { host, path, query: None } | Selector::Prefix { host, path } => every(host) + path,
        Selector::Tag(text) | Selector::Host(text) => text.to_string(),
        Selector::All => String::new(),
    }
}
