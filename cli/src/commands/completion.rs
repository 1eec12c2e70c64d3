//! `contrast completion`: a script for the user's shell.

use clap::CommandFactory as _;

use crate::{
    args::{Cli, CompletionArgs},
    diagnostic::Failure,
    output::Output,
};

/// Prints the completion script to standard output.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn run(args: &CompletionArgs, output: &Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "contrast", &mut script);
    output.raw(&script)?;
    Ok(())
}
