//! `Larder-Debug: TOKEN`: how a response was found, for who has the right to read it.
//!
//! The key and the rule stand as parameters in this node's member of `Cache-Status`. Without the right the field is
//! ignored, and it is never forwarded.

use std::fmt;
use std::sync::OnceLock;

use http::header::Entry;
use http::{HeaderMap, HeaderValue, Response};

use super::admit::Admitted;
use super::body::Body;
use super::{CACHE_STATUS, Edge, LARDER_DEBUG};
use crate::rules::cache_status::write_debug;

type Check = Box<dyn Fn(&[u8], &str) -> bool + Send + Sync>;

/// Whether a token may read what concerns a site; nobody may until that is said.
#[derive(Default)]
pub(super) struct DebugRight(OnceLock<Check>);

impl fmt::Debug for DebugRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DebugRight")
    }
}

impl Edge {
    /// Says, once, which tokens may read what concerns which site.
    pub fn let_debug(&self, check: impl Fn(&[u8], &str) -> bool + Send + Sync + 'static) {
        let _ = self.debug_right.0.set(Box::new(check));
    }

    /// The response, with how it was found if the request asks and may.
    #[inline]
    pub(super) fn explained(
        &self,
        admitted: &Admitted,
        request: &HeaderMap,
        mut response: Response<Body>,
    ) -> Response<Body> {
        if admitted.fields.has_debug
            && let Some(token) = request.get(&LARDER_DEBUG)
            && self.debug_right.0.get().is_some_and(|check| check(token.as_bytes(), &admitted.site.name))
        {
            explain(response.headers_mut(), admitted);
        }
        response
    }
}

/// The node's own member is the last one.
fn explain(headers: &mut HeaderMap, admitted: &Admitted) {
    let Entry::Occupied(mut lines) = headers.entry(&CACHE_STATUS) else { return };
    let Some(line) = lines.iter_mut().last() else { return };
    let mut value = line.as_bytes().to_vec();
    write_debug(admitted.key.canonical(), &admitted.treatment.name, &mut value);
    if let Ok(value) = HeaderValue::try_from(value) {
        *line = value;
    }
}
