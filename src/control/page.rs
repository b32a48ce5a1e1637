//! Pages of lists: `?limit=100&after=CURSOR`.

use std::str::FromStr;

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

fn bad(name: &str, detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-page", format!("{name}: {detail}")).at(name, detail)
}
