//! The handler of a data listener: purge methods of who may purge go to the control path, all else to the data path.

use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response, StatusCode};

use crate::control::Control;
use crate::edge::{Answer, Body, LiveEdge};
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
        let allowed = addressed.and_then(|to| Some((self.control.may_purge(&parts.headers, &to)?, to)));
        let Some((who, to)) = allowed else {
            // It says why not.
            return edge.handle(Request::from_parts(parts, body), conn, arrived);
        };
        let answering = self.control.clone().purge_by_method(parts.clone(), to.clone(), who);
        edge.answer_of((parts, to), conn, arrived, answering)
    }
}

impl Handler for Data {
    type Body = Body;
    type Answer = Answer;

    fn handle(&self, request: Request<RequestBody>, conn: &Arc<ConnInfo>, arrived: Instant) -> Answer {
        if request.method().as_str() == "PURGE" {
            return self.purge(request, conn, arrived);
        }
        self.edge.with(|edge| edge.handle(request, conn, arrived))
    }

    fn malformed(&self, status: StatusCode, conn: &ConnInfo) -> Option<Response<Body>> {
        self.edge.with(|edge| Handler::malformed(edge, status, conn))
    }
}
