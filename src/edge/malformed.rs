//! What is no request at all: hyper could not parse its head, so there is no method, no Host and no site.

use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};

use super::Edge;
use super::body::Body;
use super::record::{Asked, Record};
use super::refusal::{Reason, Refusal};
use crate::net::ConnInfo;
use crate::rules::cache_status::CacheStatus;

impl Edge {
    /// The answer, counted and logged with what is known: the client's address and the reason.
    pub(super) fn malformed(self: &Arc<Self>, status: StatusCode, conn: &ConnInfo) -> Response<Body> {
        let (reason, detail) = match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                let limit = self.config.header_count;
                (Reason::HeadTooLarge, format!("the head is too large, or has more than {limit} fields"))
            }
            StatusCode::URI_TOO_LONG => (Reason::TargetTooLong, "the target is too long".to_owned()),
            _ => (Reason::MalformedHead, "the request line, a field or the framing is malformed".to_owned()),
        };
        let parts = unknown();
        let refusal = Refusal::new(reason, status, detail).closing();
        let (outcome, response) = self.refused(&parts, &refusal, &CacheStatus::default());
        let asked = Asked {
            parts: &parts,
            conn,
            started: Instant::now(),
            client: conn.peer.ip().to_canonical(),
            is_https: conn.is_secure(),
            site: None,
        };
        Record::open(self, &asked, outcome, response)
    }
}

/// Stands for a head in the log: `-` as the method and the host, and no target.
fn unknown() -> Parts {
    let mut parts = Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(b"-").unwrap_or_default();
    parts.uri = Uri::from_static("-");
    parts
}
