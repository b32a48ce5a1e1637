//! Compression Dictionary Transport (RFC 9842), `site.compress.dictionaries`: who has an older version of something gets a
//! new one as the difference.
//!
//! A response with `Use-As-Dictionary` is kept as a dictionary, beside what is stored of it: under a key of its own, of
//! its scheme, host and SHA-256, so that it is there when its URL has a new version or was purged. It is never served. A
//! purge of its host, site or all takes it away; else it leaves when nobody asks for it any more, as all that is stored.
//! Who says to have it (`Available-Dictionary`) gets what is ready, and has `dcb` and `dcz` made in the background: one
//! body is kept in two codings for each of four dictionaries at most, where that saves 5 % of the smallest other encoding.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::Edge;
use super::config::{PathPattern, Treatment};
use super::encode::{JOB_TIMEOUT, Job, RETRY_AFTER, give};
use crate::encode::{Dictionary, Event, Level, Outcome, Place, Work};
use crate::object::{Encodings, Head, Object};
use crate::region;
use crate::rules::dictionary::{self, DictionaryHash, USE_AS_DICTIONARY};
use crate::rules::encoding::{self, Coding};
use crate::rules::key::CacheKey;
use crate::rules::vary::VaryRule;
use crate::store::BodyId;

/// Smaller dictionaries save nothing, larger ones and larger bodies take too much memory while they are encoded.
const DICTIONARY_BYTES: std::ops::RangeInclusive<u64> = 256..=8 * 1024 * 1024;
/// A body and its dictionary together up to here are made as small as can be.
const SMALL_BYTES: u64 = 1024 * 1024;
/// How long a delta waits for the other encodings of its body, and how often it looks for them.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// What the store is given at a time.
const DEPOSIT_BYTES: usize = 64 * 1024;
/// A dictionary has a URL that nobody asks for, so that no purge of a URL is about it.
const KEY_PATH: &str = "/.larder/dictionaries";

impl Edge {
    /// Keeps a response that has just been stored as a dictionary, if it is meant to be one.
    pub(super) fn keep_dictionary(self: &Arc<Self>, treatment: &Arc<Treatment>, object: &Arc<Object>) {
        if treatment.compress.deltas().next().is_none()
            || object.head.status != StatusCode::OK
            || !DICTIONARY_BYTES.contains(&object.body.len())
        {
            return;
        }
        let Some(said) = said(treatment, object) else { return };
        let Some(place) = self.encoder.place() else { return };
        let (edge, treatment, object) = (self.clone(), treatment.clone(), object.clone());
        tokio::spawn(async move {
            if edge.dictionary_of(&treatment, &object, said, place).await.is_none() {
                tracing::debug!(url = object.head.key.canonical(), "no dictionary could be made of it");
            }
        });
    }

    async fn dictionary_of(
        self: &Arc<Self>,
        treatment: &Treatment,
        object: &Arc<Object>,
        said: HeaderMap,
        _place: Place,
    ) -> Option<()> {
        let _turn = self.encoder.turn().await?;
        let from = Coding::of(&object.head.headers)?;
        let length = object.body.len();
        let work = Work {
            from,
            to: Coding::Identity,
            level: Level::High,
            length,
            at_most: *DICTIONARY_BYTES.end(),
            most: treatment.compress.max_bytes,
            dictionary: None,
        };
        let (feed, events) = self.encoder.start(work)?;
        let ((), pieces) = tokio::join!(give(object, feed), collect(events));
        let dictionary = dictionary_from(pieces?).await?;
        if object.body.parts().iter().any(|part| part.pages().is_damaged()) || !dictionary.is_raw() {
            return None;
        }
        let key = key_of(&object.head.key, dictionary.hash)?;
        if self.store.load(&key).await.is_some() {
            return Some(());
        }
        let length = dictionary.bytes.len() as u64;
        let mut deposit = self.store.deposit(key.hash(), Some(length)).ok()?;
        let mut rest = dictionary.bytes.clone();
        while !rest.is_empty() {
            deposit.push(&rest.split_to(rest.len().min(DEPOSIT_BYTES))).await?;
        }
        let mut complete = deposit.complete().await?;
        let mut headers = said;
        headers.insert(header::CONTENT_LENGTH, length.into());
        let rule = VaryRule::default();
        let selecting = rule.key(&HeaderMap::new());
        let freshness = object.head.freshness.clone();
        let mut head = Head::new(key, StatusCode::OK, headers, (rule, selecting), freshness);
        head.version = self.store.version();
        (head.generation, head.as_of) = (head.version, object.head.as_of);
        let body = Arc::new(std::mem::take(&mut complete.body));
        let kept = Arc::new(Object::new(Arc::new(head), body, self.store.gauge()));
        self.store.insert(kept, 1, complete);
        Some(())
    }

