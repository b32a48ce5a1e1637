//! HEAD of what is not fresh.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, header};

use super::accept::ensure_date;
use super::admit::Admitted;
use super::body::Body;
use super::miss::Fetched;
use super::negotiate::{self, Chosen};
use super::purged::take_tags;
use super::respond::{self, content_length};
use super::{Edge, Outcome};
use crate::object::{Head, Object};
use crate::rules::cache_status::{CacheStatus, Fwd};
use crate::rules::policy::{self, Exchange};
use crate::rules::update::{self, HeadUpdate};
use crate::rules::vary::{self, Vary};
use crate::rules::{conditional, hop};

impl Edge {
    /// From a fetch of the whole that is under way; else forwarded as HEAD.
    pub(super) async fn head_of(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        base: Option<Arc<Object>>,
    ) -> (Outcome, Response<Body>) {
        let fwd = if base.is_some() { Fwd::Stale } else { Fwd::UriMiss };
        if let Some(flight) = self.collapse.flight(admitted.key.hash(), &parts.headers) {
            let published = flight.join().published().await;
            let asked = Fetched { admitted, parts, fwd, is_leader: false };
            if let Some(answered) = self.land(&asked, &flight, published, None).await {
                return answered;
            }
        }
        match self.count_miss(admitted) {
            Ok(()) => {
                let (outcome, response) = self.head(admitted, parts, base).await;
                let is_passed = outcome == Outcome::Miss;
                (outcome, if is_passed { self.like_a_get(admitted, parts, response, fwd) } else { response })
            }
            Err(refusal) => self.refused(parts, &refusal, &CacheStatus::default()),
        }
    }

    /// An origin's answer as a GET would be answered now: encoded or decoded on its way, or refused.
    fn like_a_get(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        mut response: Response<Body>,
        fwd: Fwd,
    ) -> Response<Body> {
        let (status, headers, now) = (response.status(), response.headers(), self.clock.now());
        let treatment = &admitted.treatment;
        let offer = treatment.compress.offer(status, headers, content_length(headers));
        let exchange = Exchange {
            method: &Method::GET,
            request_headers: &parts.headers,
            status,
            response_headers: headers,
            request_time: now,
            response_time: now,
        };
        // What is not stored goes out as it came.
        let Some(offer) = offer.filter(|_| policy::decide(&exchange, &treatment.policy).is_ok()) else {
            return response;
        };
        let chosen = negotiate::choose_of(offer, (status, response.headers()), &parts.headers, admitted);
        if matches!(chosen, Chosen::Refused) {
            let fwd_status = Some(status.as_u16());
            let status = CacheStatus { fwd: Some(fwd), fwd_status, ..CacheStatus::default() };
            return respond::not_acceptable(&self.serving(admitted, parts, status, true));
        }
        chosen.apply(response.headers_mut());
        say_what_selects(response.headers_mut());
        response
    }

    /// RFC 9111 §4.3.5.
    pub(super) fn learn_from_head(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        base: &Arc<Object>,
        response: &Response<crate::origin::OriginBody>,
        (request_time, version): (crate::rules::time::Millis, u64),
    ) {
        let stored = &base.head.fields();
        match update::head_update(stored, Some(base.body.len()), response.status(), response.headers()) {
            _ if !conditional::can_be_confirmed(base.head.status) => {}
            HeadUpdate::Ignore => {}
            HeadUpdate::Invalidate => base.invalidate(),
            HeadUpdate::Merge => {
                let treatment = &admitted.treatment;
                let mut news = response.headers().clone();
                hop::strip_response(&mut news);
                let response_time = self.clock.now();
                ensure_date(&mut news, response_time);
                let speaks_of_tags = admitted.site.purge.tags.speaks(&news);
                let tags = take_tags(admitted, &mut news);
                let mut headers = base.head.fields();
                headers.remove(header::VIA);
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
                headers.append(header::VIA, self.via.of(response.version()));
                let selecting = (base.head.vary.clone(), base.head.variant.clone());
                let mut head =
                    Head::new(base.head.key.clone(), base.head.status, headers, selecting, freshness);
                (head.version, head.as_of) = (version, base.as_of());
                head.generation = base.head.generation;
                if let Some(stored) = base.head.negotiated {
                    head.negotiate(stored.offer);
                }
                head.tags = if speaks_of_tags { tags } else { base.head.tags.clone() };
                let object = base.renewed(Arc::new(head), self.store.gauge());
                self.store.refresh(Arc::new(object), treatment.max_variants);
            }
        }
    }
}

/// What is encoded varies on that already.
fn say_what_selects(headers: &mut HeaderMap) {
    let is_silent = matches!(
        vary::parse(headers),
        Vary::Fields(rule) if !rule.names().contains(&header::ACCEPT_ENCODING)
    );
    if is_silent {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}
