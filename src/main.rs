//! The `eventsubd` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    eventsubd::cli::main()
}
