//! Requests on their way to an origin, and answers that pass through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Either};

use super::admit::Admitted;
use super::body::Body;
use super::claims;
use super::respond::{cache_status, for_client, remove_all};
use super::{CACHE_STATUS, CDN_LOOP, Edge, FORWARDED, LARDER_DEBUG, SURROGATE_CAPABILITY};
use super::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::net::{RequestBody, RequestBodyError};
use crate::object::{Object, Offer};
use crate::origin::{OriginBody, OriginError, OutBody, no_body};
use crate::rules::cache_status::CacheStatus;
use crate::rules::dictionary::{AVAILABLE_DICTIONARY, DICTIONARY_ID};
use crate::rules::encoding::Coding;
use crate::rules::{conditional, encoding, etag, hop, update};

/// What a request is for, which decides the fields it carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose<'a> {
    /// The whole representation, for everybody; conditional when there is a stored response.
    Fill(Option<&'a Object>),
    /// This client's own, as it is.
    Pass,
}

/// What was wrong with the body of a request that was passed on.
#[derive(Debug, Default)]
pub(super) struct BodyFault(Arc<AtomicU16>);

impl BodyFault {
    /// The status for what came of it: an error of the origin's is then only a consequence of the client's.
    pub(super) fn status(&self, error: &OriginError) -> StatusCode {
        StatusCode::from_u16(self.0.load(Relaxed)).unwrap_or_else(|_| error.status())
    }
}

const CONDITIONS: [header::HeaderName; 6] = [
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
    header::RANGE,
];

impl Edge {
    /// The head of a request to the origin.
    pub(super) fn to_origin(
        &self,
        admitted: &Admitted,
        method: &Method,
        client_headers: &HeaderMap,
        purpose: Purpose<'_>,
    ) -> Request<OutBody> {
        let mut headers = client_headers.clone();
        hop::strip_request(&mut headers);
        headers.remove(&LARDER_DEBUG);
        headers.remove(header::EXPECT);
        if let Purpose::Fill(base) = purpose {
            remove_all(&mut headers, &CONDITIONS);
            if admitted.treatment.compress.dictionaries {
                // Between the client and us.
                remove_all(&mut headers, &[AVAILABLE_DICTIONARY, DICTIONARY_ID]);
            }
            match encoding::normalize(client_headers) {
                Some(codings) => headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(codings)),
                None => headers.remove(header::ACCEPT_ENCODING),
            };
            if let Some(base) = base {
                condition(&mut headers, base);
            }
        } else if !admitted.treatment.compress.codings.is_empty() {
            name_the_content(&mut headers);
        }
        let host = admitted.treatment.origin.host().unwrap_or(admitted.host());
        if let Ok(host) = HeaderValue::try_from(host) {
            headers.insert(header::HOST, host);
        }
        self.add_hop(&mut headers, admitted);
        admitted.treatment.request_headers.apply(&mut headers);
        let mut request = Request::new(no_body());
        *request.method_mut() = method.clone();
        *request.headers_mut() = headers;
        if let Ok(uri) = admitted.target().parse() {
            *request.uri_mut() = uri;
        }
        request
    }

    /// Via, CDN-Loop and the client's address; what untrusted peers claimed is dropped.
    fn add_hop(&self, headers: &mut HeaderMap, admitted: &Admitted) {
        let client = &admitted.client;
        headers.append(header::VIA, self.via.of(admitted.version));
        if let Ok(id) = HeaderValue::try_from(&self.config.loop_id) {
            headers.append(&CDN_LOOP, id);
        }
        claims::strip(headers, client.is_behind_proxy);
        // Never the client's: what a surrogate can do may change the answer, and is no part of the cache key.
        headers.insert(&SURROGATE_CAPABILITY, self.surrogate_capability.clone());
        let scheme = admitted.scheme.as_str();
        headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
        if client.address != client.peer && !headers.contains_key(&X_FORWARDED_FOR) {
            // The proxy told of the client by Forwarded only.
            append_to_line(headers, &X_FORWARDED_FOR, &client.address.to_string());
        }
        append_to_line(headers, &X_FORWARDED_FOR, &client.peer.to_string());
        let element = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(v4) => format!("for={v4};proto={scheme};host=\"{}\"", admitted.host()),
            std::net::IpAddr::V6(v6) => format!("for=\"[{v6}]\";proto={scheme};host=\"{}\"", admitted.host()),
        };
        if client.address != client.peer && !headers.contains_key(&FORWARDED) {
            // The proxy told of the client by X-Forwarded-For only.
            append_to_line(headers, &FORWARDED, &element(client.address));
        }
        append_to_line(headers, &FORWARDED, &element(client.peer));
    }

    /// A request of the client's own, and what becomes known of its body.
    pub(super) fn to_pass(
        &self,
        admitted: &Admitted,
        parts: &Parts,
        body: RequestBody,
    ) -> (Request<OutBody>, BodyFault) {
        let mut request = self.to_origin(admitted, &parts.method, &parts.headers, Purpose::Pass);
        let fault = BodyFault::default();
        if !http_body::Body::is_end_stream(&body) {
            let refused = fault.0.clone();
            let body = body.map_err(move |error| {
                let status = match error {
                    RequestBodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                    RequestBodyError::Timeout => StatusCode::REQUEST_TIMEOUT,
                    RequestBodyError::Broken(_) => StatusCode::BAD_REQUEST,
                };
                refused.store(status.as_u16(), Relaxed);
                error.into()
            });
            *request.body_mut() = Either::Right(body.boxed_unsync());
        }
        (request, fault)
    }

    /// The answer of an origin to one client, not shared.
    pub(super) fn passed(
        &self,
        admitted: &Admitted,
        response: Response<OriginBody>,
        status: &CacheStatus<'_>,
    ) -> Response<Body> {
        let mut response = response.map(Body::origin);
        let via = self.via.of(response.version());
        // By which this node answers depends on its client.
        *response.version_mut() = Version::HTTP_11;
        let headers = response.headers_mut();
        hop::strip_response(headers);
        admitted.site.purge.tags.strip(headers);
        headers.append(header::VIA, via);
        headers.append(&CACHE_STATUS, cache_status(&self.config.node, status));
        for_client(headers, admitted);
        response
    }

    /// `OPTIONS *` is about this server, not about a resource (RFC 9110 §9.3.7).
    pub(super) fn options_of_the_node(&self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
        headers.insert(&CACHE_STATUS, cache_status(&self.config.node, &CacheStatus::default()));
        response
    }
}

