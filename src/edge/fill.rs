//! The fetch of a flight: ask the origin, decide, stream to the followers and into the store.
//!
//! It runs in a task of its own and goes on when its first client leaves. Whether the answer is
//! stored is decided, and its room reserved, before the body is taken (`stream.rs`). An answer that breaks
//! off before the first bytes of its body has failed, and nobody hears of its head.

use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode, header};
use tokio::sync::oneshot;

use super::accept::ensure_date;
use super::admit::Admitted;
use super::collapse::Lead;
use super::flight::{End, Published, Unshared};
use super::forward::{Purpose, is_confirmed};
use super::purged::take_tags;
use super::slices::Sliced;
use super::trail::{self, Trail};
use super::{Edge, framing, resume};
use crate::object::{Head, Object};
use crate::origin::{InterimSender, OriginBody, OriginError, on_interim};
use crate::rules::key::CacheKey;
use crate::rules::policy::{self, Exchange};
use crate::rules::time::Millis;
use crate::rules::{hop, update};

/// An answer for the leader alone.
pub(super) struct Private {
    pub(super) response: Response<OriginBody>,
    pub(super) why: Unshared,
}

/// See the module.
pub(super) struct Fill {
    pub(super) edge: Arc<Edge>,
    pub(super) admitted: Arc<Admitted>,
    /// The client's, or what stands for it.
    pub(super) request: HeaderMap,
    /// What is fetched.
    pub(super) wanted: Wanted,
    /// The stored response to be revalidated, or of a slice, to stand in where the origin fails.
    pub(super) base: Option<Arc<Object>>,
    pub(super) lead: Lead,
    /// Where an answer goes that is not shared; `None` for a fetch in the background.
    pub(super) private: Option<oneshot::Sender<Private>>,
    /// Where interim responses go, if anywhere.
    pub(super) interim: Option<InterimSender>,
    pub(super) resumable: Option<resume::Resumable>,
    /// Where it is told how long the origin took.
    pub(super) trail: Option<Trail>,
}

/// What a fill fetches.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// The whole; or, of what turns out to be larger than this, word of that and nothing more.
    Whole { slice_over: Option<u64> },
    /// A slice of something whose length and tag are known.
    Slice(Sliced, u64),
}

/// What an answer may be stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    /// The answer to a POST, which may stand for a GET.
    Post,
    /// A 206.
    Part,
}

/// An origin's answer and when it was asked and given.
pub(super) struct Answer {
    pub(super) kind: Kind,
    /// The key to store it under.
    pub(super) key: CacheKey,
    pub(super) response: Response<OriginBody>,
    pub(super) request_time: Millis,
    pub(super) response_time: Millis,
    /// The store's count when the origin was asked.
    pub(super) version: u64,
}

impl Fill {
    /// A fetch of the whole, for everybody.
    pub(super) fn new(edge: &Arc<Edge>, admitted: &Arc<Admitted>, request: &HeaderMap, lead: Lead) -> Self {
        Self {
            edge: edge.clone(),
            admitted: admitted.clone(),
            request: request.clone(),
            wanted: Wanted::Whole { slice_over: None },
            base: None,
            lead,
            private: None,
            interim: None,
            resumable: None,
            trail: None,
        }
    }

    /// Fetches to the end, in a task of its own (boxed: tasks are moved); within the origin's time for it, and where there is a turn.
    pub(super) fn launch(mut self) {
        let treatment = &self.admitted.treatment;
        let turn = match self.edge.turn_of(treatment) {
            Ok(turn) => turn,
            Err(error) => {
                let base = self.base.take();
                return self.failed(error, base);
            }
        };
        let (flight, limit) = (self.lead.flight.clone(), treatment.origin.fill_timeout());
        tokio::spawn(Box::pin(async move {
            let _turn = turn;
            let mut run = std::pin::pin!(self.run());
            if tokio::time::timeout(limit, &mut run).await.is_err() {
                flight.publish(Published::Failed(Arc::new(OriginError::FillTimeout)));
                flight.finish(End::Broken("the fetch took too long".into()));
            }
        }));
    }

