//! What is said of a record after it was written: that it is no longer stored, or is to be revalidated.
//!
//! A mark that can't be written, because the disk is full, is owed: the running process knows, and the next
//! one learns of it only if there is room again before this one ends.

use super::format::{Frame, Kind};
use super::health::Mode;
use super::log::Writer;
use crate::object::Sum;
use crate::rules::key::KeyHash;

impl Writer {
    /// Writes down what becomes of a key's record, so that the next start knows; later if need be.
    pub(super) fn mark(&mut self, key: KeyHash, kind: Kind) {
        if self.tier.is_persistent() && !self.wrote_mark(key, kind) && !self.wrote_mark(key, kind) {
            self.owed.push((key, kind));
        }
    }

    fn wrote_mark(&mut self, key: KeyHash, kind: Kind) -> bool {
        let version = self.tier.versions.next();
        let sum = Sum::of(&[]);
        let frame = Frame { kind, flags: 0, key, meta_bytes: 0, body_bytes: 0, version, sum };
        self.frame(&frame, &[]).is_ok()
    }

    /// Writes the marks that are owed, unless a newer record has made up for them.
    pub(super) fn settle_debts(&mut self) {
        if self.owed.is_empty() || self.tier.health.mode() == Mode::Off {
            return;
        }
        while let Some((key, kind)) = self.owed.pop() {
            let is_due = match kind {
                Kind::MustRevalidate => self.tier.index.get(key).is_some_and(|found| found.must_revalidate),
                _ => self.tier.index.get(key).is_none(),
            };
            if is_due && !self.wrote_mark(key, kind) {
                return self.owed.push((key, kind));
            }
        }
    }

    /// Takes a key out of the index, for good.
    pub(super) fn take_out(&mut self, key: KeyHash) {
        let old = self.tier.index.remove(key);
        self.account_for(old);
        if old.is_some() {
            self.mark(key, Kind::Tombstone);
        }
    }
}
