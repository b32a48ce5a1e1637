//! What stands in a call's URL: its path and its query, and pages of lists: `?limit=100&after=CURSOR`.

use std::str::FromStr;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use http::StatusCode;

use super::problem::Problem;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// The page that is asked for: how many items, and what it comes after.
pub(super) fn read<C: FromStr>(
    limit: Option<&str>,
    after: Option<&str>,
) -> Result<(usize, Option<C>), Problem> {
    let limit = limit.map_or(Ok(DEFAULT_LIMIT), str::parse).ok();
    let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
    let limit = limit.ok_or_else(|| bad("limit", &format!("a number from 1 to {MAX_LIMIT} is needed")))?;
    let after = after.map(str::parse).transpose();
    Ok((limit, after.map_err(|_| bad("after", "take it from `next` of the page before"))?))
}

/// What a call takes its query as, so that the token is looked at first.
pub(super) type AskedQuery<T> = Result<Query<T>, QueryRejection>;
/// The same of the id in its path.
pub(super) type AskedId = Result<Path<String>, PathRejection>;

/// A query, or what is wrong with it.
pub(super) fn query<T>(asked: AskedQuery<T>) -> Result<T, Problem> {
    let bad = |error: QueryRejection| {
        let detail = error.body_text();
        Problem::new(StatusCode::BAD_REQUEST, "bad-query", format!("query: {detail}")).at("query", detail)
    };
    asked.map(|Query(asked)| asked).map_err(bad)
}

/// The id in a path, or what is wrong with it.
pub(super) fn id(asked: AskedId) -> Result<String, Problem> {
    let bad = |error: PathRejection| {
        let detail = error.body_text();
        Problem::new(StatusCode::BAD_REQUEST, "bad-id", format!("id: {detail}")).at("id", detail)
    };
    asked.map(|Path(id)| id).map_err(bad)
}

fn bad(name: &str, detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-page", format!("{name}: {detail}")).at(name, detail)
}
