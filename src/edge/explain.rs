//! How a request would be treated, and why: for people who wonder why something is a miss.
//!
//! The request goes the way of a client's, up to the point where it would be answered. Where nothing that is stored would
//! be used, the origin is asked once, as a fetch for the cache would, and its answer is judged and thrown away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, header};
use serde::Serialize;

use super::admit::Admitted;
use super::collapse::Lead;
use super::fill::{Answer, Fill};
use super::inspect::{Found, Variant};
use super::{BadUrl, Edge};
use crate::net::{ConnInfo, RequestBody};
use crate::object::Object;
use crate::rules::freshness::{Freshness, State};
use crate::rules::key::Scheme;
use crate::rules::storable::NotStored;
use crate::rules::time::Millis;
use crate::rules::vary::{self, Vary};
use crate::store::{Entry, NoRoom};
use crate::telemetry::rfc3339;

/// What the origin may take until its head has come.
const ORIGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How a request would be treated.
#[derive(Debug, Default, Serialize)]
pub struct Explanation {
    /// As it was asked for.
    pub url: String,
    /// The site's name.
    pub site: String,
    /// Which of the site's rules it falls under; `default`: none.
    pub rule: String,
    /// The cache key; `None`: the request is refused before it has one.
    pub key: Option<String>,
    /// `hit`, `stale`, `revalidate`, `miss`, `pass`, or `refused`.
    pub result: &'static str,
    /// The same in words.
    pub detail: String,
    /// The field or setting that decides how long it is fresh.
    pub freshness: Option<Lifetime>,
    /// Which fields of a request select the response.
    pub vary: Vec<String>,
    /// Variants that are stored under the key.
    pub variants: usize,
    /// The stored response that would be used.
    pub stored: Option<Variant>,
    /// Whether the answer is stored, or would be; `None`: nobody knows, the origin was not asked or did not answer.
    pub is_stored: Option<bool>,
    /// Why not, as in `Cache-Status`.
    pub reason: Option<&'static str>,
    /// The status of the origin's answer, where it was asked for this.
    pub origin_status: Option<u16>,
    /// What the origin, or the configuration, could change.
    pub advice: Vec<String>,
}

/// How long a response is fresh, and what says so.
#[derive(Debug, Serialize)]
pub struct Lifetime {
    /// As in `GET /v1/objects`: `s-maxage`, `cdn-cache-control`, `heuristic` and the like.
    pub source: &'static str,
    /// The line of the response that it stands in; `None`: a setting of the site.
    pub field: Option<String>,
    /// Seconds from the response's generation on.
    pub lifetime: i64,
    /// Seconds that are left.
    pub ttl: i64,
    /// Seconds of stale-while-revalidate and of stale-if-error after that.
    pub stale: [i64; 2],
}

