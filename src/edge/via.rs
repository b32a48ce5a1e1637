//! Via: by which protocol a message came to this node (RFC 9110 §7.6.3).

use http::{HeaderValue, Version};

/// This node's member of the field, for each protocol.
#[derive(Clone, Debug)]
pub(super) struct Via {
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    pub(super) fn new(node: &str) -> Self {
        let member = |protocol: &'static str| {
            let named = HeaderValue::try_from(format!("{protocol} {node}"));
            named.unwrap_or_else(|_| HeaderValue::from_static("1.1 larder"))
        };
        Self { http10: member("1.0"), http11: member("1.1"), http2: member("2") }
    }

    /// What is added to a message that came by this version.
    pub(super) fn of(&self, version: Version) -> HeaderValue {
        match version {
            Version::HTTP_09 | Version::HTTP_10 => self.http10.clone(),
            Version::HTTP_2 => self.http2.clone(),
            _ => self.http11.clone(),
        }
    }
}
