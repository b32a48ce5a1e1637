//! What is counted and logged of one answer. It travels with the body and is closed with it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::request::Parts;
use http::{Response, header};

use super::Edge;
use super::admit::Admitted;
use super::body::Body;
use super::config::Site;
use super::metrics::Outcome;
use super::refusal;
use super::trail::{self, Trail};
use crate::net::ConnInfo;
use crate::telemetry::{AccessRecord, rfc3339};

/// See the module.
#[derive(Debug)]
pub(super) struct Record {
    edge: Arc<Edge>,
    site: Option<usize>,
    outcome: Outcome,
    started: Instant,
    bytes: u64,
    is_complete: bool,
    log: Option<Box<AccessRecord>>,
}

/// What a record says of its request.
pub(super) struct Asked<'a> {
    pub(super) parts: &'a Parts,
    pub(super) conn: &'a ConnInfo,
    pub(super) started: Instant,
    pub(super) client: IpAddr,
    pub(super) is_https: bool,
    pub(super) site: Option<&'a Arc<Site>>,
}

impl Record {
    /// Counts the head of an answer and ties the rest of the bookkeeping to its body.
    pub(super) fn open(
        edge: &Arc<Edge>,
        asked: &Asked<'_>,
        outcome: Outcome,
        mut response: Response<Body>,
    ) -> Response<Body> {
        let ttfb_us = asked.started.elapsed().as_micros() as u64;
        let site = asked.site.map(|site| site.index);
        let outcome = refusal::outcome_of(&edge.metrics, &response, outcome);
        if matches!(outcome, Outcome::Refused | Outcome::Error)
            && asked.is_https
            && let Some(hsts) = asked.site.and_then(|site| site.hsts.as_ref())
        {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        edge.metrics.answered(site, &asked.parts.method, response.status(), outcome, ttfb_us);
        let log = edge
            .access_log
            .wants(response.status().as_u16())
            .then(|| Box::new(describe(edge, asked, outcome, response.status().as_u16(), ttfb_us)));
        let record = Self {
            edge: edge.clone(),
            site,
            outcome,
            started: asked.started,
            bytes: 0,
            is_complete: http_body::Body::is_end_stream(response.body()),
            log,
        };
        response.map(|body| body.with(record))
    }

    #[inline]
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    #[inline]
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took_us = self.started.elapsed().as_micros() as u64;
        self.edge.metrics.finished(self.site, self.outcome, self.bytes, took_us);
        if let Some(mut log) = self.log.take() {
            log.bytes = self.bytes;
            log.complete = self.is_complete;
            log.duration_us = took_us;
            self.edge.access_log.write(log);
        }
    }
}

/// What a record says of an admitted request.
pub(super) fn asked_of<'a>(
    admitted: &'a Admitted,
    parts: &'a Parts,
    conn: &'a ConnInfo,
    started: Instant,
) -> Asked<'a> {
    let client = &admitted.client;
    let (client, is_https) = (client.address, client.is_https);
    Asked { parts, conn, started, client, is_https, site: Some(&admitted.site) }
}

fn describe(edge: &Edge, asked: &Asked<'_>, outcome: Outcome, status: u16, ttfb_us: u64) -> AccessRecord {
    let parts = asked.parts;
    let field = |name| {
        let value = parts.headers.get(name).map(|v: &http::HeaderValue| v.as_bytes());
        value.map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default()
    };
    let host = parts.uri.authority().map_or_else(|| field(header::HOST), ToString::to_string);
    AccessRecord {
        time: rfc3339(edge.clock.now()),
        request_id: trail::request_id(&parts.headers).map_or_else(trail::new_id, ToOwned::to_owned),
        client: asked.client,
        site: asked.site.map(|site| site.name.clone()).unwrap_or_default(),
        method: parts.method.to_string(),
        scheme: if asked.is_https { "https" } else { "http" },
        host,
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        protocol: format!("{:?}", parts.version),
        status,
        result: outcome.as_str(),
        tier: trail::of(parts).map_or("", Trail::tier),
        bytes: 0,
        complete: false,
        ttfb_us,
        duration_us: 0,
        origin_us: trail::of(parts).and_then(Trail::origin_us),
        tls: asked.conn.tls,
        user_agent: field(header::USER_AGENT),
        referer: field(header::REFERER),
    }
}
