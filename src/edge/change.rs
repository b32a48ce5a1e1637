//! Requests of a client's own on their way to the origin, and what they change there.
//!
//! An unsafe request that the origin has answered has changed something, whether or not its client is still there to hear
//! of it. So the exchange with the origin is a task of its own, as a fill is, that goes on without the client: until the
//! answer's head, within the origin's timeouts. A body that breaks off with its client ends the exchange.

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode};

use super::admit::Admitted;
use super::interim::{self, relaying};
use super::{Edge, framing, part, trail};
use crate::net::RequestBody;
use crate::origin::{OriginBody, OriginError, on_interim};
use crate::rules::invalidate;
use crate::rules::key::CacheKey;

/// The origin's answer, or why there is none and the status for that.
type Exchanged = Result<Response<OriginBody>, (StatusCode, OriginError)>;

impl Edge {
    /// Sends a request of the client's own, and streams both ways. By the time it is answered, what it changed is
    /// invalidated.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        admitted: &Arc<Admitted>,
        parts: &Parts,
        body: RequestBody,
    ) -> Exchanged {
        let (mut request, fault) = self.to_pass(admitted, parts, body);
        let (sender, relay) = interim::to_client(parts).unzip();
        if let Some(sender) = sender {
            on_interim(&mut request, sender);
        }
        let (edge, admitted, trail) = (self.clone(), admitted.clone(), trail::of(parts).cloned());
        let asked = parts.clone();
        let exchange = Box::pin(async move {
            let answering = admitted.treatment.origin.send(request);
            let answer = trail::timed(trail.as_ref(), answering).await;
            let mut response = answer.map_err(|error| (fault.status(&error), error))?;
            let reject = admitted.treatment.reject_unknown_transfer_coding;
            framing::check(&mut response, reject).map_err(|error| (error.status(), error))?;
            if invalidate::invalidates(&asked.method, response.status()) {
                edge.invalidate(&admitted, &asked, response.headers());
                edge.invalidate_groups(&admitted, response.headers()).await;
            }
            Ok(response)
        });
        if invalidate::is_safe(&parts.method) {
            return relaying(relay, exchange).await;
        }
        relaying(relay, tokio::spawn(exchange)).await.unwrap_or_else(|ended| {
            let error = OriginError::Malformed(format!("the exchange with it ended: {ended}"));
            Err((error.status(), error))
        })
    }

    /// Ends the freshness of what is stored under a key, and of what is under way to be: the whole, its parts, and what is
    /// known of its slices. Those that are stored are used again only when the origin says, from now on, that their tag is
    /// that of the whole.
    pub(super) fn invalidate_key(&self, whole: &CacheKey) {
        for key in [whole, &part::key_of(whole)] {
            self.collapse.outdate(key.hash());
            self.store.changed(key);
        }
        self.collapse.forget_sliced(whole.hash());
    }
}
