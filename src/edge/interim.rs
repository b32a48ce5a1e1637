//! Interim responses (RFC 9110 §15.2, Early Hints of RFC 8297) on their way from an origin to the client for whose
//! request it was asked. They are neither stored nor merged; who follows a flight, and hits, get none.

use http::request::Parts;
use http::{Request, Response};

use super::trail;
use crate::net::Interim;
use crate::origin::{
    InterimReceiver, InterimSender, Origin, OriginBody, OriginError, OutBody, interim_channel, on_interim,
};

/// The client's end.
pub(super) struct Relay<'a> {
    client: &'a Interim,
    heads: InterimReceiver,
}

/// A way from an origin to the client of this request, if that client takes interim responses.
pub(super) fn to_client(parts: &Parts) -> Option<(InterimSender, Relay<'_>)> {
    let client = parts.extensions.get::<Interim>()?;
    let (sender, heads) = interim_channel();
    Some((sender, Relay { client, heads }))
}

/// Waits for an answer and passes on what comes before it.
pub(super) async fn relaying<T>(relay: Option<Relay<'_>>, answer: impl Future<Output = T>) -> T {
    let Some(Relay { client, mut heads }) = relay else { return answer.await };
    let mut answer = std::pin::pin!(answer);
    let answer = loop {
        tokio::select! {
            biased;
            Some(head) = heads.recv() => client.send(head.status, &head.headers),
            answer = answer.as_mut() => break answer,
        }
    };
    while let Ok(head) = heads.try_recv() {
        client.send(head.status, &head.headers);
    }
    answer
}

/// Sends a request of one client's own.
pub(super) async fn send(
    origin: &Origin,
    mut request: Request<OutBody>,
    parts: &Parts,
) -> Result<Response<OriginBody>, OriginError> {
    let (sender, relay) = to_client(parts).unzip();
    if let Some(sender) = sender {
        on_interim(&mut request, sender);
    }
    // Boxed: each function that takes a future to wait for it has room for it twice.
    let answer = Box::pin(origin.send(request));
    trail::timed(trail::of(parts), relaying(relay, answer)).await
}
