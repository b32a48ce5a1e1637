//! The sending end of a connection to a server: HTTP/1.1, for one request at a time, or HTTP/2, shared by many.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};

use super::{OutBody, ServerConfig};

/// See the module.
pub(super) enum Sender {
    Http1(http1::SendRequest<OutBody>),
    Http2(http2::SendRequest<Http2Body>),
}

impl Sender {
    /// Another end of the same connection, where that can be.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(sender) => Some(Self::Http2(sender.clone())),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    pub(super) async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    /// Sends a request in origin form with a Host; a failure gives back what was not sent.
    pub(super) fn send(&mut self, request: Request<OutBody>, server: &ServerConfig) -> Sending {
        match self {
            Self::Http1(sender) => {
                let sending = sender.try_send_request(for_http1(request));
                Box::pin(async move {
                    sending.await.map_err(|mut failed| {
                        let unsent = failed.take_message();
                        SendFailed { unsent, error: failed.into_error() }
                    })
                })
            }
            Self::Http2(sender) => {
                let sending = sender.try_send_request(for_http2(request, server).map(Http2Body));
                Box::pin(async move {
                    sending.await.map_err(|mut failed| {
                        let unsent = failed.take_message().map(|request| request.map(|Http2Body(body)| body));
                        SendFailed { unsent, error: failed.into_error() }
                    })
                })
            }
        }
    }
}

/// Why there is no answer, and the request if none of it was sent.
pub(super) struct SendFailed {
    pub(super) unsent: Option<Request<OutBody>>,
    pub(super) error: hyper::Error,
}

/// A named type: the compiler can't prove the inferred one `Send` for every lifetime.
type Sending = Pin<Box<dyn Future<Output = Result<Response<Incoming>, SendFailed>> + Send>>;

/// A body whose error is a type of its own, for the same reason.
pub(super) struct Http2Body(OutBody);

/// What a request's body failed of.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct BodyFailed(Box<dyn std::error::Error + Send + Sync>);

impl Body for Http2Body {
    type Data = Bytes;
    type Error = BodyFailed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFailed>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(BodyFailed)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// RFC 9113 §8.3.1: scheme and authority are part of the target, and Host says nothing more.
fn for_http2(mut request: Request<OutBody>, server: &ServerConfig) -> Request<OutBody> {
    if request.uri().authority().is_some() {
        return request;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = host.map_or_else(|| server.authority(), ToOwned::to_owned);
    let scheme = if server.tls { Scheme::HTTPS } else { Scheme::HTTP };
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let Ok(authority) = authority.parse::<Authority>() else { return request };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    if let Ok(uri) = uri {
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_2;
        request.headers_mut().remove(header::HOST);
    }
    request
}

/// What another server did not take by HTTP/2 has the target and the Host of HTTP/1.1 again.
fn for_http1(mut request: Request<OutBody>) -> Request<OutBody> {
    let Some(authority) = request.uri().authority() else { return request };
    if let Ok(host) = HeaderValue::try_from(authority.as_str()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = path.into();
    *request.version_mut() = http::Version::HTTP_11;
    request
}
