//! Wrong tokens on data listeners are counted as those of the admin API are.

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::super::Control;
use crate::edge::Addressed;

/// Where plugins put a token.
const CREDENTIALS: [&str; 3] = ["fastly-key", "x-auth-key", "authorization"];

impl Control {
    /// Counts a purge that was refused, if it came with a token that is none; an answer when there were too many.
    pub fn refuse_guess(&self, headers: &HeaderMap, to: &Addressed) -> Option<Response<Bytes>> {
        let address = to.client?;
        let now = self.parts.clock.now();
        let mut given = CREDENTIALS.iter().filter_map(|name| headers.get(*name)).peekable();
        let is_token = |value: &http::HeaderValue| self.tokens.find_token(value.as_bytes(), now).is_some();
        // A token that is one and has not the right is no guess.
        if given.peek().is_none() || given.any(is_token) || self.tokens.find(headers, now).is_some() {
            return None;
        }
        match self.tokens.check_failures(address) {
            Err(problem) => Some(problem.json().map(Bytes::from)),
            Ok(()) => {
                self.tokens.count_failure(address);
                None
            }
        }
    }
}
