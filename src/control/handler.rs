//! The bridge from the node's listeners to the admin API's router.

use std::sync::Arc;

use axum::Router;
use http::{Request, Response};
use tower_service::Service;

use crate::net::{ConnInfo, Handler, RequestBody};

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

impl Handler for AdminHandler {
    type Body = axum::body::Body;

    async fn handle(mut self, request: Request<RequestBody>, conn: Arc<ConnInfo>) -> Response<Self::Body> {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(conn);
        match self.router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
