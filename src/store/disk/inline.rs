//! Bodies that a response frame carries itself: those that live on the heap.

use std::sync::Arc;

use bytes::Bytes;

use crate::object::{Encoded, Object, Place, Sum};

/// Bodies that a frame carries itself.
#[derive(Default)]
pub(super) struct Inline {
    pub(super) pieces: Vec<Bytes>,
    pub(super) length: u32,
    pub(super) owners: Vec<(Owner, Place)>,
}

/// Whose body a frame carries.
pub(super) enum Owner {
    Object(Arc<Object>),
    Encoded(Arc<Encoded>),
}

impl Owner {
    pub(super) fn inline(&self) -> Option<(u32, Place)> {
        match self {
            Self::Object(object) => object.inline(),
            Self::Encoded(encoded) => encoded.inline(),
        }
    }

    pub(super) fn set_inline(&self, segment: u32, place: Place) {
        match self {
            Self::Object(object) => object.set_inline(segment, place),
            Self::Encoded(encoded) => encoded.set_inline(segment, place),
        }
    }
}

impl Inline {
    /// Adds a body; gives its place from the begin of the frame's body.
    pub(super) fn add(&mut self, chunks: &[Bytes]) -> Place {
        let mut hasher = blake3::Hasher::new();
        let offset = self.length;
        for chunk in chunks {
            hasher.update(chunk);
            self.length += chunk.len() as u32;
            self.pieces.push(chunk.clone());
        }
        let mut sum = Sum::default();
        sum.0.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Place { offset, length: self.length - offset, sum }
    }
}
