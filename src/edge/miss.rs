//! What the store can't answer: join or lead a flight, revalidate in the background, forward a HEAD.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use tokio::sync::oneshot;

use super::admit::Admitted;
use super::body::Body;
use super::collapse::{Join, Lead};
use super::fill::{Fill, Private, Wanted, find_fresh, is_failure};
use super::flight::{Flight, Published, Unshared};
use super::forward::Purpose;
use super::interim::{self, relaying};
use super::refusal::{Reason, Refusal};
use super::{Edge, Outcome, framing, respond, trail};
use crate::object::{Head, Object};
use crate::origin::{InterimSender, OriginError};
use crate::rules::cache_status::{CacheStatus, Fwd};

/// Flights that a request joins before it goes on its own.
const ATTEMPTS: usize = 3;
/// What a client may wait before it comes again when the origin is overloaded.
const RETRY_AFTER_SECS: u32 = 1;

type Answered = (Outcome, Response<Body>);

impl Edge {
    /// Answers from the origin, by a flight that others may follow.
    pub(super) async fn fetch(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        base: Option<Arc<Object>>,
        fwd: Fwd,
    ) -> Answered {
        let key = admitted.key.hash();
        if let Some(answered) = self.by_parts(admitted, parts, base.as_ref(), fwd).await {
            return answered;
        }
        let mut base = base;
        let mut is_counted = false;
        for attempt in 0..=ATTEMPTS {
            let is_alone = attempt == ATTEMPTS || self.collapse.is_unshared(key, self.clock.now());
            let join = if is_alone {
                Ok(Join::Lead(Lead::alone(self.purges.applied())))
            } else {
                let find = || find_fresh(self, &admitted.key, &parts.headers, base.as_ref());
                let is_outdated = |flight: &Flight| self.is_outdated(&admitted.key, flight);
                self.collapse.join(key, &parts.headers, self.purges.applied(), is_outdated, find)
            };
            let (reader, flight, private, relay) = match join {
                Err(found) => {
                    return (Outcome::Hit, self.hit(admitted, parts, &found, self.clock.now()));
                }
                Ok(Join::Follow(reader, flight)) => (reader, flight, None, None),
                Ok(Join::Lead(mut lead)) => {
                    if !is_alone
                        && let Some(found) = self.landed(&admitted.key, &parts.headers, base.as_ref()).await
                    {
                        lead.found(&found);
                        return (Outcome::Hit, self.hit(admitted, parts, &found, self.clock.now()));
                    }
                    // Who follows causes no request; who leads again has been counted.
                    if !std::mem::replace(&mut is_counted, true)
                        && let Err(refusal) = self.count_miss(admitted)
                    {
                        return self.refused(parts, &refusal, &CacheStatus::default());
                    }
                    let flight = lead.flight.clone();
                    // Joined before the fetch begins, which would find nobody to fetch for.
                    let reader = flight.join();
                    let (interim, relay) = interim::to_client(parts).unzip();
                    let private = self.launch(admitted, parts, base.clone(), lead, interim);
                    (reader, flight, Some(private), relay)
                }
            };
            let is_leader = private.is_some();
            let published = relaying(relay, reader.published()).await;
            let asked = Fetched { admitted, parts, fwd, is_leader };
            if let Some(answered) = self.land(&asked, &flight, published, private).await {
                return answered;
            }
            // What the flight took out of the store is not asked about again.
            base = base.filter(|base| self.store.holds(base));
        }
        let error = OriginError::Malformed("its answers could not be used".into());
        let status = CacheStatus { fwd: Some(fwd), ..CacheStatus::default() };
        self.unanswered(parts, &error, StatusCode::BAD_GATEWAY, &status)
    }

    /// Starts a fetch in a task of its own.
    fn launch(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        base: Option<Arc<Object>>,
        lead: Lead,
        interim: Option<InterimSender>,
    ) -> oneshot::Receiver<Private> {
        let (private, receiver) = oneshot::channel();
        let mut fill = Fill::new(self, admitted, &parts.headers, lead);
        fill.trail = trail::of(parts).cloned();
        let size = admitted.treatment.range_slices;
        if size > 0 && base.is_none() && parts.headers.contains_key(header::RANGE) {
            fill.wanted = Wanted::Whole { slice_over: Some(size) };
        }
        (fill.base, fill.private, fill.interim) = (base, Some(private), interim);
        fill.launch();
        receiver
    }

