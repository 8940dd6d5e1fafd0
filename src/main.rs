//! The binary `epochwarden`: the operator and the command line.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Gives memory back that a busy hour has left free; the system's allocator keeps it (docs/adr/0008).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    epochwarden::cli::main()
}
