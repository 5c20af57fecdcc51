//! The tidewire binary.

use std::process::ExitCode;

/// One that gives back what it no longer needs: a process that runs for months must not grow by what its allocator keeps.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tidewire::cli::main()
}
