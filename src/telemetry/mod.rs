//! What the node tells about itself: counters, the access log, the program log, traces.
//!
//! Every part owns its metrics struct and registers it as a `prometheus_client` collector; this
//! module has only the pieces they are made of. Nothing here knows a request.

mod access_log;
mod cells;
mod clock;
mod program_log;
mod traces;
mod worker;

pub use access_log::{AccessLog, AccessLogConfig, AccessRecord, EVERY_LINE, LogOutput};
pub use cells::{Cells, Histogram, encode_cells, encode_gauge};
pub use clock::{Clock, parse_rfc3339, rfc3339};
pub use program_log::init as init_program_log;
pub use traces::{Exporter as TraceExporter, Span, TraceError, start as start_traces};
pub use worker::{
    cpu_time as workers_cpu_time, enter as enter_worker, major_faults as worker_major_faults,
    slot as worker_slot,
};
