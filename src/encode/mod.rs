//! Codings: bytes in, encoded bytes out.
//!
//! Brotli, zstd and gzip, both ways. A [`Transcoder`] goes from one coding to another piece by piece, for whoever calls
//! it; the [`Pool`] does so on threads of its own, at most half the cores of them and at the lowest priority, so that
//! serving always comes first. Memory is bounded: pieces are small and both ways are bounded queues; what a codec
//! itself takes is bounded by its window (8 MiB at most, which is also what browsers take).
//!
//! Not here: what is encoded, for whom, and where it is kept (`edge`, `store`).

mod decoder;
mod dictionary;
mod encoder;
mod metrics;
mod pool;
mod transcoder;
mod turn;

pub use dictionary::Dictionary;
pub use encoder::Level;
pub use metrics::{EncodeMetrics, Outcome};
pub use pool::{Event, Finished, Place, Pool, Work};
pub use transcoder::{Failure, Step, Transcoder};
pub use turn::LiveTurn;
