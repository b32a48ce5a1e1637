//! From a stored or streaming response to the client's answer: conditions, ranges, the head's last
//! fields.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};

use super::CACHE_STATUS;
use super::admit::Admitted;
use super::body::Body;
use super::coded::Coded;
use super::compress;
use super::flight::Flight;
use super::metrics::EdgeMetrics;
use super::multipart::multipart;
use super::negotiate::{self, Chosen};
use super::refusal::{Reason, Refusal};
use super::sliced_body::{SlicedBody, SlicesReader};
use crate::encode::{Level, Transcoder};
use crate::object::{self, Head, Object};
use crate::rules::cache_status::CacheStatus;
use crate::rules::conditional::{self, Outcome, Validators};
use crate::rules::encoding::Coding;
use crate::rules::range::{self, Requested};
use crate::rules::time::Millis;

/// Where the body is.
pub(super) enum Source<'a> {
    Stored(&'a Arc<object::Body>),
    Flight(&'a Arc<Flight>),
    Slices(&'a Arc<SlicedBody>),
}

/// What is known beside the response itself.
pub(super) struct Serving<'a> {
    pub(super) node: &'a str,
    pub(super) admitted: &'a Admitted,
    pub(super) request: &'a Parts,
    pub(super) status: CacheStatus<'a>,
    pub(super) now: Millis,
    /// Whether the origin has confirmed the response for this request, or just sent it.
    pub(super) is_validated: bool,
    pub(super) metrics: &'a EdgeMetrics,
}

enum Selected {
    Whole,
    One(Range<u64>),
    Many(Vec<Range<u64>>),
    NotModified,
    PreconditionFailed,
    Unsatisfiable,
}

/// The answer from a fresh stored response.
#[inline]
pub(super) fn hit(serving: &Serving<'_>, object: &Arc<Object>) -> Response<Body> {
    let (request, fields) = (serving.request, &serving.admitted.fields);
    if request.method != Method::GET {
        return from_object(serving, object);
    }
    let chosen = negotiate::choose(object, &request.headers, serving.admitted);
    let is_plain = !fields.has_conditions && !fields.has_range;
    let (body, encoded) = match &chosen {
        Chosen::AsItIs => (&object.body, None),
        Chosen::Made(encoded) if is_plain => {
            let saved = object.body.len().saturating_sub(encoded.body.len());
            serving.metrics.saved(encoded.coding, saved);
            (&encoded.body, Some(*encoded))
        }
        Chosen::Made(_) | Chosen::Live { .. } | Chosen::Refused => {
            return from_chosen(serving, object, chosen);
        }
    };
    let (head, length) = (&object.head, Some(body.len()));
    let selected = (!is_plain).then(|| select(serving, head, (&head.headers, &chosen), length));
    let age_secs = head.freshness.age_secs(serving.now);
    let second = (age_secs, serving.status.ttl.unwrap_or(0));
    let has_body = matches!(selected, None | Some(Selected::Whole | Selected::One(_))) && !body.is_empty();
    // Neither who changes the head after this nor the node itself finds in it what is in lines.
    let is_sent_as_it_is = !fields.has_debug && !serving.admitted.is_own;
    let as_lines = has_body && is_sent_as_it_is && request.version < Version::HTTP_2;
    let ready = serving.admitted.head_of((object, encoded), second, as_lines, || {
        let mut headers = head.headers.clone();
        chosen.apply(&mut headers);
        finish_head(&mut headers, serving, head, Some(age_secs.into()));
        headers
    });
    let mut headers = ready.fields;
    let (status, body, refused) = match selected {
        None => (head.status, Body::stored(body.clone(), 0..body.len()), None),
        Some(selected) => {
            finish(serving, (head.status, selected), &mut headers, &Source::Stored(body), length)
        }
    };
    response(status, headers, body.with_lines(ready.lines), refused)
}

/// The answer from a stored response.
pub(super) fn from_object(serving: &Serving<'_>, object: &Object) -> Response<Body> {
    let chosen = negotiate::choose(object, &serving.request.headers, serving.admitted);
    from_chosen(serving, object, chosen)
}

fn from_chosen(serving: &Serving<'_>, object: &Object, chosen: Chosen<'_>) -> Response<Body> {
    let age = HeaderValue::from(object.head.freshness.age_secs(serving.now));
    let body = if let Chosen::Made(encoded) = &chosen { &encoded.body } else { &object.body };
    answer(serving, (&object.head, chosen), &Source::Stored(body), Some(body.len()), Some(age))
}

/// The answer from a response that is still coming. Its `Age` is the origin's: a miss adds none.
pub(super) fn from_flight(serving: &Serving<'_>, head: &Head, flight: &Arc<Flight>) -> Response<Body> {
    let length = content_length(&head.headers);
    let chosen = negotiate::choose_coming(head, &serving.request.headers, serving.admitted);
    answer(serving, (head, chosen), &Source::Flight(flight), length, head.origin_age.clone())
}

/// The answer from slices of a response of `length` bytes; `head` is that of the whole.
pub(super) fn from_slices(
    serving: &Serving<'_>,
    head: &Head,
    body: Arc<SlicedBody>,
    length: u64,
    age: Option<HeaderValue>,
) -> Response<Body> {
    answer(serving, (head, Chosen::AsItIs), &Source::Slices(&body), Some(length), age)
}

/// The value of Content-Length, if there is one.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// One member of `Cache-Status`.
pub(super) fn cache_status(node: &str, status: &CacheStatus<'_>) -> HeaderValue {
    cache_status_after(None, node, status)
}

/// The same, behind what caches nearer to the origin said.
fn cache_status_after(before: Option<&HeaderValue>, node: &str, status: &CacheStatus<'_>) -> HeaderValue {
    let mut value = Vec::with_capacity(64);
    if let Some(before) = before {
        value.extend_from_slice(before.as_bytes());
        value.extend_from_slice(b", ");
    }
    status.write(node, &mut value);
    HeaderValue::from_maybe_shared(Bytes::from(value)).unwrap_or(HeaderValue::from_static("larder"))
}

/// Fields that describe a body which a 304 or 412 does not have.
const OF_THE_BODY: [header::HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
];

/// Fields that speak to caches like this one (RFC 9213), and not to clients.
const TARGETED: [header::HeaderName; 3] =
    [super::LARDER_CDN_CACHE_CONTROL, super::CDN_CACHE_CONTROL, super::SURROGATE_CONTROL];

fn answer(
    serving: &Serving<'_>,
    (head, chosen): (&Head, Chosen<'_>),
    source: &Source<'_>,
    length: Option<u64>,
    age: Option<HeaderValue>,
) -> Response<Body> {
    if matches!(chosen, Chosen::Refused) {
        return not_acceptable(serving);
    }
    let mut headers = head.headers.clone();
    chosen.apply(&mut headers);
    let selected = select(serving, head, (&headers, &chosen), length);
    finish_head(&mut headers, serving, head, age);
    let is_whole = matches!(selected, Selected::Whole);
    let (status, body, refused) = finish(serving, (head.status, selected), &mut headers, source, length);
    response(status, headers, if is_whole { coded(serving, body, chosen) } else { body }, refused)
}

#[inline]
fn response(status: StatusCode, headers: HeaderMap, body: Body, refused: Option<Reason>) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let Some(reason) = refused {
        response.extensions_mut().insert(reason);
    }
    response
}

/// The status and the body of what was selected, and the fields that belong to it; and why it is none of what was found.
fn finish(
    serving: &Serving<'_>,
    (status, selected): (StatusCode, Selected),
    headers: &mut HeaderMap,
    source: &Source<'_>,
    length: Option<u64>,
) -> (StatusCode, Body, Option<Reason>) {
    let (status, body) = match selected {
        Selected::Whole => (status, whole(serving, source, length)),
        Selected::One(range) => {
            headers.insert(header::CONTENT_RANGE, range::content_range(&range, length.unwrap_or(0)));
            headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
            (StatusCode::PARTIAL_CONTENT, part(source, range))
        }
        Selected::Many(ranges) => match source {
            Source::Stored(body) => (StatusCode::PARTIAL_CONTENT, multipart(headers, body, &ranges)),
            // What is still coming is not read twice; ranges are optional (RFC 9110 §14.2).
            Source::Flight(_) | Source::Slices(_) => (status, whole(serving, source, length)),
        },
        Selected::NotModified => {
            remove_all(headers, &OF_THE_BODY);
            (StatusCode::NOT_MODIFIED, Body::empty())
        }
        Selected::PreconditionFailed => {
            let detail = "what is there is not what the request's condition names";
            let refusal = Refusal::new(Reason::Precondition, StatusCode::PRECONDITION_FAILED, detail);
            return refuse(serving, &refusal, headers);
        }
        Selected::Unsatisfiable => {
            let length = length.unwrap_or(0);
            let detail = format!("the range lies behind the end: there are {length} bytes");
            let refusal = Refusal::new(Reason::Range, StatusCode::RANGE_NOT_SATISFIABLE, detail)
                .with(header::CONTENT_RANGE, range::unsatisfied(length));
            return refuse(serving, &refusal, headers);
        }
    };
    (status, body, None)
}

/// In place of what was found, whose fields it keeps but for those of its body and for caches.
#[cold]
fn refuse(
    serving: &Serving<'_>,
    refusal: &Refusal,
    headers: &mut HeaderMap,
) -> (StatusCode, Body, Option<Reason>) {
    remove_all(headers, &OF_THE_BODY);
    remove_all(headers, &TARGETED);
    let Parts { method, version, headers: request, .. } = serving.request;
    let body = refusal.write(serving.node, (method, *version, request), headers);
    (refusal.status, body, Some(refusal.reason))
}

/// Conditions first, then ranges (RFC 9110 §13.2.2); both only where the answer would be a 200.
fn select(
    serving: &Serving<'_>,
    head: &Head,
    (headers, chosen): (&HeaderMap, &Chosen<'_>),
    length: Option<u64>,
) -> Selected {
    let request = serving.request;
    // The conditions of other methods are about the state before them, and the origin has judged them.
    if head.status != StatusCode::OK || !matches!(request.method, Method::GET | Method::HEAD) {
        return Selected::Whole;
    }
    let mut validators = Validators { etag: headers.get(header::ETAG), ..head.validators() };
    if serving.admitted.fields.has_conditions {
        let is_made = head.negotiated.is_some_and(|negotiated| negotiated.offer.is_made);
        let object = head.headers.get(header::ETAG).filter(|_| is_made);
        let (method, fields) = (&request.method, &request.headers);
        match conditional::evaluate_derived(method, fields, &validators, object, serving.now) {
            Outcome::NotModified => return Selected::NotModified,
            Outcome::PreconditionFailed => return Selected::PreconditionFailed,
            Outcome::Proceed => {}
        }
    }
    let Some(length) = length else { return Selected::Whole };
    if head.negotiated.is_some() {
        // A date is that of all encodings, and does not say of which a client has the begin.
        validators.last_modified = None;
        if !chosen.has_ranges(headers, &request.headers) {
            return Selected::Whole;
        }
    }
    if request.method != Method::GET
        || !serving.admitted.fields.has_range
        || !conditional::if_range_holds(&request.headers, &validators, serving.now)
    {
        return Selected::Whole;
    }
    match range::parse(&request.headers, length) {
        Requested::Ignored => Selected::Whole,
        Requested::Unsatisfiable => Selected::Unsatisfiable,
        Requested::Single(range) => Selected::One(range),
        Requested::Multiple(ranges) => Selected::Many(ranges),
    }
}

fn finish_head(headers: &mut HeaderMap, serving: &Serving<'_>, head: &Head, age: Option<HeaderValue>) {
    if !serving.is_validated {
        for name in &head.freshness.strip_fields {
            headers.remove(name);
        }
    }
    if head.negotiated.is_some_and(|negotiated| negotiated.offer.is_made)
        && serving.admitted.treatment.compress.dictionaries
    {
        compress::vary_by_dictionary(headers);
    }
    match age {
        Some(age) => headers.insert(header::AGE, age),
        None => headers.remove(header::AGE),
    };
    let before = headers.get(&CACHE_STATUS).filter(|value| !value.is_empty());
    let value = cache_status_after(before, serving.node, &serving.status);
    headers.insert(&CACHE_STATUS, value);
    for_client(headers, serving.admitted);
}

/// Takes fields out.
pub(super) fn remove_all(headers: &mut HeaderMap, names: &[header::HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}

/// What a site changes on every answer's way to its client.
pub(super) fn for_client(headers: &mut HeaderMap, admitted: &Admitted) {
    let treatment = &admitted.treatment;
    if treatment.strip_targeted {
        remove_all(headers, &TARGETED);
    }
    if admitted.client.is_https
        && let Some(hsts) = &admitted.site.hsts
    {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    treatment.response_headers.apply(headers);
}

fn whole(serving: &Serving<'_>, source: &Source<'_>, length: Option<u64>) -> Body {
    if serving.request.method == Method::HEAD {
        return Body::empty();
    }
    match source {
        Source::Stored(body) => Body::stored((*body).clone(), 0..body.len()),
        Source::Flight(flight) => Body::flight(flight.follow(0, length)),
        Source::Slices(body) => Body::slices(SlicesReader::new((*body).clone(), 0..length.unwrap_or(0))),
    }
}

/// The whole in another coding, for a client that can't wait for one at rest.
fn coded(serving: &Serving<'_>, body: Body, chosen: Chosen<'_>) -> Body {
    let Chosen::Live { from, to, turn, of } = chosen else { return body };
    if serving.request.method == Method::HEAD {
        return body;
    }
    let most = serving.admitted.treatment.compress.max_bytes;
    let transcoder = Transcoder::new(from, to, Level::Fast, None, most);
    Body::coded(Coded::new(body, transcoder, turn, of.filter(|_| from != Coding::Identity).cloned()))
}

/// Conditions are not looked at (RFC 9110 §13.2.1), nor ranges: there is nothing that they could be about.
#[cold]
pub(super) fn not_acceptable(serving: &Serving<'_>) -> Response<Body> {
    let detail = "Accept-Encoding refuses identity and every coding that this can be had in";
    let refusal = Refusal::new(Reason::NotAcceptable, StatusCode::NOT_ACCEPTABLE, detail)
        .with(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let status = CacheStatus { detail: Some(Reason::NotAcceptable.as_str()), ..serving.status };
    let Parts { method, version, headers, .. } = serving.request;
    let mut response = refusal.response(serving.node, &status, (method, *version, headers));
    response.extensions_mut().insert(refusal.reason);
    response
}

fn part(source: &Source<'_>, range: Range<u64>) -> Body {
    match source {
        Source::Stored(body) => Body::stored((*body).clone(), range),
        Source::Flight(flight) => Body::flight(flight.follow(range.start, Some(range.end))),
        Source::Slices(body) => Body::slices(SlicesReader::new((*body).clone(), range)),
    }
}
