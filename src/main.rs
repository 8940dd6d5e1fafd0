//! The binary `epochwarden`: the operator and the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    epochwarden::cli::main()
}
