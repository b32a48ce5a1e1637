//! Answers that the node makes itself: refusals and the origin's failures.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};

use super::body::Body;
use super::metrics::{EdgeMetrics, Outcome};
use crate::rules::cache_status::CacheStatus;
use crate::rules::media;
use crate::rules::proxy_status::proxy_status;

/// What a client may call the JSON of an error.
const JSON: [&str; 2] = ["application/problem+json", "application/json"];

/// Why a request is refused; a label of metrics and the stable end of the problem's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Missing, repeated or malformed Host.
    BadHost,
    /// The target's or `:authority`'s host is another one than Host's.
    HostMismatch,
    /// The target has a userinfo.
    Userinfo,
    /// The target is malformed.
    BadTarget,
    /// The target is too long.
    TargetTooLong,
    /// CONNECT, TRACE, or a method that the site does not let in.
    Method,
    /// A purge method without the right to purge.
    PurgeDenied,
    /// GET or HEAD with a body.
    UnexpectedBody,
    /// A transfer coding that is not exactly one `chunked`.
    TransferCoding,
    /// The body is announced larger than the limit.
    BodyTooLarge,
    /// No site has this Host.
    UnknownHost,
    /// The site keeps this address out.
    AccessDenied,
    /// The URL has to be signed and is not, or no longer.
    Signature,
    /// The client has caused too many misses.
    TooManyMisses,
    /// The request has passed this node before.
    Loop,
    /// The origin gave no answer.
    Origin,
    /// A request directive wants what the cache does not have (`only-if-cached`).
    OnlyIfCached,
    /// A precondition does not hold for the response that was found.
    Precondition,
    /// Nothing of the range that is asked for is there.
    Range,
    /// `Accept-Encoding` refuses all that a response can be had in.
    NotAcceptable,
    /// No refusal of the client's: it is sent to https.
    HttpsRedirect,
    /// The head has too many fields.
    TooManyFields,
    /// The head is larger than the limit, in bytes or in fields, and was not read.
    HeadTooLarge,
    /// The head could not be parsed.
    MalformedHead,
    /// The body did not come whole, or not in time.
    BrokenBody,
}

impl Reason {
    pub(super) const ALL: [Self; 25] = [
        Self::BadHost,
        Self::HostMismatch,
        Self::Userinfo,
        Self::BadTarget,
        Self::TargetTooLong,
        Self::Method,
        Self::PurgeDenied,
        Self::UnexpectedBody,
        Self::TransferCoding,
        Self::BodyTooLarge,
        Self::UnknownHost,
        Self::AccessDenied,
        Self::Signature,
        Self::TooManyMisses,
        Self::Loop,
        Self::Origin,
        Self::OnlyIfCached,
        Self::Precondition,
        Self::Range,
        Self::NotAcceptable,
        Self::HttpsRedirect,
        Self::TooManyFields,
        Self::HeadTooLarge,
        Self::MalformedHead,
        Self::BrokenBody,
    ];

    /// A stable word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::BadHost => "bad-host",
            Self::HostMismatch => "host-mismatch",
            Self::Userinfo => "userinfo",
            Self::BadTarget => "bad-target",
            Self::TargetTooLong => "target-too-long",
            Self::Method => "method",
            Self::PurgeDenied => "purge-denied",
            Self::UnexpectedBody => "unexpected-body",
            Self::TransferCoding => "transfer-coding",
            Self::BodyTooLarge => "body-too-large",
            Self::UnknownHost => "unknown-host",
            Self::AccessDenied => "access-denied",
            Self::Signature => "signature",
            Self::TooManyMisses => "too-many-misses",
            Self::Loop => "loop",
            Self::Origin => "origin",
            Self::OnlyIfCached => "only-if-cached",
            Self::Precondition => "precondition-failed",
            Self::Range => "range-not-satisfiable",
            Self::NotAcceptable => "not-acceptable",
            Self::HttpsRedirect => "https-redirect",
            Self::TooManyFields => "too-many-fields",
            Self::HeadTooLarge => "head-too-large",
            Self::MalformedHead => "malformed-head",
            Self::BrokenBody => "broken-body",
        }
    }

    /// The error type of RFC 9209 §2.3 for refusals.
    fn proxy_status(self) -> &'static str {
        match self {
            Self::AccessDenied | Self::PurgeDenied | Self::Method | Self::Signature | Self::TooManyMisses => {
                "http_request_denied"
            }
            Self::Loop => "proxy_loop_detected",
            Self::UnknownHost => "destination_not_found",
            _ => "http_request_error",
        }
    }
}

/// An answer to be made.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) status: StatusCode,
    pub(super) detail: String,
    /// RFC 9209 error type, when it is another than the reason's.
    pub(super) error: Option<&'static str>,
    /// Whether what follows on the connection can't be trusted.
    pub(super) close: bool,
    pub(super) extra: Option<(header::HeaderName, HeaderValue)>,
}

impl Refusal {
    pub(super) fn new(reason: Reason, status: StatusCode, detail: impl Into<String>) -> Self {
        Self { reason, status, detail: detail.into(), error: None, close: false, extra: None }
    }

    pub(super) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    pub(super) fn with(self, name: header::HeaderName, value: HeaderValue) -> Self {
        Self { extra: Some((name, value)), ..self }
    }

    pub(super) fn error(self, error: &'static str) -> Self {
        Self { error: Some(error), ..self }
    }

    /// The answer.
    pub(super) fn response(
        &self,
        node: &str,
        status: &CacheStatus<'_>,
        request: (&Method, Version, &HeaderMap),
    ) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(&super::CACHE_STATUS, super::respond::cache_status(node, status));
        *response.body_mut() = self.write(node, request, headers);
        response
    }

    /// Sets the fields of the answer and gives its body: RFC 9457 problem JSON where the client prefers JSON, else a line of
    /// text.
    pub(super) fn write(
        &self,
        node: &str,
        request: (&Method, Version, &HeaderMap),
        headers: &mut HeaderMap,
    ) -> Body {
        let (method, version, request_headers) = request;
        let title = self.status.canonical_reason().unwrap_or("Refused");
        let (content_type, text) = if media::prefers_to_text(request_headers, &JSON) {
            let problem = serde_json::json!({
                "type": format!("urn:larder:problem:{}", self.reason.as_str()),
                "title": title,
                "status": self.status.as_u16(),
                "detail": self.detail,
            });
            ("application/problem+json", format!("{problem}\n"))
        } else {
            let code = self.status.as_u16();
            ("text/plain; charset=utf-8", format!("{code} {title}: {}\n", self.detail))
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CONTENT_LENGTH, text.len().into());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if !self.status.is_redirection() {
            let error = self.error.unwrap_or(self.reason.proxy_status());
            headers.insert(&super::PROXY_STATUS, proxy_status(node, error, None));
        }
        if let Some((name, value)) = &self.extra {
            headers.insert(name.clone(), value.clone());
        }
        if self.close && version < Version::HTTP_2 {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if *method == Method::HEAD { Body::empty() } else { Body::bytes(Bytes::from(text)) }
    }
}

/// What became of a request; a response that was found and can't be sent is counted as a refusal here.
#[inline]
pub(super) fn outcome_of(metrics: &EdgeMetrics, response: &Response<Body>, found: Outcome) -> Outcome {
    if !matches!(
        response.status(),
        StatusCode::NOT_ACCEPTABLE | StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE
    ) {
        return found;
    }
    let Some(reason) = response.extensions().get::<Reason>() else { return found };
    metrics.refused(*reason);
    Outcome::Refused
}
