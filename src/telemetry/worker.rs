//! Which worker this thread is: the slot of everything that is kept per worker.

use std::cell::Cell;

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// Marks this thread as worker `index` (from 0). Called once, when the thread starts.
pub fn enter(index: usize) {
    SLOT.with(|slot| slot.set(index + 1));
}

/// 0 for every thread that is not a worker, else the worker's index + 1.
#[inline]
pub fn slot() -> usize {
    SLOT.with(Cell::get)
}
