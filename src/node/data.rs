//! The handler of a data listener: purges of who may purge go to the control path, all else to the data path.

use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response, StatusCode};

use crate::control::Control;
use crate::edge::{Answer, Body, LiveEdge, is_purge_location, is_purge_method};
use crate::net::{ConnInfo, Handler, RequestBody};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Data {
    pub(super) edge: Arc<LiveEdge>,
    pub(super) control: Arc<Control>,
}

impl Data {
    #[cold]
    fn purge(&self, request: Request<RequestBody>, conn: &Arc<ConnInfo>, arrived: Instant) -> Answer {
        let (parts, body) = request.into_parts();
        let edge = self.edge.current();
        let addressed = edge.addressed(&parts, &body, conn);
        let answering = addressed.and_then(|to| Some((self.control.purge_on_data(&parts, &to)?, to)));
        let Some((answering, to)) = answering else {
            // It says why not, or it is no purge at all.
            return edge.handle(Request::from_parts(parts, body), conn, arrived);
        };
        edge.answer_of((parts, to), conn, arrived, answering)
    }
}

impl Handler for Data {
    type Body = Body;
    type Answer = Answer;

    #[inline]
    fn handle(&self, request: Request<RequestBody>, conn: &Arc<ConnInfo>, arrived: Instant) -> Answer {
        if is_purge_method(request.method()) || is_purge_location((request.method(), request.uri())) {
            return self.purge(request, conn, arrived);
        }
        self.edge.with(|edge| edge.handle(request, conn, arrived))
    }

    fn malformed(&self, status: StatusCode, conn: &ConnInfo) -> Option<Response<Body>> {
        self.edge.with(|edge| Handler::malformed(edge, status, conn))
    }
}
