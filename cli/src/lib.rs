//! The `contrast` command, as a library.
//!
//! - [`args`] is what the command line looks like, [`commands`] has one module for each command.
//! - [`output`] owns the streams: results on standard output, everything else on standard error. [`diagnostic`] is how
//!   failures look, [`exit`] what the exit codes mean.
//! - [`workspace`] knows the files around a deployment, [`deployment`] reads the YAML that `generate` wrote, [`dial`] opens
//!   attested connections to a Coordinator, [`attempts`] chooses which one and how often, [`call`] explains its refusals.
//! - [`attestation`] reads evidence from files and shows what it says.
//! - `kube` reaches a Coordinator in a cluster through `kubectl`; `doctor` checks the way there.
//! - `audit` shows and checks what Coordinators decided.
//! - [`lint`] checks a deployment before it is generated.
//! - `dashboard` serves a page about the deployment on loopback.
//! - [`status`] shows what a Coordinator says about its cluster; [`verify`] judges its history; [`generate`] turns Kubernetes YAML into a deployment.
//!
//! What it never does: send anything to anyone but the Coordinator and the registries that were named, write a secret that
//! it did not create itself, or leave half a file behind.

pub mod address;
pub mod approval;
pub mod args;
pub mod attempts;
pub mod attestation;
mod audit;
pub mod call;
pub use contrast_sdk::certificate;
pub mod commands;
mod dashboard;
pub mod deployment;
pub mod diagnostic;
pub mod dial;
mod docker_config;
mod doctor;
pub mod exit;
pub mod generate;
mod import;
mod kube;
pub mod lint;
mod measure;
pub mod output;
pub mod owner;
mod policy;
pub mod status;
pub mod transition;
pub mod verify;
pub mod workspace;

use std::{
    ffi::OsStr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use args::{Cli, LogLevel};
use clap::{CommandFactory as _, FromArgMatches as _};
use contrast_telemetry::traces::Traces;
use exit::Exit;
use output::Output;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _, Registry, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Runs the process's command line.
pub fn run() -> Exit {
    let cli = match parse() {
        Ok(cli) => cli,
        Err(message) => {
            // `--help` and `--version` arrive here too; clap knows which stream and which code each has.
            let _ = message.print();
            return if message.exit_code() == 0 {
                Exit::Success
            } else {
                Exit::Usage
            };
        }
    };
    let output = Output::new(cli.global.color);
    // The last spans are sent when this ends.
    let traces = Traces::start("contrast").unwrap_or_else(|error| {
        output.warning(&error.to_string());
        Traces::default()
    });
    log_to_stderr(cli.global.log_level, &traces);
    // The default hook has printed the panic's message by the time it is caught.
    match catch_unwind(AssertUnwindSafe(|| commands::run(&cli, &output))) {
        Ok(Ok(())) => Exit::Success,
        Ok(Err(failure)) => {
            output.failure(&failure);
            failure.exit()
        }
        Err(_) => Exit::Internal,
    }
}

/// As `kubectl-contrast` in the PATH, the program is a plugin of kubectl and is named like one.
fn parse() -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_stem() == Some(OsStr::new("kubectl-contrast")) {
        command = command.bin_name("kubectl contrast");
    }
    Cli::from_arg_matches(&command.try_get_matches()?)
}

fn log_to_stderr(level: LogLevel, traces: &Traces) {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // Fails only when a subscriber is installed already, and then logging works.
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let _ = Registry::default()
        .with(lines.with_filter(level))
        .with(traces.layer())
        .try_init();
}
