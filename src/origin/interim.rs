//! Interim responses of an origin (RFC 9110 §15.2), for who listens.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::{HeaderMap, Request, StatusCode, header};
use tokio::sync::mpsc;

use super::OutBody;
use crate::rules::hop;

/// Interim responses to one request; what comes after is not looked at.
const MAX_HEADS: usize = 8;

/// The head of an interim response, without what ends at this hop.
#[derive(Debug)]
pub struct InterimHead {
    /// 1xx, never 100 or 101.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
}

/// Where they go.
pub type InterimSender = mpsc::Sender<InterimHead>;
/// Where they come out, in time before the final response.
pub type InterimReceiver = mpsc::Receiver<InterimHead>;

/// For the interim responses to one request.
pub fn interim_channel() -> (InterimSender, InterimReceiver) {
    mpsc::channel(MAX_HEADS)
}

/// Has a request's interim responses sent to `to`. 100 is about our own sending, 101 is no answer to what we ask.
pub fn on_interim(request: &mut Request<OutBody>, to: InterimSender) {
    let seen = AtomicUsize::new(0);
    hyper::ext::on_informational(request, move |head| {
        let status = head.status();
        if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS)
            || seen.fetch_add(1, Relaxed) >= MAX_HEADS
        {
            return;
        }
        let mut headers = head.headers().clone();
        hop::strip_response(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        let _ = to.try_send(InterimHead { status, headers });
    });
}
