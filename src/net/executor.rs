//! How the streams of an HTTP/2 connection are run.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

/// Polls a stream's future once, on the spot: an answer that is ready needs no task. What has to wait gets one.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtOnce;

impl<F: Future<Output = ()> + Send + Unpin + 'static> hyper::rt::Executor<F> for AtOnce {
    fn execute(&self, mut future: F) {
        // Nobody is to be woken: the task polls it again, and that waker counts.
        let mut cx = Context::from_waker(Waker::noop());
        if Pin::new(&mut future).poll(&mut cx).is_pending() {
            tokio::spawn(future);
        }
    }
}
