//! The `contrast` command. Everything is in the library; this maps its outcome to the process's exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    contrast_cli::run().into()
}