    /// Has a body encoded against the dictionary that a client has, unless that was done or tried before.
    pub(super) fn encode_against(
        self: &Arc<Self>,
        treatment: &Arc<Treatment>,
        object: &Object,
        request: &HeaderMap,
    ) {
        let is_made = object.head.negotiated.is_some_and(|negotiated| negotiated.offer.is_made);
        let is_wanted = is_made && treatment.compress.dictionaries;
        let Some(encodings) = object.encodings.as_ref().filter(|_| is_wanted) else { return };
        let Some(hash) = dictionary::available(request) else { return };
        let wanted = wanted(treatment, encodings, request, hash);
        if wanted.is_empty() || !encodings.has_room() || !DICTIONARY_BYTES.contains(&object.body.len()) {
            return;
        }
        let Some(key) = key_of(&object.head.key, hash) else { return };
        let may_be_there = self.store.get(&key).is_some() || self.store.may_load(&key);
        if !may_be_there || !encodings.claim_delta() {
            return;
        }
        let Some(place) = self.encoder.place() else {
            self.encoder.metrics().ended(wanted[0], Outcome::Dropped);
            return encodings.release_delta();
        };
        let encodings = encodings.clone();
        let id = BodyId::of(&object.head);
        let job = Job { edge: self.clone(), treatment: treatment.clone(), id, _place: place };
        tokio::spawn(async move {
            // What a delta has to be smaller than.
            let others = async {
                while encodings.is_claimed() {
                    tokio::time::sleep(POLL).await;
                }
            };
            let _ = tokio::time::timeout(PATIENCE, others).await;
            let made = tokio::time::timeout(JOB_TIMEOUT, job.run_against(&key, &wanted)).await;
            if !made.unwrap_or(false) {
                tokio::time::sleep(RETRY_AFTER).await;
            }
            encodings.release_delta();
        });
    }

    /// A dictionary that is kept, for a path.
    async fn dictionary(&self, key: &CacheKey, path: &str) -> Option<Dictionary> {
        let entry = self.store.load(key).await?;
        let kept = entry.variants().first().filter(|kept| self.survives(kept))?;
        if !is_for(&dictionary::matched(&kept.head.headers)?, path) {
            return None;
        }
        self.store.promote(key.hash());
        let mut reader = crate::object::Reader::new(kept.body.clone(), 0..kept.body.len());
        let mut pieces = Vec::new();
        while let Some(piece) = std::future::poll_fn(|cx| reader.poll_next(cx)).await {
            pieces.push(piece.ok()?);
        }
        let dictionary = dictionary_from(pieces).await?;
        // What was damaged on the way has another hash, and is in nobody's hands.
        (key_of(key, dictionary.hash)? == *key).then_some(dictionary)
    }
}

impl Job {
    /// Whether there is nothing left to be tried.
    async fn run_against(self, key: &CacheKey, wanted: &[Coding]) -> bool {
        let Some(_turn) = self.edge.encoder.turn().await else { return false };
        let Some(dictionary) = self.edge.dictionary(key, path_of(self.id.key())).await else { return false };
        let mut is_settled = true;
        for coding in wanted {
            let object = self.object().await.filter(|object| self.edge.survives(object));
            let Some(object) = object else { return false };
            let size = object.body.len() + dictionary.bytes.len() as u64;
            let level = if size <= SMALL_BYTES { Level::Best } else { Level::High };
            let outcome = self.make(&object, (*coding, level), Some(&dictionary)).await;
            self.edge.encoder.metrics().ended(*coding, outcome);
            is_settled &= matches!(outcome, Outcome::Kept | Outcome::NotWorth);
        }
        is_settled
    }
}

