//! One look at the fields of a request, for all that they may change.

use http::{HeaderMap, HeaderValue, header};

use super::claims;
use crate::rules::hop;

/// Which of the fields that change an answer a request has: one look at its names instead of a search
/// for each of them.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "a set")]
pub(super) struct Fields {
    pub(super) has_transfer_encoding: bool,
    pub(super) has_cdn_loop: bool,
    /// Preconditions, `If-Range` among them.
    pub(super) has_conditions: bool,
    pub(super) has_range: bool,
    /// Whether it asks how the response was found.
    pub(super) has_debug: bool,
    /// Whether Connection names more than the connection's end.
    pub(super) has_nominations: bool,
    /// What only a trusted proxy can say of a client, in any spelling.
    pub(super) has_claims: bool,
}

impl Fields {
    /// The same look finds the Host lines: the last, and how many.
    pub(super) fn of(headers: &HeaderMap) -> (Self, Option<&HeaderValue>, usize) {
        let mut fields = Self::default();
        let (mut host, mut hosts) = (None, 0);
        for (name, value) in headers {
            match *name {
                header::HOST => {
                    host = Some(value);
                    hosts += 1;
                }
                header::RANGE => fields.has_range = true,
                header::IF_NONE_MATCH
                | header::IF_MODIFIED_SINCE
                | header::IF_MATCH
                | header::IF_UNMODIFIED_SINCE
                | header::IF_RANGE => fields.has_conditions = true,
                header::TRANSFER_ENCODING => fields.has_transfer_encoding = true,
                header::CONNECTION => fields.has_nominations |= hop::nominates(value),
                _ => {
                    fields.has_cdn_loop |= *name == super::CDN_LOOP;
                    fields.has_debug |= *name == super::LARDER_DEBUG;
                    fields.has_claims |= claims::may_be_one(name);
                }
            }
        }
        (fields, host, hosts)
    }
}
