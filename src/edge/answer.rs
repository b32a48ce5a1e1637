//! An answer on its way to the connection: there already, or still to be waited for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Response;

use super::body::Body;

/// A future of a response. A hit's is ready when it is made and costs no allocation; all others are
/// boxed.
pub struct Answer(State);

#[allow(clippy::large_enum_variant, reason = "the large one is the frequent one")]
enum State {
    /// `None` once it was taken.
    Now(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Answer {
    pub(super) fn now(response: Response<Body>) -> Self {
        Self(State::Now(Some(response)))
    }

    pub(super) fn later(response: impl Future<Output = Response<Body>> + Send + 'static) -> Self {
        Self(State::Later(Box::pin(response)))
    }
}

impl Future for Answer {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        match &mut self.0 {
            State::Now(response) => response.take().map_or(Poll::Pending, Poll::Ready),
            State::Later(response) => response.as_mut().poll(cx),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_ready = matches!(self.0, State::Now(_));
        f.debug_struct("Answer").field("is_ready", &is_ready).finish()
    }
}
