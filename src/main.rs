//! The process: allocator, arguments, exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Returns freed memory to the system and keeps each thread's small allocations apart.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    larder::cli::main()
}
