//! The tidewire binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidewire::cli::main()
}
