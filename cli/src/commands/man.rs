//! `contrast man`: manual pages, made from the same definition as `--help`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::CommandFactory as _;

use crate::{
    args::{Cli, ManArgs},
    diagnostic::{Diagnose, Failure},
    exit::Exit,
};

/// The pages could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write manual pages to {}", directory.display())]
struct ManError {
    directory: PathBuf,
    #[source]
    source: io::Error,
}

impl Diagnose for ManError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        vec!["name a directory that you may write to".into()]
    }
}

/// Writes one page for each command.
///
/// # Errors
/// When the directory cannot be written.
pub(super) fn run(args: &ManArgs) -> Result<(), Failure> {
    let failed = |source| ManError {
        directory: args.directory.clone(),
        source,
    };
    Ok(write(&args.directory).map_err(failed)?)
}

fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)
}