    /// Revalidates in the background, unless somebody does already.
    pub(super) fn revalidate(self: &Arc<Self>, admitted: &Arc<Admitted>, parts: &Parts, base: Arc<Object>) {
        let key = admitted.key.hash();
        if self.collapse.has_failed(key, self.clock.now()) {
            return;
        }
        let find = || find_fresh(self, &admitted.key, &parts.headers, Some(&base));
        let is_outdated = |flight: &Flight| self.is_outdated(&admitted.key, flight);
        let as_of = self.purges.applied();
        let joined = self.collapse.join(key, &parts.headers, as_of, is_outdated, find);
        let Ok(Join::Lead(lead)) = joined else { return };
        let mut fill = Fill::new(self, admitted, &parts.headers, lead);
        fill.base = Some(base);
        fill.launch();
    }

    /// What a flight came to, for one of its requests; `None`: nothing, try again.
    pub(super) async fn land(
        self: &Arc<Self>,
        asked: &Fetched<'_>,
        flight: &Arc<Flight>,
        published: Published,
        private: Option<oneshot::Receiver<Private>>,
    ) -> Option<Answered> {
        let Fetched { admitted, parts, fwd, is_leader } = *asked;
        let is_mine = |head: &Head| head.vary.is_empty() || head.vary.key(&parts.headers) == head.variant;
        if !is_leader && self.is_outdated(&admitted.key, flight) {
            return None;
        }
        match published {
            Published::Streaming(head, stored) if is_mine(&head) => {
                let status = CacheStatus {
                    fwd: Some(fwd),
                    fwd_status: Some(head.status.as_u16()),
                    stored,
                    collapsed: !is_leader,
                    detail: (!stored).then_some("not-admitted"),
                    ..CacheStatus::default()
                };
                let outcome = if is_leader { Outcome::Miss } else { Outcome::Collapsed };
                let serving = self.serving(admitted, parts, status, true);
                Some((outcome, respond::from_flight(&serving, &head, flight)))
            }
            Published::Refreshed(object) if is_mine(&object.head) => {
                let status = CacheStatus {
                    fwd: Some(fwd),
                    fwd_status: Some(304),
                    collapsed: !is_leader,
                    ..CacheStatus::default()
                };
                let serving = self.serving(admitted, parts, status, true);
                Some((Outcome::Revalidated, respond::from_object(&serving, &object)))
            }
            Published::Stored(object) if is_mine(&object.head) => {
                Some((Outcome::Hit, self.hit(admitted, parts, &object, self.clock.now())))
            }
            Published::Stale { object, fwd_status } if is_mine(&object.head) => {
                let fwd = Some((Fwd::Stale, fwd_status));
                let response = self.stale(admitted, parts, &object, fwd, "stale-if-error");
                Some((Outcome::HitStale, response))
            }
            Published::Sliced(sliced) => self.from_slices(admitted, parts, &sliced).await,
            Published::Unshared => self.unshared(asked, private?).await,
            Published::Failed(error) => {
                let status = CacheStatus { fwd: Some(fwd), collapsed: !is_leader, ..CacheStatus::default() };
                Some(self.unanswered(parts, &error, error.status(), &status))
            }
            _ => None,
        }
    }

    /// The leader's own answer.
    async fn unshared(
        self: &Arc<Self>,
        asked: &Fetched<'_>,
        private: oneshot::Receiver<Private>,
    ) -> Option<Answered> {
        let Fetched { admitted, parts, fwd, .. } = *asked;
        let Private { response, why } = private.await.ok()?;
        if why == Unshared::TooLarge && parts.headers.contains_key(header::RANGE) {
            // The whole is too large to fetch for a part of it.
            drop(response);
            return Some(self.forward_range(admitted, parts, fwd).await);
        }
        let status = CacheStatus {
            fwd: Some(fwd),
            fwd_status: Some(response.status().as_u16()),
            detail: Some(why.as_str()),
            ..CacheStatus::default()
        };
        let mut response = self.passed(admitted, response, &status);
        self.answer_condition(parts, &mut response);
        Some((Outcome::Miss, response))
    }

