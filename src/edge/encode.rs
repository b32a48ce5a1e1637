//! Encodings at rest: made in the background of what is stored, by a bounded pool at the lowest priority.
//!
//! A job is of one body, and makes what is missing of its encodings one after the other. It begins when the body has been
//! stored, or when somebody asks for it and something is missing: after a restart, or when there was no room before. It
//! holds nothing of the object while it waits. Only the encoding itself happens on the pool's threads; all that takes locks
//! that serving takes too is done on the worker's, so that no thread of low priority ever holds one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Edge;
use super::config::Treatment;
use crate::encode::{Dictionary, Event, Level, Outcome, Place, Work};
use crate::object::{Encodings, Made, Object, Reader};
use crate::rules::encoding::Coding;
use crate::store::{BodyId, Deposit, NewEncoding, NoRoom};

/// Bodies up to here are made as small as can be at once.
const SMALL_BYTES: u64 = 64 * 1024;
/// Larger ones up to here when they are asked for very often.
const HOT_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// What saves less than this is not kept.
const LEAST_SAVING_PERCENT: u64 = 5;
/// What the store is given at a time.
const DEPOSIT_BYTES: usize = 64 * 1024;
/// All encodings of one body.
pub(super) const JOB_TIMEOUT: Duration = Duration::from_secs(900);
/// After a failure, nobody tries again for so long.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What makes encodings of one body.
pub(super) struct Job {
    pub(super) edge: Arc<Edge>,
    pub(super) treatment: Arc<Treatment>,
    pub(super) id: BodyId,
    pub(super) _place: Place,
}

impl Edge {
    /// Has the encodings made that are missing, unless somebody does already.
    #[inline]
    pub(super) fn encode(self: &Arc<Self>, treatment: &Arc<Treatment>, object: &Object) {
        if let Some(encodings) = &object.encodings
            && encodings.claim(treatment.compress.wanted())
        {
            self.launch_encoding(treatment, object, encodings);
        }
    }

    #[cold]
    fn launch_encoding(self: &Arc<Self>, treatment: &Arc<Treatment>, object: &Object, encodings: &Encodings) {
        let mut missing = wanted(treatment, object, encodings).peekable();
        let Some((coding, _)) = missing.peek() else {
            return encodings.release(Some(treatment.compress.wanted()));
        };
        let Some(place) = self.encoder.place() else {
            self.encoder.metrics().ended(*coding, Outcome::Dropped);
            return encodings.release(None);
        };
        let id = BodyId::of(&object.head);
        let job = Job { edge: self.clone(), treatment: treatment.clone(), id, _place: place };
        tokio::spawn(job.run());
    }
}

/// What is to be made of a body, and how.
fn wanted<'a>(
    treatment: &'a Treatment,
    object: &'a Object,
    encodings: &'a Encodings,
) -> impl Iterator<Item = (Coding, Level)> + 'a {
    let offer = object.head.negotiated.map(|negotiated| negotiated.offer);
    let from = offer.map(|offer| offer.coding);
    let is_made = offer.is_some_and(|offer| offer.is_made);
    // Who sends it encoded has clients for whom it is to be decoded: first.
    let identity = from.filter(|from| *from != Coding::Identity).map(|_| Coding::Identity);
    let codings = identity.into_iter().chain(treatment.compress.codings.iter().copied());
    let length = object.body.len();
    let is_hot = encodings.is_hot() && length <= HOT_MAX_BYTES;
    let level = if length <= SMALL_BYTES || is_hot { Level::Best } else { Level::High };
    let is_missing = move |coding: &Coding| match encodings.made(*coding) {
        _ if !is_made => false,
        None => true,
        Some(Made::NotWorth) => false,
        Some(Made::Kept(encoded)) => level == Level::Best && !encoded.is_best,
    };
    let others = codings.filter(move |coding| Some(*coding) != from);
    others.filter(is_missing).map(move |coding| (coding, level))
}

impl Job {
    async fn run(self) {
        let made = {
            let Some(_turn) = self.edge.encoder.turn().await else { return };
            tokio::time::timeout(JOB_TIMEOUT, self.make_missing()).await
        };
        let is_settled = made.unwrap_or(false);
        if !is_settled {
            tokio::time::sleep(RETRY_AFTER).await;
        }
        if let Some(object) = self.object().await
            && let Some(encodings) = &object.encodings
        {
            encodings.release(is_settled.then(|| self.treatment.compress.wanted()));
        }
    }

    /// The object that has the body now.
    pub(super) async fn object(&self) -> Option<Arc<Object>> {
        let entry = self.edge.store.load(self.id.key()).await?;
        entry.variants().iter().find(|object| self.id.names(&object.head)).cloned()
    }

    /// Whether there is nothing left to be tried.
    async fn make_missing(&self) -> bool {
        let mut tried = Vec::new();
        loop {
            let Some(object) = self.object().await.filter(|object| self.edge.survives(object)) else {
                return false;
            };
            let Some(encodings) = &object.encodings else { return true };
            let next =
                wanted(&self.treatment, &object, encodings).find(|(coding, _)| !tried.contains(coding));
            let Some((coding, level)) = next else { return true };
            tried.push(coding);
            let outcome = self.make(&object, (coding, level), None).await;
            self.edge.encoder.metrics().ended(coding, outcome);
            match outcome {
                Outcome::Kept | Outcome::NotWorth => {}
                Outcome::Outdated | Outcome::NoRoom | Outcome::Failed | Outcome::Dropped => return false,
            }
        }
    }

