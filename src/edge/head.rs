//! HEAD of what is not fresh.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Response, header};

use super::admit::Admitted;
use super::body::Body;
use super::miss::Fetched;
use super::respond::content_length;
use super::{Edge, Outcome};
use crate::object::{Head, Object};
use crate::rules::cache_status::{CacheStatus, Fwd};
use crate::rules::policy::{self, Exchange};
use crate::rules::update::{self, HeadUpdate};
use crate::rules::vary::{self, Vary};
use crate::rules::{date, hop};

impl Edge {
    /// From a fetch of the whole that is under way; else forwarded as HEAD.
    pub(super) async fn head_of(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        base: Option<Arc<Object>>,
    ) -> (Outcome, Response<Body>) {
        if let Some(flight) = self.collapse.flight(admitted.key.hash(), &parts.headers) {
            let fwd = if base.is_some() { Fwd::Stale } else { Fwd::UriMiss };
            let published = flight.join().published().await;
            let asked = Fetched { admitted, parts, fwd, is_leader: false };
            if let Some(answered) = self.land(&asked, &flight, published, None).await {
                return answered;
            }
        }
        match self.count_miss(admitted) {
            Ok(()) => {
                let (outcome, mut response) = self.head(admitted, parts, base).await;
                say_what_selects(admitted, &mut response);
                (outcome, response)
            }
            Err(refusal) => self.refused(parts, &refusal, &CacheStatus::default()),
        }
    }

    /// RFC 9111 §4.3.5.
    pub(super) fn learn_from_head(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        base: &Arc<Object>,
        response: &Response<crate::origin::OriginBody>,
        request_time: crate::rules::time::Millis,
    ) {
        let stored = &base.head.headers;
        match update::head_update(stored, Some(base.body.len()), response.status(), response.headers()) {
            HeadUpdate::Ignore => {}
            HeadUpdate::Invalidate => base.invalidate(),
            HeadUpdate::Merge => {
                let treatment = &admitted.treatment;
                let mut news = response.headers().clone();
                hop::strip_response(&mut news);
                let response_time = self.clock.now();
                if !news.contains_key(header::DATE) {
                    news.insert(header::DATE, date::format(response_time.as_secs_floor()));
                }
                let mut headers = base.head.fields();
                update::merge_304(&mut headers, &news, treatment.policy.set_cookie);
                let exchange = Exchange {
                    method: &Method::GET,
                    request_headers: &parts.headers,
                    status: base.head.status,
                    response_headers: &headers,
                    request_time,
                    response_time,
                };
                let Ok(freshness) = policy::decide(&exchange, &treatment.policy) else { return };
                headers.remove(header::AGE);
                let selecting = (base.head.vary.clone(), base.head.variant.clone());
                let mut head =
                    Head::new(base.head.key.clone(), base.head.status, headers, selecting, freshness);
                (head.version, head.as_of) = (base.head.version, base.as_of());
                head.generation = base.head.generation;
                if let Some(stored) = base.head.negotiated {
                    head.negotiate(stored.coding);
                }
                head.tags = base.head.tags.clone();
                let object = base.renewed(Arc::new(head), self.store.gauge());
                self.store.refresh(Arc::new(object), treatment.max_variants);
            }
        }
    }
}

/// As a GET would: what is encoded once it is stored varies on that already.
fn say_what_selects(admitted: &Admitted, response: &mut Response<Body>) {
    let length = content_length(response.headers());
    let (status, headers) = (response.status(), response.headers_mut());
    let is_negotiated = admitted.treatment.compress.coding_of(status, headers, length).is_some();
    let is_silent = matches!(
        vary::parse(headers),
        Vary::Fields(rule) if !rule.names().contains(&header::ACCEPT_ENCODING)
    );
    if is_negotiated && is_silent {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}