/// What clients are told of a response's use as a dictionary, by the origin or by the site; `None`: it is none.
fn said(treatment: &Treatment, object: &Object) -> Option<HeaderMap> {
    let lines = object.head.headers.get_all(USE_AS_DICTIONARY).iter().cloned();
    let mut said: HeaderMap = lines.map(|line| (USE_AS_DICTIONARY, line)).collect();
    treatment.response_headers.apply(&mut said);
    let others: Vec<_> = said.keys().filter(|name| **name != USE_AS_DICTIONARY).cloned().collect();
    for name in others {
        said.remove(name);
    }
    dictionary::matched(&said).map(|_| said)
}

/// What a client takes, and nobody has tried to make.
fn wanted(
    treatment: &Treatment,
    encodings: &Encodings,
    request: &HeaderMap,
    hash: DictionaryHash,
) -> Vec<Coding> {
    let accepted = encoding::accepted(request);
    let is_wanted =
        |coding: &Coding| accepted.weight(*coding) > 0 && encodings.delta(hash, *coding).is_none();
    treatment.compress.deltas().filter(is_wanted).collect()
}

/// The key of a dictionary for the origin (RFC 6454) of another key: nobody else's dictionary is used.
fn key_of(of: &CacheKey, hash: DictionaryHash) -> Option<CacheKey> {
    let canonical = of.canonical();
    let host_at = canonical.find("://")? + "://".len();
    let path_at = host_at + canonical[host_at..].find('/')?;
    let url = format!("{}{KEY_PATH}", &canonical[..path_at]);
    Some(CacheKey::from_canonical(url.into_boxed_str()).part(&hash.to_hex()))
}

fn path_of(key: &CacheKey) -> &str {
    let rest = key.canonical().split_once("://").map_or("", |(_, rest)| rest);
    let target = &rest[rest.find('/').unwrap_or(rest.len())..];
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// Whether a dictionary's pattern names a path. The client has matched it already; what is more than a path with `*` is
/// left to it.
fn is_for(pattern: &str, path: &str) -> bool {
    let is_plain = pattern.starts_with('/') && !pattern.contains(['?', ':', '(', '{', '\\', '#']);
    !is_plain || PathPattern::new(pattern).matches(path)
}

/// All that comes out of a decoder.
async fn collect(mut events: tokio::sync::mpsc::Receiver<Event>) -> Option<Vec<Bytes>> {
    let mut pieces = Vec::new();
    loop {
        match events.recv().await? {
            Event::Piece(piece) => pieces.push(piece),
            Event::Finished(_) => return Some(pieces),
            Event::NotWorth | Event::Failed(_) => return None,
        }
    }
}

/// One run of bytes and its hash. `None`: they are not there any more.
async fn dictionary_from(pieces: Vec<Bytes>) -> Option<Dictionary> {
    let whole = move || region::guarded(|| Dictionary::of(pieces.concat().into())).ok();
    tokio::task::spawn_blocking(whole).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::key::Scheme;

    #[test]
    fn a_dictionary_belongs_to_an_origin() {
        let key = |scheme, host, path| CacheKey::new(scheme, host, path, Some("a=/b"));
        let of = |key: &CacheKey| key_of(key, DictionaryHash([7; 32])).unwrap();
        let one = of(&key(Scheme::Https, "a.example", "/js/a.js"));
        assert_eq!(one, of(&key(Scheme::Https, "a.example", "/")));
        assert_eq!(one, of(&one), "again");
        assert_ne!(one, of(&key(Scheme::Http, "a.example", "/")));
        assert_ne!(one, of(&key(Scheme::Https, "b.example", "/")));
        assert_eq!(path_of(&key(Scheme::Https, "a.example", "/js/a.js")), "/js/a.js");
    }

    #[test]
    fn patterns_name_paths() {
        let rows = [
            ("/js/app.*.js", "/js/app.2.js", true),
            ("/js/app.*.js", "/css/app.css", false),
            ("/*", "/anything", true),
            ("/js/:name", "/css/x", true),
            ("https://a.example/*", "/x", true),
        ];
        for (pattern, path, expected) in rows {
            assert_eq!(is_for(pattern, path), expected, "{pattern} {path}");
        }
    }
}