impl Edge {
    /// Explains what a GET with these fields from that address would come to.
    pub async fn explain(
        self: &Arc<Self>,
        url: &str,
        headers: &HeaderMap,
        peer: SocketAddr,
    ) -> Result<Explanation, BadUrl> {
        let Found { site, scheme, host, .. } = self.find_url(url)?;
        let mut told =
            Explanation { url: url.to_owned(), site: site.name.to_string(), ..Explanation::default() };
        let malformed = |why: String| BadUrl::Malformed(format!("{url}: {why}"));
        let uri: http::Uri = url.parse().map_err(|e: http::uri::InvalidUri| malformed(e.to_string()))?;
        let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut request = Request::new(());
        *request.uri_mut() = target.parse().map_err(|e: http::uri::InvalidUri| malformed(e.to_string()))?;
        *request.headers_mut() = headers.clone();
        let host = HeaderValue::try_from(host).map_err(|error| malformed(error.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        let parts = request.into_parts().0;
        let conn = ConnInfo::new(peer, peer, if scheme == Scheme::Https { "TLSv1_3" } else { "" });
        let admitted = match self.admit(&parts, &RequestBody::empty(), &conn) {
            Ok(admitted) => Arc::new(admitted),
            Err(refused) => {
                let refusal = &refused.refusal;
                let status = refusal.status.as_u16();
                told.result = "refused";
                told.detail = format!("{status}: {}", refusal.detail);
                told.reason = Some(refusal.reason.as_str());
                return Ok(told);
            }
        };
        told.rule.clone_from(&admitted.treatment.name);
        told.key = Some(admitted.key.canonical().to_owned());
        if admitted.treatment.pass {
            told.result = "pass";
            told.detail = format!("{} has pass = true: neither from nor to the cache", told.rule);
            told.is_stored = Some(false);
            told.reason = Some("pass");
            told.advice.push("take pass = true out of the rule, or narrow its path".into());
            return Ok(told);
        }
        if !self.explain_stored(&admitted, &parts.headers, &mut told).await {
            self.explain_fetch(&admitted, &parts.headers, &mut told).await;
        }
        Ok(told)
    }

    /// What is stored; false: the origin would have to be asked for all of it.
    async fn explain_stored(&self, admitted: &Admitted, request: &HeaderMap, told: &mut Explanation) -> bool {
        let entry = self.store.load(&admitted.key).await;
        let Some(object) = self.explain_entry(entry.as_deref(), request, told) else {
            return self.explain_slices(admitted, request, told).await;
        };
        let now = self.clock.now();
        let why = self.why_stale(object, now);
        (told.result, told.detail) = match object.state(now) {
            State::Fresh => ("hit", "it is stored and fresh".into()),
            State::StaleWhileRevalidate => (
                "stale",
                format!(
                    "it is stored and stale{why}: served while one fetch in the background revalidates it"
                ),
            ),
            State::MustRevalidate => {
                ("revalidate", format!("it is stored and stale{why}: the origin is asked before it is used"))
            }
        };
        told.vary = names(object);
        told.is_stored = Some(true);
        told.freshness = Some(Lifetime {
            // What the origin gave, however much a purge took of it.
            lifetime: lifetime_secs(&object.head.freshness),
            ..lifetime(&object.freshness(), &object.head.headers, now)
        });
        told.stored = Some(super::inspect::describe(object, now));
        if told.result == "revalidate" {
            if !object.head.has_validator() {
                told.advice
                    .push("send an ETag or Last-Modified, so that it can be renewed without its body".into());
            }
            told.advice.push(
                if why.is_empty() {
                    "a longer s-maxage, or stale-while-revalidate, lets it be served without waiting for the origin"
                } else {
                    "stale-while-revalidate lets it be served without waiting for the origin"
                }
                .into(),
            );
        }
        true
    }

    /// What a request selects of what is stored; `None`: nothing, which is told.
    fn explain_entry<'e>(
        &self,
        entry: Option<&'e Entry>,
        request: &HeaderMap,
        told: &mut Explanation,
    ) -> Option<&'e Arc<Object>> {
        told.result = "miss";
        let Some(entry) = entry else {
            told.detail = "nothing is stored under this key".into();
            return None;
        };
        let kept: Vec<_> = entry.variants().iter().filter(|object| self.survives(object)).collect();
        told.variants = kept.len();
        match (entry.select(request), kept.first()) {
            (Some(object), _) if self.survives(object) => return Some(object),
            (Some(_), _) | (None, None) => told.detail = "what was stored has been purged".into(),
            (None, Some(other)) => {
                told.vary = names(other);
                told.detail = format!("it is stored for other values of {}", told.vary.join(", "));
                told.advice.push(
                    "Vary names only what really changes the answer; each value is stored apart".into(),
                );
            }
        }
        None
    }

    /// What other than its lifetime made a stored response stale, as part of a sentence; empty: nothing did.
    fn why_stale(&self, object: &Object, now: Millis) -> String {
        if object.head.freshness.state(now) != State::Fresh {
            return String::new();
        }
        if object.is_invalidated() {
            return " since a request such as POST or DELETE, or another answer, invalidated it".into();
        }
        if object.stale_since().is_none() {
            return String::new();
        }
        match self.soft_purge_of(object) {
            Some(purge) => format!(" by the soft purge {} of {}", purge.id, rfc3339(purge.at)),
            None => " by a soft purge".into(),
        }
    }

    /// Asks the origin as a fetch would, and judges its answer.
    async fn explain_fetch(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        request: &HeaderMap,
        told: &mut Explanation,
    ) {
        let why = |why: String, told: &mut Explanation| told.detail = format!("{}; {why}", told.detail);
        let _turn = match self.turn_of(&admitted.treatment) {
            Ok(turn) => turn,
            Err(error) => return why(format!("the origin was not asked: {error}"), told),
        };
        let mut fill = Fill::new(self, admitted, request, Lead::alone(self.purges.applied()));
        let answer = match tokio::time::timeout(ORIGIN_TIMEOUT, fill.ask(None)).await {
            Ok(Ok(answer)) => answer,
            // As errors on data listeners: what it is, not where.
            Ok(Err(error)) => return why(format!("the origin failed: {}", error.proxy_status()), told),
            Err(_) => return why("the origin did not answer in time".into(), told),
        };
        told.origin_status = Some(answer.response.status().as_u16());
        let headers = answer.response.headers();
        if let Vary::Fields(rule) = vary::parse(headers) {
            told.vary = rule.names().iter().map(ToString::to_string).collect();
        }
        match self.judge(&mut fill, &answer) {
            Ok(freshness) => {
                told.is_stored = Some(true);
                let lifetime = lifetime(&freshness, headers, answer.response_time);
                if lifetime.ttl <= 0 {
                    told.advice.push("it is stored, but stale at once: give it a max-age or s-maxage".into());
                }
                if lifetime.source == "heuristic" {
                    told.advice
                        .push("say how long it is fresh (s-maxage), instead of leaving it to a guess".into());
                }
                told.freshness = Some(lifetime);
            }
            Err((reason, advice)) => {
                told.is_stored = Some(false);
                told.reason = Some(reason);
                told.advice.push(advice.into());
            }
        }
    }

