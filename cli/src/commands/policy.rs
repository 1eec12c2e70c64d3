//! `contrast policy`: look at the policies of pods, and ask them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::{
    args::FormatArgs,
    diagnostic::Failure,
    output::Output,
    policy::{diff, explain, show, test},
    workspace::Workspace,
};

/// `contrast policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show what a pod's policy allows
    Show(ShowArgs),
    /// Say of recorded requests whether a pod's policy allows them, and if not, why
    Explain(ExplainArgs),
    /// Say what one version of the YAML allows and another does not
    Diff(DiffArgs),
    /// Run folders of recorded requests (`testcases.json`) against the policies of their pods
    Test(TestArgs),
}

/// `contrast policy show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The pod's workload, as NAME or Kind/NAME
    pub pod: String,

    /// Generated YAML: files, or directories that are searched [default: the workspace]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Print the whole policy as Rego, as kata-agent evaluates it
    #[arg(long, conflicts_with = "format")]
    pub rego: bool,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast policy explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The pod's workload, as NAME or Kind/NAME
    #[arg(long)]
    pub pod: String,

    /// Recorded requests: `{"kind", "request"}`, a list of them, or one per line as kata-agent logs them. They are judged in
    /// order, so put those in front that came before
    #[arg(long, value_name = "FILE")]
    pub request: PathBuf,

    /// Generated YAML: files, or directories that are searched [default: the workspace]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast policy diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Generated YAML as it was: a file or directory
    pub old: PathBuf,

    /// Generated YAML as it is
    pub new: PathBuf,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast policy test`.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Folders, searched for those with a `testcases.json` beside the YAML of one pod
    #[arg(required = true, value_name = "DIR")]
    pub directories: Vec<PathBuf>,

    /// Cache of image configurations [default: image-cache.json in the workspace]
    #[arg(long, value_name = "FILE")]
    pub images: Option<PathBuf>,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

pub(super) fn run(
    args: &PolicyArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    match &args.command {
        PolicyCommand::Show(args) => show::run(args, workspace, output),
        PolicyCommand::Explain(args) => explain::run(args, workspace, output),
        PolicyCommand::Diff(args) => diff::run(args, output),
        PolicyCommand::Test(args) => test::run(args, workspace, output),
    }
}
