//! Running other programs, with the command line in the error.

use std::{ffi::OsStr, process::Command};

use anyhow::{Context, Result, bail};

/// A `cargo` command in the workspace.
pub(crate) fn cargo<I>(arguments: I) -> Command
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(crate::workspace_root());
    command
}

/// Runs `command` to its end; anything but success is an error that shows the command line.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
