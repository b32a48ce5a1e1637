//! `PURGE /path` on a data listener, as Fastly, Varnish and nginx have it.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::super::Control;
use super::super::problem::Problem;
use crate::edge::Addressed;
use crate::purge::{Request, Selector, Source};
use crate::rules::key::Scheme;

const FASTLY_KEY: HeaderName = HeaderName::from_static("fastly-key");
const FASTLY_SOFT_PURGE: HeaderName = HeaderName::from_static("fastly-soft-purge");
/// By them other caches' clients say that something else than the URL is meant. To purge the URL and say "Purged" would
/// be a lie.
const OTHER_MEANINGS: [&str; 8] = [
    "x-magento-tags-pattern",
    "x-cache-tags",
    "cache-tags",
    "surrogate-key",
    "x-host",
    "x-url",
    "xkey-purge",
    "xkey-softpurge",
];

impl Control {
    /// The name of who asks, if they may purge on a data listener: a token's, or `cidr` for an address that the
    /// site lets purge.
    pub fn may_purge(&self, headers: &HeaderMap, to: &Addressed) -> Option<String> {
        let now = self.parts.clock.now();
        let token = headers.get(&FASTLY_KEY).and_then(|key| self.tokens.find_token(key.as_bytes(), now));
        let token = token.or_else(|| self.tokens.find(headers, now));
        if let Some(token) = token.filter(|token| token.allows("purge") && token.covers(&to.site.name)) {
            return Some(token.name.clone());
        }
        let is_allowed = |client| to.site.purge.allow.iter().any(|net| net.contains(&client));
        to.client.is_some_and(is_allowed).then(|| "cidr".to_owned())
    }

    /// Purges what a request with the method PURGE names.
    pub async fn purge_by_method(
        self: Arc<Self>,
        parts: Parts,
        to: Addressed,
        who: String,
    ) -> Response<Bytes> {
        let headers = &parts.headers;
        let is_fastly = headers.keys().any(|name| name.as_str().starts_with("fastly-"));
        let is_json = is_fastly || accepts_json(headers);
        let purged = async {
            let (selector, source) = self.selected(&parts, &to)?;
            let request = Request {
                site: Some((&*to.site.name).into()),
                selectors: vec![selector],
                soft: headers.get(&FASTLY_SOFT_PURGE).is_some_and(|soft| soft == "1"),
                note: None,
                who: who.into(),
                from: to.client,
                source: if is_fastly { Source::Fastly } else { source },
            };
            self.purge(request).await
        };
        match purged.await {
            Ok(purge) if is_json => {
                let body = json!({ "status": "ok", "id": purge.id }).to_string();
                answer("application/json", body)
            }
            Ok(_) => answer("text/plain; charset=utf-8", "Purged".to_owned()),
            Err(problem) if is_json => problem.json().map(Bytes::from),
            Err(problem) => problem.text().map(Bytes::from),
        }
    }

    fn selected(&self, parts: &Parts, to: &Addressed) -> Result<(Selector, Source), Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad-purge", detail);
        if let Some(name) = OTHER_MEANINGS.iter().find(|name| parts.headers.contains_key(**name)) {
            return Err(bad(format!("PURGE with {name} is not supported; nothing was purged")));
        }
        let (path, query) = (parts.uri.path(), parts.uri.query());
        let (before, source) = match (path.strip_suffix(".*"), path.strip_suffix('*')) {
            (Some(before), _) => (before, Source::Varnish),
            (None, Some(before)) => (before, Source::Nginx),
            (None, None) => {
                if parts.headers.get("x-purge-method").is_some_and(|method| method == "regex") {
                    return Err(bad(format!(
                        "{path}: the only regular expressions are paths that end in /.*"
                    )));
                }
                let selector = self.parts.edge.current().select_target(&to.host, path, query);
                return Ok((selector.map_err(|error| bad(error.to_string()))?, Source::Varnish));
            }
        };
        // `/asset*` would mean `/assets` too, and a prefix is whole segments.
        if !before.ends_with('/') || query.is_some() {
            let detail = "a prefix is whole segments, without a query: what is before the * has to end in /";
            return Err(bad(format!("{path}: {detail}; nothing was purged")));
        }
        let scheme = if to.host.ends_with(":80") { Scheme::Https } else { Scheme::Http };
        let selector = Selector::prefix(scheme, &to.host, before).map_err(|error| bad(error.to_string()))?;
        Ok((selector, source))
    }
}

fn answer(content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let mut ranges = lines.flat_map(|line| line.split(',')).filter_map(|range| range.split(';').next());
    ranges.any(|range| range.trim().eq_ignore_ascii_case("application/json"))
}
