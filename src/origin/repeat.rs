//! Which requests may be sent a second time, and their copies.

use http::{Method, Request};

use super::{OutBody, no_body};

/// Whether a request means the same when it is sent again, and has no body that is gone by then.
pub(super) fn may_repeat(request: &Request<OutBody>) -> bool {
    let idempotent = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    idempotent && http_body::Body::is_end_stream(request.body())
}

/// The same request, without a body.
pub(super) fn copy_head(request: &Request<OutBody>) -> Request<OutBody> {
    let mut copy = Request::new(no_body());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}