    fn judge(&self, fill: &mut Fill, answer: &Answer) -> Result<Freshness, (&'static str, &'static str)> {
        let of = |why: NotStored| (why.as_str(), advice(why));
        let freshness = fill.decide(answer, answer.response.headers()).map_err(of)?;
        fill.selecting(answer.response.headers(), None).ok_or_else(|| of(NotStored::VaryStar))?;
        let size = http_body::Body::size_hint(answer.response.body()).exact();
        match self.store.deposit(answer.key.hash(), size) {
            Err(NoRoom::TooLarge) => Err((
                "too-large",
                "it is larger than store.max_object, or there is no room; range_slices helps",
            )),
            Err(NoRoom::NotAdmitted) => {
                Err(("not-admitted", "store.admission, or a writer that is behind, keeps it out for now"))
            }
            Ok(_) => Ok(freshness),
        }
    }
}

pub(super) fn names(object: &Object) -> Vec<String> {
    object.head.vary.names().iter().map(ToString::to_string).collect()
}

fn lifetime_secs(freshness: &Freshness) -> i64 {
    let fresh_ms = freshness.fresh_until.saturating_sub(freshness.response_time);
    fresh_ms.saturating_add(freshness.initial_age_ms).max(0) / 1000
}

pub(super) fn lifetime(freshness: &Freshness, headers: &HeaderMap, now: Millis) -> Lifetime {
    let name = match freshness.source {
        "s-maxage" | "max-age" => Some("cache-control"),
        "heuristic" => Some("last-modified"),
        source @ ("expires" | "larder-cdn-cache-control" | "cdn-cache-control" | "surrogate-control") => {
            Some(source)
        }
        _ => None,
    };
    let lines = |name: &str| {
        let lines: Vec<_> =
            headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
        (!lines.is_empty()).then(|| format!("{name}: {}", lines.join(", ")))
    };
    let window = |until: Millis| until.saturating_sub(freshness.fresh_until).max(0) / 1000;
    Lifetime {
        source: freshness.source,
        field: name.and_then(lines),
        lifetime: lifetime_secs(freshness),
        ttl: freshness.ttl_secs(now),
        stale: [window(freshness.swr_until), window(freshness.sie_until)],
    }
}

/// What would have to change for it to be stored.
fn advice(why: NotStored) -> &'static str {
    match why {
        NotStored::Method => "only GET is stored, and POST where cache_post is on",
        NotStored::Status => {
            "this status is of no use to other requests; give it explicit freshness if it is"
        }
        NotStored::Partial => "a 206 has to say by Content-Range which part it is",
        NotStored::NoStore => {
            "take no-store out of Cache-Control, or speak to caches alone by CDN-Cache-Control"
        }
        NotStored::Private => "take private out of Cache-Control: it forbids shared caches",
        NotStored::Authorization => {
            "the request has Authorization: the answer needs public, s-maxage or must-revalidate"
        }
        NotStored::SetCookie => {
            "don't set a cookie on what is for everybody, or set site.cache.set_cookie = \"strip\""
        }
        NotStored::VaryStar => "Vary: * says that no other request may have it; name the fields instead",
        NotStored::Vary => {
            "it varies on a field in site.cache.vary_pass, such as Cookie or User-Agent; leave that out of Vary"
        }
        NotStored::NoCache => {
            "no-cache without an ETag or Last-Modified can never be used again; send one of them"
        }
        NotStored::NoFreshness => {
            "say how long it is fresh (Cache-Control: s-maxage=…), or send an ETag or Last-Modified; site.cache.default_ttl is for origins that can't"
        }
        NotStored::ContentLocation => "the answer to a POST has to name its own URL in Content-Location",
        NotStored::RequestNoStore => "the request says no-store, and honor_request_cache_control is on",
        NotStored::Policy => "the fields contradict each other; look at Cache-Control, Expires and Pragma",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_decides_is_named() {
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", HeaderValue::from_static("max-age=60, stale-while-revalidate=5"));
        headers.insert("expires", HeaderValue::from_static("0"));
        let at = crate::rules::time::Millis;
        let mut freshness = Freshness {
            response_time: at(10_000),
            initial_age_ms: 20_000,
            fresh_until: at(50_000),
            swr_until: at(55_000),
            sie_until: at(50_000),
            no_cache: false,
            never_stale: false,
            source: "max-age",
            strip_fields: Box::default(),
        };
        let told = lifetime(&freshness, &headers, at(30_000));
        assert_eq!((told.lifetime, told.ttl, told.stale), (60, 20, [5, 0]));
        assert_eq!(told.field.as_deref(), Some("cache-control: max-age=60, stale-while-revalidate=5"));
        freshness.source = "default-ttl";
        assert_eq!(lifetime(&freshness, &headers, at(30_000)).field, None);
    }
}
