//! What becomes of an origin's answer: stored, for whom, for how long, and where.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Body as _;

use super::compress::without_encoding;
use super::fill::{Answer, Fill, Kind, Wanted};
use super::flight::Unshared;
use super::purged::take_tags;
use super::resume;
use crate::object::{Head, Offer};
use crate::rules::encoding::{self, Coding};
use crate::rules::freshness::Freshness;
use crate::rules::policy::{self, Exchange};
use crate::rules::time::Millis;
use crate::rules::vary::{self, Vary, VaryRule};
use crate::rules::{date, storable};
use crate::store::{Deposit, NoRoom};

/// Fields towards the origin that name the client.
const PER_CLIENT: [header::HeaderName; 2] = [super::X_FORWARDED_FOR, super::FORWARDED];

impl Fill {
    /// Decides whether an answer is stored, and takes its room.
    pub(super) fn accept(&mut self, answer: &Answer) -> Result<(Head, Option<Deposit>), Unshared> {
        let status = answer.response.status();
        let mut headers = answer.response.headers().clone();
        ensure_date(&mut headers, answer.response_time);
        let freshness = self.decide(answer, &headers).map_err(Unshared::NotStored)?;
        storable::prepare(&mut headers, self.admitted.treatment.policy.set_cookie);
        let size = answer.response.body().size_hint();
        let compress = &self.admitted.treatment.compress;
        let offer =
            (answer.kind == Kind::Whole).then(|| compress.offer(status, &headers, size.exact())).flatten();
        let mut selecting =
            self.selecting(&headers, offer).ok_or(Unshared::NotStored(storable::NotStored::VaryStar))?;
        if answer.kind != Kind::Whole && is_coded_beyond(&selecting.0, &headers, &self.request) {
            return Err(Unshared::NotStored(storable::NotStored::Vary));
        }
        if answer.kind == Kind::Part && !matches!(self.wanted, Wanted::Slice(..)) {
            // A part is for who asks for the same; whom it serves besides is decided when it is asked for.
            let names = selecting.0.names().iter().cloned().chain([header::RANGE]).collect();
            let rule = VaryRule::new(names);
            let variant = rule.key(&self.request);
            selecting = (rule, variant);
        }
        let tags = take_tags(&self.admitted, &mut headers);
        let deposit = match self.edge.store.deposit(answer.key.hash(), size.exact()) {
            Ok(deposit) => Some(deposit),
            // Shared by all who ask while it comes.
            Err(NoRoom::NotAdmitted) => None,
            Err(NoRoom::TooLarge) if answer.kind == Kind::Part => None,
            Err(NoRoom::TooLarge) => return Err(Unshared::TooLarge),
        };
        // Copied: what was parsed is a slice of the connection's buffer.
        let origin_age =
            headers.remove(header::AGE).and_then(|age| HeaderValue::from_bytes(age.as_bytes()).ok());
        if let Some(length) = size.exact()
            && status != StatusCode::NO_CONTENT
        {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        self.resumable = resume::validator(status, &headers, answer.response_time);
        if status == StatusCode::OK && !headers.contains_key(header::ACCEPT_RANGES) {
            headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        }
        headers.append(header::VIA, self.edge.via.of(answer.response.version()));
        let mut head = Head::new(answer.key.clone(), status, headers, selecting, freshness);
        head.origin_age = origin_age;
        (head.version, head.as_of) = (answer.version, self.lead.flight.as_of());
        head.generation = answer.version;
        if let Some(offer) = offer {
            head.negotiate(offer);
        }
        head.tags = tags;
        Ok((head, deposit))
    }

    /// May it be stored, and for how long is it fresh?
    pub(super) fn decide(
        &self,
        answer: &Answer,
        headers: &HeaderMap,
    ) -> Result<Freshness, storable::NotStored> {
        let policy = &self.admitted.treatment.policy;
        let status = answer.response.status();
        if (status == StatusCode::PARTIAL_CONTENT) != (answer.kind == Kind::Part) {
            return Err(storable::NotStored::Partial);
        }
        let is_post = answer.kind == Kind::Post;
        let exchange = Exchange {
            method: if is_post { &Method::POST } else { &Method::GET },
            request_headers: &self.request,
            // What is known of a part is known of the whole (RFC 9111 §3.3).
            status: if answer.kind == Kind::Part { StatusCode::OK } else { status },
            response_headers: headers,
            request_time: answer.request_time,
            response_time: answer.response_time,
        };
        if is_post {
            return policy::decide_post(&exchange, policy, &self.admitted.as_target());
        }
        policy::decide(&exchange, policy)
    }

    /// Which requests an answer with these fields is for; `None`: none but its own. Where it is made in the codings that
    /// clients accept, these do not select.
    pub(super) fn selecting(
        &self,
        headers: &HeaderMap,
        offer: Option<Offer>,
    ) -> Option<(VaryRule, vary::VariantKey)> {
        match vary::parse(headers) {
            Vary::Any => None,
            // The origin sees what we wrote there, which is each client's own.
            Vary::Fields(rule) if rule.names().iter().any(|name| PER_CLIENT.contains(name)) => None,
            Vary::Fields(rule) => {
                let is_made = offer.is_some_and(|offer| offer.is_made);
                let rule = if is_made { without_encoding(&rule) } else { rule };
                let variant = rule.key(&self.request);
                Some((rule, variant))
            }
        }
    }
}

/// Whether a response varies on Accept-Encoding, and has a coding that the key does not tell of: it is keyed by the codings
/// that are known here, and who passes through asks for whatever a client accepts.
fn is_coded_beyond(rule: &VaryRule, headers: &HeaderMap, request: &HeaderMap) -> bool {
    let is_keyed = |coding: Coding| match encoding::normalize(request) {
        _ if coding == Coding::Identity => true,
        Some(known) => known.split(", ").any(|known| known == coding.as_str()),
        None => false,
    };
    rule.names().contains(&header::ACCEPT_ENCODING) && !Coding::of(headers).is_some_and(is_keyed)
}

/// A recipient with a clock gives a response the Date that it lacks (RFC 9110 §6.6.1).
pub(super) fn ensure_date(headers: &mut HeaderMap, now: Millis) {
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, date::format(now.as_secs_floor()));
    }
}
