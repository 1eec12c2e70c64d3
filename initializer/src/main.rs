//! Parses the configuration and runs the Initializer.

use std::process::ExitCode;

use clap::Parser as _;
use contrast_initializer::{Command, Config, deny_ingress, is_installed, pull_image, run};
use contrast_telemetry::{logging, memory::forbid_core_dumps};

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    if config.check_ready {
        return if is_ready(&config) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    if let Err(error) = logging::init(&config.logging) {
        return fail(error.into());
    }
    if config.command == Some(Command::DenyIngress) {
        return match deny_ingress() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error.into()),
        };
    }
    if let Err(error) = forbid_core_dumps() {
        return fail(error.into());
    }
    if let Some(Command::PullImage(arguments)) = &config.command {
        return match pull_image(arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(error.into()),
        };
    }
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error.into()),
    }
}

/// With an encrypted volume never: this version does not open one.
fn is_ready(config: &Config) -> bool {
    config.cryptsetup_device.is_none() && is_installed(&config.base_dir)
}

#[expect(clippy::print_stderr, reason = "the edge where errors reach a person")]
fn fail(error: anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