/// Asks whether the stored response is still the one (RFC 9111 §4.3.1), with its validators verbatim; where a 304 can say so.
fn condition(headers: &mut HeaderMap, base: &Object) {
    if !conditional::can_be_confirmed(base.head.status) {
        return;
    }
    let stored = &base.head.headers;
    if let Some(etag) = stored.get(header::ETAG) {
        headers.insert(header::IF_NONE_MATCH, etag.clone());
    }
    if let Some(modified) = stored.get(header::LAST_MODIFIED) {
        headers.insert(header::IF_MODIFIED_SINCE, modified.clone());
    }
    if let Some(Offer { coding, is_made: true }) = base.head.negotiated.map(|negotiated| negotiated.offer)
        && coding != Coding::Identity
    {
        // Its tag is of what the origin has encoded, and of nothing else.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(coding.as_str()));
    }
}

/// Whether a 304 speaks of the stored response: not when that was asked for without a condition.
pub(super) fn is_confirmed(base: &Object, not_modified: &HeaderMap) -> bool {
    conditional::can_be_confirmed(base.head.status) && update::matches_304(&base.head.headers, not_modified)
}

/// The tags of our own encodings say nothing to an origin: they become what they were made of. Not for who asks for a
/// range, whose bytes they name.
fn name_the_content(headers: &mut HeaderMap) {
    if headers.contains_key(header::RANGE) {
        return;
    }
    for name in [header::IF_MATCH, header::IF_NONE_MATCH] {
        let lines: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
        let stripped = |line: &HeaderValue| {
            etag::without_suffixes(line.as_bytes()).and_then(|line| HeaderValue::from_bytes(&line).ok())
        };
        headers.remove(&name);
        for line in lines {
            headers.append(name.clone(), stripped(&line).unwrap_or(line));
        }
    }
}

/// Adds a member to a list field and keeps it on one line: many servers read only the first.
fn append_to_line(headers: &mut HeaderMap, name: &header::HeaderName, member: &str) {
    let mut line = Vec::new();
    for value in headers.get_all(name) {
        line.extend_from_slice(value.as_bytes());
        line.extend_from_slice(b", ");
    }
    line.extend_from_slice(member.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&line) {
        headers.insert(name.clone(), value);
    }
}