    async fn run(mut self) {
        if let Wanted::Slice(sliced, index) = self.wanted.clone() {
            return self.run_slice(&sliced, index).await;
        }
        let mut base = self.base.take();
        let mut answer = self.ask(base.as_deref()).await;
        if let (Ok(found), Some(object)) = (&answer, &base)
            && found.response.status() == StatusCode::NOT_MODIFIED
            && (!is_confirmed(object, found.response.headers())
                || self.edge.is_gone(&object.head, object.checked()))
        {
            // RFC 9111 §4.3.4: the 304 speaks of another response than the one we have; or that one was
            // purged meanwhile.
            self.edge.store.remove(object);
            base = None;
            answer = self.ask(None).await;
        }
        match (answer, base) {
            (Err(error), base) => self.failed(error, base),
            (Ok(answer), Some(base)) if answer.response.status() == StatusCode::NOT_MODIFIED => {
                self.refreshed(&answer, &base).await;
            }
            (Ok(answer), Some(base))
                if is_failure(answer.response.status()) && self.edge.may_stand_in(&base) =>
            {
                self.covered(base, Some(answer.response.status().as_u16()));
            }
            (Ok(answer), base) => self.filled(answer, base).await,
        }
    }

    pub(super) async fn ask(&self, base: Option<&Object>) -> Result<Answer, OriginError> {
        let mut request =
            self.edge.to_origin(&self.admitted, &Method::GET, &self.request, Purpose::Fill(base));
        let (mut kind, mut key) = (Kind::Whole, self.admitted.key.clone());
        if let Wanted::Slice(sliced, index) = &self.wanted {
            (kind, key) = (Kind::Part, sliced.key(&self.admitted.key, *index));
            sliced.ask_for(*index, request.headers_mut());
        }
        if let Some(interim) = &self.interim {
            on_interim(&mut request, interim.clone());
        }
        let request_time = self.edge.clock.now();
        let version = self.edge.store.version();
        let answering = Box::pin(self.admitted.treatment.origin.send(request));
        let mut response = trail::timed(self.trail.as_ref(), answering).await?;
        framing::check(&mut response, self.admitted.treatment.reject_unknown_transfer_coding)?;
        let response_time = self.edge.clock.now();
        response.body_mut().opened().await?;
        Ok(Answer { kind, key, response, request_time, response_time, version })
    }

    pub(super) fn failed(&self, error: OriginError, base: Option<Arc<Object>>) {
        match base {
            Some(base) if self.edge.may_stand_in(&base) => self.covered(base, None),
            _ => self.lead.flight.publish(Published::Failed(Arc::new(error))),
        }
    }

    /// The origin failed, and the stored response stands in; the origin is left alone for a moment.
    pub(super) fn covered(&self, object: Arc<Object>, fwd_status: Option<u16>) {
        self.edge.collapse.mark_failed(object.head.key.hash(), self.lead.took(), self.edge.clock.now());
        self.lead.flight.publish(Published::Stale { object, fwd_status });
    }

