//! A body on its way into the store.
//!
//! Whether it is stored is decided, and its room reserved, before the first byte is taken. Small bodies
//! collect on the heap and are written with their head when they are complete. Larger ones are written
//! part by part while they come; the writer's queue slows them down, and their origin with them, when
//! the disk is slower.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::Store;
use super::disk::Promise;
use crate::object::{Body, CHUNK_OVERHEAD_BYTES, Charge, Growing, charged_chunk};
use crate::rules::key::KeyHash;

/// A part of a larger body: what is written, checked and handed out at once.
const PART_BYTES: u64 = 256 * 1024;
/// What a chunk is taken to hold when the room for a body's chunks is estimated.
const TYPICAL_CHUNK_BYTES: u64 = 4096;
/// Room in the log is promised in such steps, or of a segment if that is less, while a body's length is
/// unknown.
const PROMISE_BYTES: u64 = 16 * 1024 * 1024;

/// Why a body is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// It is larger than the store takes, or there is no room, or the writer is behind.
    TooLarge,
    /// The disk tier waits for a second request.
    NotAdmitted,
}

#[derive(Debug)]
enum Kind {
    Heap(Vec<Bytes>),
    Log(LogFill),
}

#[derive(Debug)]
struct LogFill {
    growing: Arc<Growing>,
    /// What is not handed to the writer yet.
    batch: Vec<Bytes>,
    batch_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Deposit {
    store: Arc<Store>,
    key: KeyHash,
    kind: Kind,
    received: u64,
    /// What is reserved of the memory budget.
    room: Charge,
    /// Whether the length was known.
    is_sized: bool,
    /// The job that warms it, where it enters the memory tier.
    job: Option<u64>,
    /// Asked once: each question counts a request.
    is_admitted: bool,
    permit: Option<OwnedSemaphorePermit>,
    promises: Vec<Promise>,
}

/// A complete body and the right to write it.
#[derive(Debug)]
pub struct Complete {
    /// The body.
    pub body: Body,
    /// Whether a body on the heap goes to the disk tier.
    pub is_admitted: bool,
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Store {
    /// Room for the body of a response that is about to be fetched.
    pub fn deposit(self: &Arc<Self>, key: KeyHash, length: Option<u64>) -> Result<Deposit, NoRoom> {
        if length.is_some_and(|length| length > self.max_object_bytes) {
            return Err(NoRoom::TooLarge);
        }
        self.deposit_as(key, length, self.tier.admits(key))
    }

    pub(super) fn deposit_as(
        self: &Arc<Self>,
        key: KeyHash,
        length: Option<u64>,
        is_admitted: bool,
    ) -> Result<Deposit, NoRoom> {
        let inline = self.tier.inline_bytes();
        let small = length.unwrap_or(0).min(inline);
        let is_large = length.is_some_and(|length| length > inline);
        if is_large && !is_admitted {
            return Err(NoRoom::NotAdmitted);
        }
        let chunks = small / TYPICAL_CHUNK_BYTES + 1;
        let job = self.wanted_in_memory(key);
        let room = small + chunks * CHUNK_OVERHEAD_BYTES;
        let room = self.budget.reserve_for(job, room).ok_or(NoRoom::TooLarge)?;
        let mut deposit = Deposit {
            store: self.clone(),
            key,
            kind: Kind::Heap(Vec::new()),
            received: 0,
            room,
            is_sized: length.is_some(),
            job,
            is_admitted,
            permit: None,
            promises: Vec::new(),
        };
        if is_large {
            let length = length.unwrap_or(0);
            // Only a look: parts wait for their turn.
            drop(self.tier.queue_room(1).ok_or(NoRoom::TooLarge)?);
            deposit.promises.push(self.tier.promise(length).ok_or(NoRoom::TooLarge)?);
            deposit.kind = Kind::Log(self.log_fill(key));
        } else if is_admitted && self.tier.is_persistent() {
            deposit.permit = self.tier.queue_room(length.unwrap_or(inline));
        }
        Ok(deposit)
    }

    fn log_fill(&self, key: KeyHash) -> LogFill {
        let charge = Charge::new(&self.budget.gauge, 0);
        LogFill { growing: Arc::new(Growing::new(key, charge)), batch: Vec::new(), batch_bytes: 0 }
    }
}

impl Deposit {
    /// The parts that are written, of a body that is larger than a small one.
    pub fn growing(&self) -> Option<&Arc<Growing>> {
        match &self.kind {
            Kind::Heap(_) => None,
            Kind::Log(fill) => Some(&fill.growing),
        }
    }

