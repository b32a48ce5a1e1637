//! Why an origin gave no answer, and what that is in HTTP.

use std::sync::Arc;

use http::StatusCode;

/// Why there is no response, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Its name has no address.
    #[error("the origin's name can't be resolved: {0}")]
    Dns(std::io::Error),
    /// TCP: refused, unreachable.
    #[error("the origin can't be reached: {0}")]
    Connect(std::io::Error),
    /// TCP and TLS took too long.
    #[error("the connection to the origin took too long")]
    ConnectTimeout,
    /// Connections to it failed a moment ago.
    #[error("the origin is left alone for a moment: {why}")]
    Down {
        /// What they failed of.
        why: Arc<str>,
        /// The status for that …
        status: StatusCode,
        /// … and the error type of RFC 9209.
        word: &'static str,
    },
    /// The handshake failed, or the certificate is not valid.
    #[error("TLS with the origin failed: {0}")]
    Tls(String),
    /// No head in time.
    #[error("the origin did not answer in time")]
    FirstByteTimeout,
    /// The body stopped.
    #[error("the origin stopped in the middle of its answer")]
    BetweenBytesTimeout,
    /// It closed before the head.
    #[error("the origin closed the connection without an answer: {0}")]
    Closed(hyper::Error),
    /// It closed, or broke the framing, in the body.
    #[error("the origin's answer broke off: {0}")]
    Broken(hyper::Error),
    /// What it sent is not HTTP.
    #[error("the origin's answer is malformed: {0}")]
    Malformed(String),
    /// Too many requests wait for it.
    #[error("too many requests wait for the origin")]
    QueueFull,
    /// Too many fetches for the cache are under way.
    #[error("too many fetches are under way")]
    TooManyFills,
    /// A fetch for the cache took too long as a whole.
    #[error("the fetch took too long")]
    FillTimeout,
    /// No connection became free in time.
    #[error("no connection to the origin became free in time")]
    QueueTimeout,
    /// The client's body could not be read to its end.
    #[error("the request's body could not be sent: {0}")]
    RequestBody(String),
    /// A file could not be read.
    #[error("the file can't be read: {0}")]
    File(std::io::Error),
}

impl OriginError {
    /// The status the client gets.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::BetweenBytesTimeout | Self::FillTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::QueueFull | Self::QueueTimeout | Self::TooManyFills => StatusCode::SERVICE_UNAVAILABLE,
            Self::RequestBody(_) => StatusCode::BAD_REQUEST,
            Self::Down { status, .. } => *status,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// The error type of RFC 9209 §2.3.
    pub fn proxy_status(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns_error",
            Self::Connect(error) => match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection_refused",
                _ => "destination_ip_unroutable",
            },
            Self::ConnectTimeout => "connection_timeout",
            Self::Tls(_) => "tls_protocol_error",
            Self::FirstByteTimeout | Self::FillTimeout => "http_response_timeout",
            Self::BetweenBytesTimeout => "connection_read_timeout",
            Self::Closed(_) => "connection_terminated",
            Self::Broken(_) => "http_response_incomplete",
            Self::Malformed(_) => "http_protocol_error",
            Self::QueueFull | Self::QueueTimeout | Self::TooManyFills => "connection_limit_reached",
            Self::RequestBody(_) => "http_request_error",
            Self::Down { word, .. } => word,
            Self::File(_) => "destination_unavailable",
        }
    }

    /// A word for metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::BetweenBytesTimeout | Self::FillTimeout => {
                "timeout"
            }
            Self::QueueFull | Self::QueueTimeout | Self::TooManyFills => "shed",
            Self::Dns(_) | Self::Connect(_) | Self::Tls(_) => "connect_error",
            Self::Down { .. } => "down",
            Self::RequestBody(_) => "client_error",
            _ => "broken",
        }
    }
}
