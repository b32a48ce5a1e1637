//! Content that says what it is: every byte follows from URL and revision, so that a wrong one is seen.
//!
//! Paths begin with the kind of body: `/small/1`, `/large/1`, and `/chunked/1`, whose length nobody
//! announces. Each time the origin gives a whole answer for a path, it is a new revision.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use super::origin::{Origin, Reply, Seen, Step, respond};
use super::random::Random;
use super::response::Response;
use super::{lock, pattern};

/// An origin of such content, and which revisions it has given.
pub struct Revisions {
    pub origin: Origin,
    given: Arc<Mutex<HashMap<String, u64>>>,
}

impl Revisions {
    pub fn start() -> Self {
        let given: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
        let origin = Origin::start();
        let counter = Arc::clone(&given);
        origin.on("/*", move |seen| reply(seen, &counter));
        Self { origin, given }
    }

    /// The revision of a whole answer or a part of one. An error: these bytes were never given for this path.
    pub fn revision(&self, path: &str, response: &Response) -> Result<u64, String> {
        let tag = response.field("etag").unwrap_or_default();
        let revision: u64 = tag
            .strip_prefix("\"r")
            .and_then(|tag| tag.strip_suffix('"')?.parse().ok())
            .ok_or_else(|| format!("{path}: {} with the tag {tag}", response.status))?;
        let newest = lock(&self.given).get(path).copied().unwrap_or(0);
        if revision > newest {
            return Err(format!("{path}: revision {revision}, and {newest} were given"));
        }
        let whole = body(path, revision);
        let expected = match response.status {
            200 => Some(&whole[..]),
            206 => response.field("content-range").and_then(|range| part(&whole, range)),
            _ => None,
        };
        match expected {
            Some(expected) if response.body == expected => Ok(revision),
            expected => {
                let wrong = expected.and_then(|expected| {
                    expected.iter().zip(&response.body).position(|(expected, found)| expected != found)
                });
                Err(format!(
                    "{path}: wrong bytes for revision {revision}: {} bytes with status {}, from offset {wrong:?}: {:?}",
                    response.body.len(),
                    response.status,
                    response.fields
                ))
            }
        }
    }
}

/// The bytes that a `Content-Range` names.
fn part<'a>(whole: &'a [u8], content_range: &str) -> Option<&'a [u8]> {
    let (range, length) = content_range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    (length == whole.len().to_string()).then(|| whole.get(first..=last))?
}

fn seed(path: &str, revision: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (path, revision).hash(&mut hasher);
    hasher.finish()
}

/// What the origin gives as this revision.
pub fn body(path: &str, revision: u64) -> Vec<u8> {
    let seed = seed(path, revision);
    let mut random = Random::new(seed);
    let length = match path.split('/').nth(1) {
        Some("small") => random.within(0..30_000),
        Some("large") => random.within(100_000..1_500_000),
        // Some are small, which shows only when they are complete.
        _ if random.one_in(3) => random.within(0..30_000),
        _ => random.within(30_000..1_000_000),
    };
    let mut body = format!("{path} {revision} ").into_bytes();
    body.extend(pattern(length as usize, seed));
    body
}

fn reply(seen: &Seen, given: &Mutex<HashMap<String, u64>>) -> Reply {
    let path = seen.path();
    let revision = {
        let mut given = lock(given);
        let newest = given.entry(path.to_owned()).or_default();
        let is_current = seen.field("if-none-match").is_some_and(|tag| tag == format!("\"r{newest}\""));
        if is_current && seed(path, *newest).is_multiple_of(3) {
            let tag = format!("\"r{newest}\"");
            return respond(304, &[("Cache-Control", "max-age=6000"), ("ETag", &tag)], "");
        }
        *newest += 1;
        *newest
    };
    let (body, tag) = (body(path, revision), format!("\"r{revision}\""));
    let fields = [("Cache-Control", "max-age=6000"), ("ETag", tag.as_str())];
    if !path.starts_with("/chunked/") {
        return respond(200, &fields, body);
    }
    let mut steps = respond(200, &[fields[0], fields[1], ("Transfer-Encoding", "chunked")], "");
    for piece in body.chunks(40_000) {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        steps.push(Step::Body(chunk));
    }
    steps.push(Step::Body(b"0\r\n\r\n".to_vec()));
    steps
}

#[test]
fn a_wrong_byte_is_seen() {
    let revisions = Revisions::start();
    lock(&revisions.given).insert("/small/1".to_owned(), 2);
    let fields = vec![("ETag".to_owned(), "\"r2\"".to_owned())];
    let mut response = Response { status: 200, fields, body: body("/small/1", 2), ..Response::default() };
    assert_eq!(revisions.revision("/small/1", &response), Ok(2));
    assert!(revisions.revision("/small/2", &response).is_err());
    response.body[7] ^= 1;
    assert!(revisions.revision("/small/1", &response).is_err());
    response.body = body("/small/1", 2)[2..=4].to_vec();
    response.status = 206;
    let range = format!("bytes 2-4/{}", body("/small/1", 2).len());
    response.fields.push(("Content-Range".to_owned(), range));
    assert_eq!(revisions.revision("/small/1", &response), Ok(2));
}
