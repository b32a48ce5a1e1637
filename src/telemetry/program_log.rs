//! The program log: `tracing` as text on standard error, filtered by `LARDER_LOG`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts the program log. The default level is `info`; `LARDER_LOG` takes a
/// `tracing_subscriber` filter such as `debug` or `larder::origin=trace`.
pub fn init() {
    let filter = EnvFilter::try_from_env("LARDER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call (tests in one process) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}