    /// Takes the next bytes; gives them back charged to the budget. `None`: the body is not stored after
    /// all; what was written stays readable for those who follow it.
    pub async fn push(&mut self, data: &Bytes) -> Option<Bytes> {
        let length = data.len() as u64;
        self.received += length;
        if self.received > self.store.max_object_bytes || !self.has_promise() {
            return None;
        }
        if matches!(self.kind, Kind::Heap(_)) && self.received > self.store.tier.inline_bytes() {
            self.spill().await?;
        }
        match &mut self.kind {
            Kind::Heap(chunks) => {
                let need = length + CHUNK_OVERHEAD_BYTES;
                let budget = &self.store.budget;
                if self.room.bytes() < need && !budget.grow(self.job, &mut self.room, need) {
                    return None;
                }
                let chunk = charged_chunk(data, self.room.split(need));
                chunks.push(chunk.clone());
                Some(chunk)
            }
            Kind::Log(fill) => {
                if fill.growing.has_failed() {
                    return None;
                }
                // Until it is written it takes memory; what the queue holds is bounded, so that this
                // may go over the budget by that much when nothing else can give way.
                let charge = self.store.budget.reserve_for(self.job, length + CHUNK_OVERHEAD_BYTES);
                let gauge = &self.store.budget.gauge;
                let charge = charge.unwrap_or_else(|| Charge::new(gauge, length + CHUNK_OVERHEAD_BYTES));
                let chunk = charged_chunk(data, charge);
                self.write_behind(chunk.clone()).await?;
                Some(chunk)
            }
        }
    }

    /// The body is complete: ready to be stored under its head. `None`: it can't be.
    pub async fn complete(mut self) -> Option<Complete> {
        self.flush().await?;
        let body = match self.kind {
            Kind::Heap(chunks) => Body::new(one_chunk(&self.store, self.job, chunks)),
            Kind::Log(fill) => {
                if !fill.growing.wait_for(self.received).await {
                    return None;
                }
                fill.growing.body()?
            }
        };
        Some(Complete { body, is_admitted: self.permit.is_some(), permit: self.permit })
    }

    /// The length of a body that goes to the log is unknown: room is promised ahead of what comes.
    fn has_promise(&mut self) -> bool {
        if self.is_sized || matches!(self.kind, Kind::Heap(_)) {
            return true;
        }
        let step = PROMISE_BYTES.min(self.store.tier.segment_bytes());
        while self.received > self.promises.len() as u64 * step {
            let Some(promise) = self.store.tier.promise(step) else { return false };
            self.promises.push(promise);
        }
        true
    }

    /// From the heap to the log: it is larger than a small body.
    async fn spill(&mut self) -> Option<()> {
        if self.is_sized || !self.is_admitted {
            return None;
        }
        let fill = self.store.log_fill(self.key);
        let Kind::Heap(chunks) = std::mem::replace(&mut self.kind, Kind::Log(fill)) else { return None };
        self.permit = None;
        if !self.has_promise() {
            return None;
        }
        for chunk in chunks {
            self.write_behind(chunk).await?;
        }
        Some(())
    }

    /// Adds to the batch, and hands each full part to the writer. Parts are cut exactly, wherever chunks end:
    /// whole pages from first to last are what `sendfile` moves best.
    async fn write_behind(&mut self, mut chunk: Bytes) -> Option<()> {
        while let (Kind::Log(fill), false) = (&mut self.kind, chunk.is_empty()) {
            let room = (PART_BYTES - fill.batch_bytes).min(chunk.len() as u64);
            fill.batch.push(chunk.split_to(room as usize));
            fill.batch_bytes += room;
            if fill.batch_bytes == PART_BYTES {
                self.flush().await?;
            }
        }
        Some(())
    }

    async fn flush(&mut self) -> Option<()> {
        let Kind::Log(fill) = &mut self.kind else { return Some(()) };
        if fill.batch.is_empty() {
            return Some(());
        }
        let permit = self.store.tier.wait_for_queue(fill.batch_bytes).await?;
        fill.batch_bytes = 0;
        let batch = std::mem::take(&mut fill.batch);
        self.store.tier.append(&fill.growing, batch, permit);
        Some(())
    }
}

/// A small body in one chunk, which a hit hands on with one slice.
fn one_chunk(store: &Store, job: Option<u64>, chunks: Vec<Bytes>) -> Vec<Bytes> {
    if chunks.len() < 2 {
        return chunks;
    }
    let whole = chunks.concat();
    match store.budget.reserve_for(job, whole.len() as u64 + CHUNK_OVERHEAD_BYTES) {
        Some(charge) => vec![charged_chunk(&whole, charge)],
        None => chunks,
    }
}
