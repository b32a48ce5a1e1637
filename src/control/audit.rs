//! The audit log: who changed or tried to change what, from where, when, and what came of it. `GET /v1/audit`.
//!
//! A purge is recorded where all of them come through, whatever asked for it; everything else, and what was refused, by
//! a layer around the admin API. A flood of guesses does not fill it: they are refused with 429 before long, which is not
//! recorded.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::TokenConfig;
use super::journal::Journal;
use super::page::AskedQuery;
use super::problem::{Problem, Told};
use super::{Control, page};
use crate::net::ConnInfo;
use crate::purge;
use crate::telemetry::{Clock, rfc3339};

const FILE: &str = "audit.log";
/// On disk.
const MAX_BYTES: u64 = 16 << 20;
/// In memory, which is what the API shows.
const MAX_RECORDS: usize = 10_000;
/// Of a record's texts.
const MAX_TEXT: usize = 500;
/// Entries of a purge that are named.
const MAX_WHAT: usize = 10;

/// Something that was done or refused.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its place in the order.
    seq: u64,
    /// RFC 3339.
    at: String,
    /// `purge`, `warm`, `reload` and the like.
    pub(super) action: String,
    /// The token's name, `cidr` for an allowed address; `None`: nobody known.
    pub(super) who: Option<String>,
    /// The client's address.
    pub(super) from: Option<IpAddr>,
    /// How it came in.
    pub(super) source: String,
    /// What it concerns; `None`: the node, or it was refused before that was known.
    pub(super) site: Option<String>,
    /// What it names.
    pub(super) what: Vec<String>,
    /// `applied`, `not-durable`, `accepted`, or `refused`.
    pub(super) outcome: String,
    /// Why it was refused; a purge's note.
    pub(super) detail: Option<String>,
    /// By which it is found in other calls.
    pub(super) id: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Audit {
    kept: Mutex<Kept>,
    journal: Journal,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Kept {
    /// The oldest first.
    records: VecDeque<Arc<Record>>,
    last: u64,
}

impl Kept {
    fn push(&mut self, record: Arc<Record>) {
        self.last = self.last.max(record.seq);
        self.records.push_back(record);
        if self.records.len() > MAX_RECORDS {
            self.records.pop_front();
        }
    }
}

impl Audit {
    /// With what earlier processes recorded in the store's directory.
    pub(super) fn open(store: &Path, clock: Clock) -> Self {
        let (journal, lines) = Journal::open(store, FILE, MAX_BYTES);
        let mut kept = Kept::default();
        for line in lines {
            if let Ok(record) = serde_json::from_str::<Record>(&line) {
                kept.push(Arc::new(record));
            }
        }
        Self { kept: Mutex::new(kept), journal, clock }
    }

    /// Adds a record; its number and time are given here, its texts are cut.
    pub(super) fn record(&self, mut record: Record) {
        record.at = rfc3339(self.clock.now());
        record.what.iter_mut().chain(&mut record.detail).for_each(cut);
        let mut kept = self.kept.lock();
        record.seq = kept.last + 1;
        if let Ok(line) = serde_json::to_string(&record) {
            // Under the lock, so that the file has the order of the numbers; it does not wait.
            self.journal.append(line);
        }
        kept.push(Arc::new(record));
    }

    /// A purge that is in effect.
    pub(super) fn purged(&self, purge: &purge::Purge, is_durable: bool) {
        let request = &purge.request;
        let is_of_site = request.site.is_some();
        let mut what: Vec<String> =
            request.selectors.iter().take(MAX_WHAT).map(|s| super::purges::describe(s, is_of_site)).collect();
        if request.selectors.len() > MAX_WHAT {
            what.push(format!("and {} more", request.selectors.len() - MAX_WHAT));
        }
        self.record(Record {
            action: if request.soft { "soft-purge" } else { "purge" }.into(),
            who: Some(request.who.to_string()),
            from: request.from,
            source: request.source.as_str().into(),
            site: request.site.as_deref().map(Into::into),
            what,
            outcome: if is_durable { "applied" } else { "not-durable" }.into(),
            detail: request.note.as_deref().map(Into::into),
            id: Some(purge.id.to_string()),
            ..Record::default()
        });
    }

    /// The newest first, those before `after` that `is_wanted`; and whether there are more.
    fn list(
        &self,
        after: Option<u64>,
        limit: usize,
        is_wanted: impl Fn(&Record) -> bool,
    ) -> (Vec<Arc<Record>>, bool) {
        let kept = self.kept.lock();
        let before = kept.records.iter().rev().filter(|r| after.is_none_or(|after| r.seq < after));
        let mut found: Vec<_> = before.filter(|r| is_wanted(r)).take(limit + 1).cloned().collect();
        let has_more = found.len() > limit;
        found.truncate(limit);
        (found, has_more)
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    site: Option<String>,
    action: Option<String>,
    outcome: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

/// `GET /v1/audit`, the newest first.
pub(super) async fn list(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    headers: HeaderMap,
    asked: AskedQuery<Asked>,
) -> Result<Json<Value>, Problem> {
    let token = control.tokens.authorize(&headers, &conn, "read", control.parts.clock.now())?;
    let asked = page::query(asked)?;
    let (limit, after) = page::read::<u64>(asked.limit.as_deref(), asked.after.as_deref())?;
    let is = |wanted: &Option<String>, found: Option<&str>| wanted.is_none() || wanted.as_deref() == found;
    let (records, has_more) = control.audit.list(after, limit, |record| {
        may_see(&token, record)
            && is(&asked.site, record.site.as_deref())
            && is(&asked.action, Some(&record.action))
            && is(&asked.outcome, Some(&record.outcome))
    });
    let next = records.last().filter(|_| has_more).map(|record| record.seq.to_string());
    Ok(Json(json!({ "items": records, "next": next })))
}

/// What concerns all sites is for tokens of all sites; and everybody may see what they did themselves.
fn may_see(token: &TokenConfig, record: &Record) -> bool {
    token.sites.is_empty()
        || record.site.as_deref().is_some_and(|site| token.covers(site))
        || record.site.is_none() && record.who.as_deref() == Some(&token.name)
}

/// The layer around the admin API: records what changes something, or would have.
pub(super) async fn watch(
    State(control): State<Arc<Control>>,
    Extension(conn): Extension<Arc<ConnInfo>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_change || path == "/v1/explain" {
        return next.run(request).await;
    }
    let method = request.method().clone();
    let has_token = request.headers().contains_key(header::AUTHORIZATION);
    let token = control.tokens.find(request.headers(), control.parts.clock.now());
    let response = next.run(request).await;
    let status = response.status();
    let told = response.extensions().get::<Told>();
    let is_purge = path.contains("purge");
    let is_recorded =
        is_purge && (status.is_success() || told.is_some_and(|told| told.0 == "purge-not-durable"));
    let is_noise = status == StatusCode::TOO_MANY_REQUESTS || token.is_none() && !has_token;
    if !is_recorded && !is_noise {
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        control.audit.record(Record {
            action: action(&path, is_purge),
            // What a token was refused is known to concern its site only if it has one.
            site: token.as_ref().and_then(|token| match token.sites.as_slice() {
                [only] => Some(only.clone()),
                _ => None,
            }),
            who: token.map(|token| token.name.clone()),
            from: Some(conn.peer.ip().to_canonical()),
            source: "api".into(),
            what: vec![format!("{method} {path}")],
            outcome: if status.is_success() { "accepted" } else { "refused" }.into(),
            detail: told.map(|told| format!("{}: {}", told.0, told.1)),
            id: location.and_then(|location| location.rsplit('/').next()).map(Into::into),
            ..Record::default()
        });
    }
    response
}

fn action(path: &str, is_purge: bool) -> String {
    let first = path.trim_start_matches("/v1").split('/').find(|part| !part.is_empty()).unwrap_or("call");
    match first {
        _ if is_purge => "purge".into(),
        "warmups" => "warm".into(),
        other => other.into(),
    }
}