    /// The fetch went without the client's conditions, so they are answered here.
    fn answer_condition(&self, parts: &Parts, response: &mut Response<Body>) {
        use crate::rules::conditional::{Outcome, Validators, evaluate, has_conditions};
        if response.status() != StatusCode::OK || !has_conditions(&parts.headers) {
            return;
        }
        let now = self.clock.now();
        // Date takes the place of Last-Modified for what is stored only (RFC 9111 §4.3.2).
        let validators = Validators { date: None, ..Validators::of(response.headers(), now) };
        let status = match evaluate(&parts.method, &parts.headers, &validators, now) {
            Outcome::Proceed => return,
            Outcome::NotModified => StatusCode::NOT_MODIFIED,
            Outcome::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        };
        *response.status_mut() = status;
        *response.body_mut() = Body::empty();
        for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING] {
            response.headers_mut().remove(name);
        }
    }

    /// HEAD of what is not fresh: forwarded, and the stored response learns from the answer.
    pub(super) async fn head(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        base: Option<Arc<Object>>,
    ) -> Answered {
        let fwd = if base.is_some() { Fwd::Stale } else { Fwd::UriMiss };
        let status = CacheStatus { fwd: Some(fwd), ..CacheStatus::default() };
        let request = self.to_origin(admitted, &Method::HEAD, &parts.headers, Purpose::Fill(None));
        let (asked, begun) = ((self.clock.now(), self.store.version()), std::time::Instant::now());
        let (outcome, mut response) = self
            .relay(admitted, parts, request, &status, |response| {
                if let Some(base) = &base {
                    self.learn_from_head(admitted, parts, base, response, asked);
                }
            })
            .await;
        self.answer_condition(parts, &mut response);
        if (outcome == Outcome::Error || is_failure(response.status()))
            && let Some(base) = base
            && self.may_stand_in(&base)
        {
            self.collapse.mark_failed(admitted.key.hash(), begun.elapsed(), self.clock.now());
            let fwd = Some((Fwd::Stale, (outcome != Outcome::Error).then(|| response.status().as_u16())));
            return (Outcome::HitStale, self.stale(admitted, parts, &base, fwd, "stale-if-error"));
        }
        (outcome, response)
    }

    async fn relay(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        request: http::Request<crate::origin::OutBody>,
        status: &CacheStatus<'_>,
        on_answer: impl FnOnce(&Response<crate::origin::OriginBody>),
    ) -> Answered {
        match interim::send(&admitted.treatment.origin, request, parts).await {
            Ok(mut response) => {
                let reject = admitted.treatment.reject_unknown_transfer_coding;
                if let Err(error) = framing::check(&mut response, reject) {
                    return self.unanswered(parts, &error, error.status(), status);
                }
                on_answer(&response);
                let status = CacheStatus { fwd_status: Some(response.status().as_u16()), ..*status };
                (Outcome::Miss, self.passed(admitted, response, &status))
            }
            Err(error) => self.unanswered(parts, &error, error.status(), status),
        }
    }

    /// The origin gave no answer.
    pub(super) fn unanswered(
        &self,
        parts: &Parts,
        error: &OriginError,
        code: StatusCode,
        status: &CacheStatus<'_>,
    ) -> Answered {
        let word = error.proxy_status();
        // The client learns what kind of failure it was, and nothing of addresses.
        let detail = match code {
            StatusCode::GATEWAY_TIMEOUT => "the origin did not answer in time",
            StatusCode::SERVICE_UNAVAILABLE => "too many requests wait for the origin; try again later",
            StatusCode::PAYLOAD_TOO_LARGE => "the request's body is larger than the limit",
            StatusCode::REQUEST_TIMEOUT => "the request's body did not arrive in time",
            StatusCode::BAD_REQUEST => "the request's body broke off",
            _ => "the origin gave no usable answer",
        };
        // A client that does not bring its body is no fault of the origin's.
        let (reason, word) = match code {
            StatusCode::PAYLOAD_TOO_LARGE => (Reason::BodyTooLarge, "http_request_error"),
            code if code.is_client_error() => (Reason::BrokenBody, "http_request_error"),
            _ => (Reason::Origin, word),
        };
        let mut refusal = Refusal::new(reason, code, detail).error(word);
        if code == StatusCode::SERVICE_UNAVAILABLE {
            refusal = refusal.with(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
        }
        if code.is_client_error() {
            refusal = refusal.closing();
        }
        let of_client = code.is_client_error().then_some(reason.as_str());
        let status = CacheStatus { detail: Some(of_client.unwrap_or(word)), ..*status };
        self.refused(parts, &refusal, &status)
    }
}

/// What a request asked a flight for.
#[derive(Clone, Copy)]
pub(super) struct Fetched<'a> {
    pub(super) admitted: &'a Arc<Admitted>,
    pub(super) parts: &'a Parts,
    pub(super) fwd: Fwd,
    pub(super) is_leader: bool,
}
