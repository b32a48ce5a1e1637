//! The end of a fill: what was received is stored, and its encodings are made.

use std::sync::Arc;

use http::StatusCode;

use super::fill::Fill;
use super::respond::content_length;
use crate::object::{Head, Object};
use crate::store::Deposit;

impl Fill {
    /// Stores what was received.
    pub(super) async fn complete(&self, head: &Arc<Head>, deposit: Option<Deposit>, received: u64) {
        let growing = deposit.as_ref().and_then(|deposit| deposit.growing().cloned());
        let complete = match deposit {
            Some(deposit) => deposit.complete().await,
            None => None,
        };
        let Some(mut complete) = complete else {
            // Whoever has this answer is not to get an older one from the store afterwards.
            return self.edge.store.invalidate(&head.key);
        };
        if let Some(growing) = growing {
            self.lead.flight.release(&growing);
        }
        let treatment = &self.admitted.treatment;
        let mut head = head.clone();
        if content_length(&head.headers).is_none() && head.status != StatusCode::NO_CONTENT {
            // The length that was unknown when the head went out.
            let mut known = head.with_length(received);
            treatment.compress.settle(&mut known, received);
            head = Arc::new(known);
        }
        self.load_siblings(&head).await;
        let body = std::mem::take(&mut complete.body);
        let object = Arc::new(Object::new(head, Arc::new(body), self.edge.store.gauge()));
        object.set_settled(self.edge.epoch);
        self.edge.store.insert(object.clone(), treatment.max_variants, complete);
        self.edge.encode(treatment, &object);
        self.edge.keep_dictionary(treatment, &object);
        self.edge.encode_against(treatment, &object, &self.request);
    }

    /// What is on disk of the key is brought into memory before it changes: other variants, which one
    /// entry holds together, and perhaps one whose fetch began later.
    pub(super) async fn load_siblings(&self, head: &Head) {
        if self.edge.store.get(&head.key).is_none() {
            self.edge.store.load(&head.key).await;
        }
    }
}