    /// A 304: the stored body under a renewed head (RFC 9111 §4.3.4).
    async fn refreshed(&self, answer: &Answer, base: &Arc<Object>) {
        let set_cookie = self.admitted.treatment.policy.set_cookie;
        let mut news = answer.response.headers().clone();
        hop::strip_response(&mut news);
        ensure_date(&mut news, answer.response_time);
        let speaks_of_tags = self.admitted.site.purge.tags.speaks(&news);
        let tags = take_tags(&self.admitted, &mut news);
        let mut headers = base.head.fields();
        // The stored Via is of the answer that brought the body; the news brings its own.
        headers.remove(header::VIA);
        update::merge_304(&mut headers, &news, set_cookie);
        let exchange = Exchange {
            method: &Method::GET,
            request_headers: &self.request,
            status: base.head.status,
            response_headers: &headers,
            request_time: answer.request_time,
            response_time: answer.response_time,
        };
        let decision = policy::decide(&exchange, &self.admitted.treatment.policy);
        let is_stored = decision.is_ok();
        // An answer that may no longer be stored is good for those who wait for it.
        let freshness = decision.unwrap_or_else(|_| {
            let mut freshness = base.head.freshness.clone();
            freshness.response_time = answer.response_time;
            freshness.initial_age_ms = 0;
            freshness.invalidate();
            freshness
        });
        headers.remove(header::AGE);
        headers.append(header::VIA, self.edge.via.of(answer.response.version()));
        let offer = base.head.negotiated.and_then(|_| {
            let compress = &self.admitted.treatment.compress;
            compress.offer(base.head.status, &headers, Some(base.body.len()))
        });
        let Some(selecting) = self.selecting(&headers, offer) else {
            // It varies on everything now: nobody may share it.
            self.edge.store.remove(base);
            return self.lead.flight.publish(Published::Aborted);
        };
        let mut head = Head::new(base.head.key.clone(), base.head.status, headers, selecting, freshness);
        (head.version, head.as_of) = (answer.version, self.lead.flight.as_of());
        head.generation = base.head.generation;
        if let Some(offer) = offer {
            head.negotiate(offer);
        }
        head.tags = if speaks_of_tags { tags } else { base.head.tags.clone() };
        let object = Arc::new(base.renewed(Arc::new(head), self.edge.store.gauge()));
        if is_stored {
            self.edge.collapse.mark_shared(object.head.key.hash(), &object.head.vary);
            self.load_siblings(&object.head).await;
            if base.head.vary != object.head.vary || base.head.variant != object.head.variant {
                self.edge.store.remove(base);
            }
            self.edge.store.refresh(object.clone(), self.admitted.treatment.max_variants);
        } else {
            self.edge.store.remove(base);
        }
        self.lead.flight.publish(Published::Refreshed(object));
    }

    /// A whole answer: shared and stored, or the leader's own.
    async fn filled(mut self, answer: Answer, base: Option<Arc<Object>>) {
        if let Wanted::Whole { slice_over: Some(size) } = self.wanted
            && let Some(sliced) = Sliced::of(&answer.response, size)
            && self.decide(&answer, answer.response.headers()).is_ok()
        {
            // Nobody needs all of it now. What comes of it is the head; the connection is given up.
            self.edge.collapse.mark_sliced(self.admitted.key.hash(), &sliced);
            self.lead.leave();
            return self.lead.flight.publish(Published::Sliced(sliced));
        }
        match self.accept(&answer) {
            Ok((head, deposit)) => self.stream(answer.response.into_body(), Arc::new(head), deposit).await,
            Err(why) => {
                // What was stored is no longer what the origin says, so it is not served stale; unless this answer may
                // be one client's own, or a failure.
                let is_personal =
                    [header::AUTHORIZATION, header::COOKIE].iter().any(|n| self.request.contains_key(n));
                if let Some(base) = base
                    && !is_personal
                    && !answer.response.status().is_server_error()
                {
                    self.edge.store.invalidate(&base.head.key);
                }
                let key = self.admitted.key.hash();
                let is_too_large = why == Unshared::TooLarge;
                if is_too_large {
                    self.edge.store.invalidate(&self.admitted.key);
                }
                self.edge.collapse.mark_unshared(key, answer.response_time, is_too_large);
                self.lead.leave();
                if let Some(private) = self.private.take() {
                    // Sent before the word is out, so that the leader finds it when it hears.
                    let _ = private.send(Private { response: answer.response, why });
                }
                self.lead.flight.publish(Published::Unshared);
            }
        }
    }
}

/// Statuses for which a stored response stands in (RFC 5861 §4).
pub(super) fn is_failure(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504)
}

/// The store's second look: what came while this request was on its way to the origin. Not `base`, which it
/// has seen and is to have validated.
pub(super) fn find_fresh(
    edge: &Edge,
    key: &CacheKey,
    request: &HeaderMap,
    base: Option<&Arc<Object>>,
) -> Option<Arc<Object>> {
    let entry = edge.store.get(key)?;
    let object = entry.select(request)?;
    let is_base = base.is_some_and(|base| Arc::ptr_eq(base, object));
    (!is_base && edge.is_fresh(object)).then(|| object.clone())
}
