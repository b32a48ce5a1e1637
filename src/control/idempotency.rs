//! `Idempotency-Key` on every POST of the admin API: the same request under the same key is done once, and its answer given
//! again, for 24 hours.
//!
//! A key is a token's own. What failed is forgotten, so that it can be tried again; another request under the key of one
//! that succeeded is refused. A duplicate waits for the first, which goes on when its client leaves: that is when the same
//! request comes again. Answers are kept over restarts (`journal.rs`), bounded in number and bytes, the oldest go first.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as Turn;

use super::Control;
use super::journal::Journal;
use super::problem::Problem;
use super::purges::dialect::SELECTING_FIELDS;
use crate::rules::time::Millis;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const FILE: &str = "idempotency.log";
const KEPT_MS: i64 = 24 * 3600 * 1000;
const MAX_KEY_BYTES: usize = 255;
/// Of a request's body, as the calls themselves take it.
const MAX_BODY_BYTES: usize = 1 << 20;
/// An answer that is longer is not kept.
const MAX_ANSWER_BYTES: usize = 64 << 10;
const MAX_ANSWERS: usize = 10_000;
const MAX_BYTES: usize = 16 << 20;
/// What a duplicate waits for the first.
const WAIT: Duration = Duration::from_secs(30);

/// Whose key it is, and which.
type Id = [u8; 32];

/// An answer that is given again.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    status: u16,
    content_type: Option<String>,
    location: Option<String>,
    body: String,
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    id: Id,
    request: [u8; 32],
    at: i64,
    answer: Answer,
}

#[derive(Debug)]
struct Slot {
    request: [u8; 32],
    answer: Arc<Turn<Option<Answer>>>,
}

#[derive(Debug, Default)]
struct Kept {
    slots: HashMap<Id, Arc<Slot>>,
    /// Those with an answer, the oldest first, and their bytes.
    done: VecDeque<(i64, Id, usize)>,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Idempotency {
    kept: Mutex<Kept>,
    journal: Journal,
}

impl Idempotency {
    /// With what earlier processes answered.
    pub(super) fn open(store: &Path, now: Millis) -> Self {
        let (journal, lines) = Journal::open(store, FILE, 2 * MAX_BYTES as u64);
        let mut kept = Kept::default();
        for line in lines.iter().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            let bytes = line.answer.body.len();
            let slot = Slot { request: line.request, answer: Arc::new(Turn::new(Some(line.answer))) };
            kept.slots.insert(line.id, Arc::new(slot));
            kept.done.push_back((line.at, line.id, bytes));
            kept.bytes += bytes;
            kept.forget_old(now);
        }
        Self { kept: Mutex::new(kept), journal }
    }

    /// The slot of a key; `None`: it belongs to another request.
    fn slot(&self, id: Id, request: [u8; 32], now: Millis) -> Option<Arc<Slot>> {
        let mut kept = self.kept.lock();
        kept.forget_old(now);
        let new = || Arc::new(Slot { request, answer: Arc::default() });
        let slot = kept.slots.entry(id).or_insert_with(new);
        (slot.request == request).then(|| slot.clone())
    }

    fn is_current(&self, id: Id, slot: &Arc<Slot>) -> bool {
        self.kept.lock().slots.get(&id).is_some_and(|current| Arc::ptr_eq(current, slot))
    }

    fn forget(&self, id: Id, slot: &Arc<Slot>) {
        let mut kept = self.kept.lock();
        if kept.slots.get(&id).is_some_and(|current| Arc::ptr_eq(current, slot)) {
            kept.slots.remove(&id);
        }
    }

    fn done(&self, id: Id, bytes: usize, now: Millis) {
        let mut kept = self.kept.lock();
        kept.done.push_back((now.0, id, bytes));
        kept.bytes += bytes;
        kept.forget_old(now);
    }
}

impl Kept {
    fn forget_old(&mut self, now: Millis) {
        while let Some((at, id, bytes)) = self.done.front().copied() {
            let is_old = now.0.saturating_sub(at) >= KEPT_MS;
            if !is_old && self.done.len() <= MAX_ANSWERS && self.bytes <= MAX_BYTES {
                return;
            }
            self.done.pop_front();
            self.bytes -= bytes;
            self.slots.remove(&id);
        }
    }
}

/// The layer around the admin API.
pub(super) async fn layer(State(control): State<Arc<Control>>, request: Request, next: Next) -> Response {
    match once(control, request, next).await {
        Ok(response) => response,
        Err(problem) => axum::response::IntoResponse::into_response(problem),
    }
}