    /// Makes an encoding and adds it to what is stored.
    pub(super) async fn make(
        &self,
        object: &Arc<Object>,
        (to, level): (Coding, Level),
        dictionary: Option<&Dictionary>,
    ) -> Outcome {
        let Some(negotiated) = object.head.negotiated else { return Outcome::Outdated };
        let from = negotiated.offer.coding;
        let length = object.body.len();
        let Some(encodings) = &object.encodings else { return Outcome::Outdated };
        let before = encodings.get(to).filter(|_| dictionary.is_none());
        let at_most = match before {
            _ if dictionary.is_some() => worth(smallest(object, encodings)),
            // Only a shorter one takes its place.
            Some(before) => before.body.len().saturating_sub(1),
            None if from == Coding::Identity => worth(length),
            None => self.treatment.compress.max_bytes,
        };
        let most = self.treatment.compress.max_bytes;
        let work = Work { from, to, level, length, at_most, most, dictionary: dictionary.cloned() };
        let Some((feed, events)) = self.edge.encoder.start(work) else { return Outcome::Failed };
        let deposit = match self.edge.store.deposit_encoding(object.head.key.hash()) {
            Ok(deposit) => deposit,
            Err(NoRoom::TooLarge | NoRoom::NotAdmitted) => return Outcome::NoRoom,
        };
        let ((), taken) = tokio::join!(give(object, feed), take(events, deposit));
        // Bytes that are not there any more read as zeroes.
        if object.body.parts().iter().any(|part| part.pages().is_damaged()) {
            return Outcome::Failed;
        }
        let is_best = level == Level::Best;
        let against = dictionary.map(|dictionary| dictionary.hash);
        let mut new = NewEncoding { coding: to, dictionary: against, sum: [0; 4], is_best, complete: None };
        match taken {
            Ok(Some((complete, finished))) => {
                let is_worth = from == Coding::Identity
                    || to == Coding::Identity
                    || dictionary.is_some()
                    || finished.length <= worth(finished.content_length);
                new.sum = finished.sum;
                new.complete = Some(complete).filter(|_| is_worth);
            }
            Ok(None) => {}
            Err(outcome) => return outcome,
        }
        let outcome = if new.complete.is_some() { Outcome::Kept } else { Outcome::NotWorth };
        // What is no better than what is there leaves that.
        let is_kept = outcome == Outcome::NotWorth && before.is_some();
        if is_kept || self.edge.store.add_encoding(&self.id, new) { outcome } else { Outcome::Outdated }
    }
}

/// The length up to which an encoding is worth its place.
fn worth(length: u64) -> u64 {
    length - length.div_ceil(100 / LEAST_SAVING_PERCENT)
}

/// The length of the shortest that is there: what a delta has to save something of.
fn smallest(object: &Object, encodings: &Encodings) -> u64 {
    let made = encodings.plain().map(|encoded| encoded.body.len());
    made.fold(object.body.len(), u64::min)
}

/// Hands the body to the encoder.
pub(super) async fn give(object: &Object, feed: mpsc::Sender<Option<Bytes>>) {
    let mut reader = Reader::new(object.body.clone(), 0..object.body.len());
    loop {
        let piece = match std::future::poll_fn(|cx| reader.poll_next(cx)).await {
            None => None,
            Some(Ok(piece)) => Some(piece),
            // Dropped without an end, the feed tells that it was cut off.
            Some(Err(_lost)) => return,
        };
        let is_last = piece.is_none();
        if feed.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

/// Takes what comes of it; `None`: it is not worth to be kept.
async fn take(
    mut events: mpsc::Receiver<Event>,
    mut deposit: Deposit,
) -> Result<Option<(crate::store::Complete, crate::encode::Finished)>, Outcome> {
    loop {
        match events.recv().await {
            Some(Event::Piece(mut piece)) => {
                while !piece.is_empty() {
                    let next = piece.split_to(piece.len().min(DEPOSIT_BYTES));
                    deposit.push(&next).await.ok_or(Outcome::NoRoom)?;
                }
            }
            Some(Event::Finished(finished)) => {
                let complete = deposit.complete().await.ok_or(Outcome::NoRoom)?;
                return Ok(Some((complete, finished)));
            }
            Some(Event::NotWorth) => return Ok(None),
            Some(Event::Failed(failure)) => {
                tracing::debug!(%failure, "a body can't be encoded");
                return Ok(None);
            }
            None => return Err(Outcome::Failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::worth;

    #[test]
    fn five_percent_are_to_be_saved() {
        for (length, most) in [(0, 0), (1, 0), (19, 18), (20, 19), (100, 95), (101, 95), (1000, 950)] {
            assert_eq!(worth(length), most, "{length}");
        }
    }
}
