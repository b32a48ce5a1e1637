//! What the data path counts, by site.

use std::fmt;
use std::sync::Arc;

use http::{Method, StatusCode};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::refusal::Reason;
use crate::rules::encoding::Coding;
use crate::telemetry::{Cells, Histogram, encode_cells};

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// From the store, fresh.
    Hit,
    /// From the store, stale.
    HitStale,
    /// From the origin, by this request.
    Miss,
    /// From the store, after the origin's 304.
    Revalidated,
    /// From the origin, by another request's fetch.
    Collapsed,
    /// From the origin, never by way of the cache.
    Pass,
    /// Refused by the node.
    Refused,
    /// The origin gave no answer.
    Error,
}

const OUTCOMES: [Outcome; 8] = [
    Outcome::Hit,
    Outcome::HitStale,
    Outcome::Miss,
    Outcome::Revalidated,
    Outcome::Collapsed,
    Outcome::Pass,
    Outcome::Refused,
    Outcome::Error,
];
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl Outcome {
    /// As in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::HitStale => "hit_stale",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Collapsed => "collapsed",
            Self::Pass => "pass",
            Self::Refused => "refused",
            Self::Error => "error",
        }
    }
}

/// The counters of one site.
#[derive(Debug)]
struct SiteMetrics {
    requests: Cells,
    bytes: Cells,
    duration: Histogram,
    ttfb: Histogram,
}

impl SiteMetrics {
    fn new(workers: usize) -> Self {
        Self {
            requests: Cells::new(workers, METHODS.len() * CLASSES.len() * OUTCOMES.len()),
            bytes: Cells::new(workers, OUTCOMES.len()),
            duration: Histogram::new(workers, OUTCOMES.len()),
            ttfb: Histogram::new(workers, OUTCOMES.len()),
        }
    }
}

/// The counters of all sites, and of the requests that reached none.
#[derive(Debug)]
pub struct EdgeMetrics {
    names: Vec<Arc<str>>,
    /// By site index; the last is for requests without a site.
    sites: Vec<Arc<SiteMetrics>>,
    refused: Arc<Cells>,
    /// Bytes, by coding.
    saved: Arc<Cells>,
}

impl EdgeMetrics {
    /// All at zero.
    pub fn new(workers: usize, names: Vec<Arc<str>>) -> Self {
        let sites = (0..=names.len()).map(|_| Arc::new(SiteMetrics::new(workers))).collect();
        let cells = |width| Arc::new(Cells::new(workers, width));
        Self { names, sites, refused: cells(Reason::ALL.len()), saved: cells(Coding::ALL.len()) }
    }

    /// The same counters for sites that may be others: a name that stays goes on where it is.
    pub(super) fn renamed(&self, workers: usize, names: Vec<Arc<str>>) -> Self {
        let of = |name: &Arc<str>| {
            let known = self.names.iter().zip(&self.sites).find(|(known, _)| *known == name);
            known.map_or_else(|| Arc::new(SiteMetrics::new(workers)), |(_, site)| site.clone())
        };
        let sites = names.iter().map(of).chain(self.sites.last().cloned()).collect();
        Self { names, sites, refused: self.refused.clone(), saved: self.saved.clone() }
    }

    fn site(&self, index: Option<usize>) -> &SiteMetrics {
        let none = self.sites.len() - 1;
        &self.sites[index.map_or(none, |i| i.min(none))]
    }

    /// A response's head is ready.
    #[inline]
    pub(super) fn answered(
        &self,
        site: Option<usize>,
        method: &Method,
        status: StatusCode,
        outcome: Outcome,
        ttfb_us: u64,
    ) {
        let metrics = self.site(site);
        metrics.requests.add(request_cell(method, status, outcome), 1);
        metrics.ttfb.observe_us(outcome as usize, ttfb_us);
    }

    /// A response's body has ended.
    #[inline]
    pub(super) fn finished(&self, site: Option<usize>, outcome: Outcome, bytes: u64, took_us: u64) {
        let metrics = self.site(site);
        metrics.bytes.add(outcome as usize, bytes);
        metrics.duration.observe_us(outcome as usize, took_us);
    }

    /// An encoding at rest is sent in place of what is stored.
    #[inline]
    pub(super) fn saved(&self, coding: Coding, bytes: u64) {
        self.saved.add(coding as usize, bytes);
    }

