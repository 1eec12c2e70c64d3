//! What the command line looks like. Nothing here reads a file or acts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use contrast_telemetry::logging;

use crate::error;

/// Install the runtime for confidential pods on a node
#[derive(Debug, Clone, Parser)]
#[command(name = "node-installer", version, after_help = error::HELP, max_term_width = 100)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct GlobalArgs {
    /// Configuration, JSON or TOML
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CONTRAST_NODE_INSTALLER_CONFIG",
        default_value = "/config/node-installer.json"
    )]
    pub config: PathBuf,

    /// Where the root of the host is; `/` on the host itself
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "CONTRAST_HOST_ROOT",
        default_value = "/host"
    )]
    pub host_root: PathBuf,

    /// How long to wait for another installer on the node
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 300)]
    pub lock_seconds: u64,

    /// Logs.
    #[command(flatten)]
    pub logging: logging::Options,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print what would be changed
    Plan(OutputArgs),
    /// Change the node until it is as wanted; changes nothing if it is
    Apply(OutputArgs),
    /// Say whether the node is as wanted
    Check(CheckArgs),
    /// Take everything back that `apply` put on the node
    Uninstall(OutputArgs),
    /// Apply, then check from time to time until SIGTERM; takes nothing back
    Run(RunArgs),
    /// Run a program in the mount namespace of another process
    #[command(hide = true)]
    HostExec(HostExecArgs),
}

/// How to print.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// For people or for programs
    #[arg(long, value_enum, default_value = "text")]
    pub format: Format,
}

/// How to check.
#[derive(Debug, Clone, Copy, Args)]
pub struct CheckArgs {
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Compare files by size and permissions, without reading them; for probes
    #[arg(long)]
    pub quick: bool,
}

/// How to stay.
#[derive(Debug, Clone, Copy, Args)]
pub struct RunArgs {
    /// Time between two checks
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub interval_seconds: u64,
}

/// What to run.
#[derive(Debug, Clone, Args)]
pub struct HostExecArgs {
    /// The process whose namespace is entered
    #[arg(long, default_value_t = 1)]
    pub pid: u32,

    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub program: Vec<String>,
}

/// Form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}