async fn once(control: Arc<Control>, request: Request, next: Next) -> Result<Response, Problem> {
    if *request.method() != Method::POST || !request.headers().contains_key(&IDEMPOTENCY_KEY) {
        return Ok(next.run(request).await);
    }
    let key = key_of(request.headers())?;
    // Without a token the call itself says no.
    let Some(token) = control.tokens.find_key(request.headers(), control.parts.clock.now()) else {
        return Ok(next.run(request).await);
    };
    let id = *blake3::Hasher::new().update(token.hash.as_bytes()).update(&key).finalize().as_bytes();
    let (parts, body) = request.into_parts();
    let body = super::body::read(&parts.headers, body, MAX_BODY_BYTES).await?;
    let fingerprint = fingerprint(&parts, &body);
    let (slot, turn) = loop {
        let slot = control.idempotency.slot(id, fingerprint, control.parts.clock.now()).ok_or_else(|| {
            let detail = "this Idempotency-Key was used for another request";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail)
        })?;
        let turn = tokio::time::timeout(WAIT, slot.answer.clone().lock_owned()).await.map_err(|_| {
            let detail = "the first request with this Idempotency-Key is still under way";
            let problem = Problem::new(StatusCode::CONFLICT, "idempotency-in-progress", detail);
            problem.with(header::RETRY_AFTER, HeaderValue::from_static("1"))
        })?;
        if let Some(answer) = &*turn {
            return Ok(answer.replay());
        }
        // One that failed was forgotten while this waited for it.
        if control.idempotency.is_current(id, &slot) {
            break (slot, turn);
        }
    };
    let request = Request::from_parts(parts, Body::from(body));
    // It goes on when the client leaves.
    let answered = tokio::spawn(async move {
        let mut turn = turn;
        let response = next.run(request).await;
        let (response, answer) = Answer::of(response).await;
        let idempotency = &control.idempotency;
        match answer {
            None => idempotency.forget(id, &slot),
            Some(answer) => {
                let now = control.parts.clock.now();
                idempotency.done(id, answer.body.len(), now);
                let line = Line { id, request: fingerprint, at: now.0, answer: answer.clone() };
                if let Ok(line) = serde_json::to_string(&line) {
                    idempotency.journal.write(line).await;
                }
                *turn = Some(answer);
            }
        }
        response
    });
    answered.await.map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the call failed; look into the node's log",
        )
    })
}

/// Of all that says what a request asks for: two with the same are one request.
fn fingerprint(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut hasher = blake3::Hasher::new();
    let mut add = |piece: &[u8]| {
        hasher.update(&(piece.len() as u64).to_le_bytes()).update(piece);
    };
    add(target.as_bytes());
    add(body);
    for name in SELECTING_FIELDS {
        for line in parts.headers.get_all(name) {
            add(name.as_bytes());
            add(line.as_bytes());
        }
    }
    *hasher.finalize().as_bytes()
}

fn key_of(headers: &HeaderMap) -> Result<Vec<u8>, Problem> {
    let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, "bad-idempotency-key", detail);
    let mut lines = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let key = lines.next().map(|line| line.as_bytes().trim_ascii().to_vec()).unwrap_or_default();
    if lines.next().is_some() {
        return Err(bad("there is more than one Idempotency-Key"));
    }
    let is_good = (1..=MAX_KEY_BYTES).contains(&key.len()) && key.iter().all(|b| (0x20..0x7f).contains(b));
    if is_good { Ok(key) } else { Err(bad("an Idempotency-Key has 1 to 255 visible characters")) }
}

impl Answer {
    /// An answer that succeeded, to be kept, beside itself.
    async fn of(response: Response) -> (Response, Option<Self>) {
        if !response.status().is_success() {
            return (response, None);
        }
        let (parts, body) = response.into_parts();
        let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
            let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer broke off");
            return (axum::response::IntoResponse::into_response(problem), None);
        };
        let field = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let text = String::from_utf8(body.to_vec()).ok().filter(|text| text.len() <= MAX_ANSWER_BYTES);
        let answer = text.map(|body| Self {
            status: parts.status.as_u16(),
            content_type: field(header::CONTENT_TYPE).map(Into::into),
            location: field(header::LOCATION).map(Into::into),
            body,
        });
        (Response::from_parts(parts, Body::from(body)), answer)
    }

    fn replay(&self) -> Response {
        let mut response = Response::new(Body::from(Bytes::from(self.body.clone())));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let headers = response.headers_mut();
        for (name, value) in [(header::CONTENT_TYPE, &self.content_type), (header::LOCATION, &self.location)]
        {
            if let Some(value) = value.as_ref().and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        headers.insert(&IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        response
    }
}
