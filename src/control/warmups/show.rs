//! Jobs as JSON.

use serde_json::{Value, json};

use super::job::{Job, Progress, shown};
use super::record::Outcome;
use crate::rules::time::Millis;

/// Rows of one page.
pub(super) struct Rows {
    pub(super) items: Vec<Value>,
    /// The URL after which there are more.
    pub(super) next: Option<usize>,
}

/// The whole job, but for its URLs.
pub(super) fn job(job: &Job, is_durable: bool) -> Value {
    let (spec, until) = (&job.spec, job.held_until());
    let progress = job.progress.lock();
    let outcomes: serde_json::Map<String, Value> =
        Outcome::ALL.iter().map(|o| (o.as_str().to_owned(), progress.count(*o).into())).collect();
    let by = progress.ended_by.as_ref().map(|(by, from)| json!({ "who": by, "from": from }));
    json!({
        "id": spec.id,
        "state": progress.state.as_str(),
        "total": spec.urls.len(),
        "done": progress.done(),
        "failed": progress.count(Outcome::Failed),
        "outcomes": outcomes,
        "requests": {
            "total": progress.replies.len(),
            "done": progress.requests,
            "failed": progress.failed_requests,
        },
        "bytes": progress.bytes,
        "rate": (progress.rate() * 10.0).round() / 10.0,
        "seconds_left": progress.seconds_left(spec.rate),
        "seconds": progress.ran().as_millis() as f64 / 1000.0,
        "site": spec.site,
        "sites": spec.sites,
        "sitemap": spec.sitemap,
        "encodings": spec.encodings,
        "headers": spec.headers.len(),
        "limits": { "rate": spec.rate, "concurrency": spec.concurrency },
        "refresh": spec.refresh,
        "hold_seconds": spec.hold_secs,
        "held_until": shown(until),
        "durable": is_durable,
        "who": spec.who,
        "from": spec.from,
        "source": spec.source,
        "created_at": shown(Some(Millis(spec.created_ms))),
        "started_at": shown(progress.started),
        "ended_at": shown(progress.ended),
        "cancelled_by": by,
    })
}

/// For the node's status.
pub(super) fn in_short(job: &Job) -> Value {
    let progress = job.progress.lock();
    json!({
        "id": job.spec.id,
        "state": progress.state.as_str(),
        "total": job.spec.urls.len(),
        "done": progress.done(),
        "failed": progress.count(Outcome::Failed),
        "rate": (progress.rate() * 10.0).round() / 10.0,
        "seconds_left": progress.seconds_left(job.spec.rate),
    })
}

/// URLs from the one with number `from` on, with what came of them.
pub(super) fn urls(job: &Job, wanted: Wanted, from: usize, limit: usize) -> Rows {
    let progress = job.progress.lock();
    let mut items = Vec::new();
    for index in from..job.spec.urls.len() {
        let outcome = progress.outcome(&job.spec, index);
        if !wanted.is(outcome) {
            continue;
        }
        if items.len() == limit {
            return Rows { items, next: Some(index) };
        }
        items.push(url(job, &progress, index, outcome));
    }
    Rows { items, next: None }
}

fn url(job: &Job, progress: &Progress, index: usize, outcome: Option<Outcome>) -> Value {
    let spec = &job.spec;
    let first = index * spec.fold();
    let replies = || (first..first + spec.fold()).filter_map(|n| Some((n, progress.replies[n].as_ref()?)));
    let why = replies().find(|(_, reply)| Some(reply.outcome) == outcome && reply.reason.is_some());
    let reason = why.and_then(|(_, reply)| reply.reason.as_deref());
    let requests = replies().map(|(n, reply)| {
        json!({
            "encoding": spec.encodings[(n - first) / spec.headers.len()],
            "headers": (n - first) % spec.headers.len(),
            "outcome": reply.outcome.as_str(),
            "reason": reply.reason,
            "status": (reply.status > 0).then_some(reply.status),
            "content_encoding": reply.coding,
            "bytes": reply.bytes,
            "attempts": reply.attempts,
        })
    });
    json!({
        "url": spec.urls[index],
        "outcome": outcome.map_or("waiting", Outcome::as_str),
        "reason": reason,
        "requests": requests.collect::<Vec<_>>(),
    })
}

/// Which URLs are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Waiting,
    Only(Outcome),
}

impl Wanted {
    /// From the parameter; `None`: it is no outcome.
    pub(super) fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("") => Some(Self::All),
            Some("waiting") => Some(Self::Waiting),
            Some(text) => Outcome::ALL.into_iter().find(|o| o.as_str() == text).map(Self::Only),
        }
    }

    fn is(self, outcome: Option<Outcome>) -> bool {
        match self {
            Self::All => true,
            Self::Waiting => outcome.is_none(),
            Self::Only(wanted) => outcome == Some(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::tests::{reply, spec};
    use super::*;

    #[test]
    fn urls_by_outcome_in_pages() {
        let all = Job::new(spec(5, &["br", "gzip"]));
        for (n, outcome) in
            [(0, Outcome::Stored), (1, Outcome::Failed), (2, Outcome::Stored), (8, Outcome::Failed)]
        {
            all.answered(n, reply(outcome));
        }
        let names = |rows: &Rows| rows.items.iter().map(|row| row["url"].clone()).collect::<Vec<_>>();
        let rows = urls(&all, Wanted::All, 0, 2);
        assert_eq!((names(&rows).len(), rows.next), (2, Some(2)));
        assert_eq!(rows.items[0]["outcome"], "failed");
        assert_eq!(rows.items[0]["requests"][1]["encoding"], "gzip");
        assert_eq!(rows.items[1]["outcome"], "waiting");
        let rows = urls(&all, Wanted::Only(Outcome::Failed), 0, 10);
        assert_eq!((names(&rows), rows.next), (vec!["http://a.example/0".into()], None));
        assert_eq!(urls(&all, Wanted::Waiting, 0, 10).items.len(), 4);
        assert_eq!(Wanted::parse(Some("lost")), None);
    }
}
