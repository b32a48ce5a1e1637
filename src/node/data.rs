//! The handler of a data listener: purge methods of who may purge go to the control path, all else to the data path.

use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response, StatusCode};

use crate::control::Control;
use crate::edge::{Answer, Body, Edge};
use crate::net::{ConnInfo, Handler, RequestBody};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Data {
    pub(super) edge: Arc<Edge>,
    pub(super) control: Arc<Control>,
}

impl Data {
    #[cold]
    fn purge(&self, request: Request<RequestBody>, conn: &Arc<ConnInfo>, arrived: Instant) -> Answer {
        let (parts, body) = request.into_parts();
        let addressed = self.edge.addressed(&parts, &body, conn);
        let who = addressed.as_ref().and_then(|to| self.control.may_purge(&parts.headers, to));
        let (Some(who), Some(to)) = (who, addressed.clone()) else {
            if let Some(to) = addressed
                && let Some(refusal) = self.control.refuse_guess(&parts.headers, &to)
            {
                return self.edge.answer_of((parts, to), conn, arrived, async { refusal });
            }
            // It says why not.
            return self.edge.handle(Request::from_parts(parts, body), conn, arrived);
        };
        let answering = self.control.clone().purge_by_method(parts.clone(), to.clone(), who);
        self.edge.answer_of((parts, to), conn, arrived, answering)
    }
}

impl Handler for Data {
    type Body = Body;
    type Answer = Answer;

    fn handle(&self, request: Request<RequestBody>, conn: &Arc<ConnInfo>, arrived: Instant) -> Answer {
        if request.method().as_str() == "PURGE" {
            return self.purge(request, conn, arrived);
        }
        self.edge.handle(request, conn, arrived)
    }

    fn malformed(&self, status: StatusCode, conn: &ConnInfo) -> Option<Response<Body>> {
        Handler::malformed(&self.edge, status, conn)
    }
}
