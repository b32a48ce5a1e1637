//! The bridge from the node's listeners to the admin API's router.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use http::{Request, Response};
use tower_service::Service;

use crate::net::{ConnInfo, Handler, Outgoing, RequestBody};

/// A router behind a listener.
#[derive(Clone, Debug)]
pub struct AdminHandler {
    router: Router,
}

impl AdminHandler {
    pub(super) fn new(router: Router) -> Self {
        Self { router }
    }
}

impl Outgoing for axum::body::Body {}

impl Handler for AdminHandler {
    type Body = axum::body::Body;

    type Answer = Pin<Box<dyn Future<Output = Response<Self::Body>> + Send>>;

    fn handle(&self, request: Request<RequestBody>, conn: &Arc<ConnInfo>, _: Instant) -> Self::Answer {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(conn.clone());
        let answered = self.router.clone().call(request);
        Box::pin(async move {
            match answered.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    }
}