    pub(super) fn refused(&self, reason: Reason) {
        self.refused.add(reason as usize, 1);
    }

    /// Requests by outcome, over all sites and methods.
    pub fn totals(&self) -> Vec<(&'static str, u64)> {
        let of = |outcome: Outcome| {
            let cells = METHODS.len() * CLASSES.len();
            let sum = |site: &SiteMetrics| -> u64 {
                (0..cells).map(|i| site.requests.sum(i * OUTCOMES.len() + outcome as usize)).sum()
            };
            (outcome.as_str(), self.sites.iter().map(|site| sum(site)).sum())
        };
        OUTCOMES.into_iter().map(of).collect()
    }

    /// Bytes of bodies sent.
    pub fn bytes(&self) -> u64 {
        let all = |site: &SiteMetrics| (0..OUTCOMES.len()).map(|i| site.bytes.sum(i)).sum::<u64>();
        self.sites.iter().map(|site| all(site)).sum()
    }

    fn labelled(&self) -> impl Iterator<Item = (&str, &SiteMetrics)> {
        let names = self.names.iter().map(|name| &**name).chain([""]);
        names.zip(self.sites.iter().map(|site| &**site))
    }
}

fn request_cell(method: &Method, status: StatusCode, outcome: Outcome) -> usize {
    let method = match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::DELETE => 4,
        Method::OPTIONS => 5,
        _ => 6,
    };
    let class = (status.as_u16() / 100).clamp(1, 5) as usize - 1;
    (method * CLASSES.len() + class) * OUTCOMES.len() + outcome as usize
}

impl Collector for EdgeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family =
            encoder.encode_descriptor("requests", "Requests answered", None, MetricType::Counter)?;
        for (site, metrics) in self.labelled() {
            for (m, method) in METHODS.iter().enumerate() {
                for (c, class) in CLASSES.iter().enumerate() {
                    for outcome in OUTCOMES {
                        let cell = (m * CLASSES.len() + c) * OUTCOMES.len() + outcome as usize;
                        let value = metrics.requests.sum(cell);
                        // A series appears with its first request: most combinations never occur.
                        if value > 0 {
                            let labels = [
                                ("site", site),
                                ("method", method),
                                ("status_class", class),
                                ("result", outcome.as_str()),
                            ];
                            encode_cells(&mut family, &labels, value)?;
                        }
                    }
                }
            }
        }
        let mut family =
            encoder.encode_descriptor("response_bytes", "Bytes of bodies sent", None, MetricType::Counter)?;
        for (site, metrics) in self.labelled() {
            for outcome in OUTCOMES {
                let labels = [("site", site), ("result", outcome.as_str())];
                encode_cells(&mut family, &labels, metrics.bytes.sum(outcome as usize))?;
            }
        }
        type Pick = fn(&SiteMetrics) -> &Histogram;
        let histograms: [(&str, &str, Pick); 2] = [
            ("request_duration_seconds", "From the request's head to the body's end", |s| &s.duration),
            ("ttfb_seconds", "From the request's head to the response's head", |s| &s.ttfb),
        ];
        for (name, help, pick) in histograms {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (site, metrics) in self.labelled() {
                for outcome in OUTCOMES {
                    if pick(metrics).count(outcome as usize) > 0 {
                        let labels: &[(&str, &str)] = &[("site", site), ("result", outcome.as_str())];
                        pick(metrics).encode(outcome as usize, family.encode_family(&labels)?)?;
                    }
                }
            }
        }
        let mut family = encoder.encode_descriptor(
            "requests_refused",
            "Requests refused, by reason",
            None,
            MetricType::Counter,
        )?;
        for reason in Reason::ALL {
            let labels = [("reason", reason.as_str())];
            encode_cells(&mut family, &labels, self.refused.sum(reason as usize))?;
        }
        let help = "Bytes that hits were shorter by because an encoding at rest was sent";
        let mut family =
            encoder.encode_descriptor("compress_saved_bytes", help, None, MetricType::Counter)?;
        for coding in Coding::ALL.into_iter().filter(|coding| *coding != Coding::Identity) {
            let labels = [("encoding", coding.as_str())];
            encode_cells(&mut family, &labels, self.saved.sum(coding as usize))?;
        }
        Ok(())
    }
}
