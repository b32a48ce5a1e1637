//! What the tier asks of its writer.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::object::{Growing, Lost};
use crate::rules::key::KeyHash;
use crate::store::Entry;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Op {
    /// Write an entry; it is what stands under its key from now on.
    Put {
        entry: Arc<Entry>,
        replaces: Option<Arc<Entry>>,
        number: u64,
        permit: Option<OwnedSemaphorePermit>,
    },
    /// Write the next part of a body.
    Part {
        growing: Unwritten,
        chunks: Vec<Bytes>,
        permit: OwnedSemaphorePermit,
    },
    /// The key is not stored any more.
    Remove {
        key: KeyHash,
        number: u64,
    },
    /// The key is to be revalidated before its next use.
    MustRevalidate(KeyHash),
    /// What the key has in that segment can't be read.
    Lost {
        key: KeyHash,
        segment: u32,
        told: Option<oneshot::Sender<Result<(), Lost>>>,
    },
    /// Seal what is open and say so; nothing is written afterwards.
    Close(oneshot::Sender<()>),
    /// Seal what is open, write nothing until the other, and say so.
    Pause(oneshot::Sender<()>),
    Resume(oneshot::Sender<std::io::Result<()>>),
}

/// A body whose next part is to be written; it fails when that is dropped, whoever drops it.
#[derive(Debug)]
pub(super) struct Unwritten(pub(super) Option<Arc<Growing>>);

impl Unwritten {
    pub(super) fn new(growing: &Arc<Growing>) -> Self {
        Self(Some(growing.clone()))
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        if let Some(growing) = &self.0 {
            growing.fail();
        }
    }
}
