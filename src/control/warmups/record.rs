//! What is written down of a job: what was asked for, and what happened, event by event.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::edge::{Warm, Warmed};

/// Of a reason.
const MAX_REASON_BYTES: usize = 200;

/// What is to be warmed and how; kept as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spec {
    /// Jobs count up.
    pub(super) seq: u64,
    pub(super) id: String,
    pub(super) site: Option<String>,
    /// The sites of its URLs.
    pub(super) sites: Vec<String>,
    pub(super) sitemap: Option<String>,
    pub(super) encodings: Vec<String>,
    pub(super) headers: Vec<Vec<(String, String)>>,
    /// Requests a second.
    pub(super) rate: f64,
    pub(super) concurrency: usize,
    pub(super) refresh: bool,
    pub(super) hold_secs: Option<u64>,
    pub(super) who: String,
    pub(super) from: Option<IpAddr>,
    pub(super) source: String,
    pub(super) created_ms: i64,
    pub(super) urls: Vec<Box<str>>,
}

impl Spec {
    /// Requests for each URL.
    pub(super) fn fold(&self) -> usize {
        self.encodings.len() * self.headers.len()
    }

    /// What it takes in memory, about.
    pub(super) fn weight(&self) -> u64 {
        let urls: usize = self.urls.iter().map(|url| url.len() + size_of::<Box<str>>()).sum();
        (urls + self.urls.len() * self.fold() * size_of::<Option<Reply>>()) as u64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Queued,
    Running,
    Done,
    Cancelled,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

/// What came of a request, the better ones first: a URL's outcome is its worst request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Fresh,
    Stored,
    Uncacheable,
    Failed,
}

impl Outcome {
    pub(super) const ALL: [Self; 4] = [Self::Stored, Self::Fresh, Self::Uncacheable, Self::Failed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stored => "stored",
            Self::Uncacheable => "uncacheable",
            Self::Failed => "failed",
        }
    }

    fn of(warm: Warm) -> Self {
        match warm {
            Warm::Stored => Self::Stored,
            Warm::Fresh => Self::Fresh,
            Warm::Uncacheable => Self::Uncacheable,
            Warm::Failed => Self::Failed,
        }
    }
}

/// What came of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    #[serde(rename = "o")]
    pub(super) outcome: Outcome,
    #[serde(rename = "s")]
    pub(super) status: u16,
    #[serde(rename = "a")]
    pub(super) attempts: u8,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(super) coding: Option<Box<str>>,
    #[serde(rename = "b")]
    pub(super) bytes: u64,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<Box<str>>,
    /// The last purge that was applied when it was held.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub(super) held_as_of: Option<u64>,
}

impl Reply {
    pub(super) fn new(warmed: Warmed, attempts: u8) -> Self {
        let shortened = |reason: &str| -> Box<str> {
            let fits = |(at, c): &(usize, char)| at + c.len_utf8() <= MAX_REASON_BYTES;
            let end = reason.char_indices().take_while(fits).last().map_or(0, |(at, c)| at + c.len_utf8());
            reason[..end].into()
        };
        Self {
            outcome: Outcome::of(warmed.outcome),
            status: warmed.status,
            attempts,
            coding: warmed.coding.map(Into::into),
            bytes: warmed.bytes,
            reason: warmed.reason.as_deref().map(shortened),
            held_as_of: None,
        }
    }
}

/// What is written down of a job after its [`Spec`], a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Event {
    /// It was begun.
    Started { at: i64 },
    /// Request `n` was answered; `t` is the time it ran until then, in milliseconds.
    Reply { n: usize, t: u64, reply: Reply },
    /// It is over.
    Ended { at: i64, state: State, by: Option<String>, from: Option<IpAddr> },
    /// It was done, and what it held is held no longer.
    Released { by: String, from: Option<IpAddr> },
}
