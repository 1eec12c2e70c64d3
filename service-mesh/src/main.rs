//! Entry point of the service mesh sidecar.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use contrast_service_mesh::{
    app::{self, AppError},
    check::{self, CheckError, Command},
    config::Config,
};
use contrast_telemetry::{exposure::PUBLIC, logging, memory::forbid_core_dumps};

fn main() -> ExitCode {
    let config = Config::parse();
    if config.check_ready {
        let ready = config.ready_file.exists();
        return if ready {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let outcome = logging::init(&config.logging())
        .map_err(anyhow::Error::from)
        .and_then(|()| match &config.command {
            Some(Command::Check(args)) => Ok(check::run(args, &config)?),
            None if config.print_rules => print_rules(&config),
            None => run(&config),
        });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!(exposure = PUBLIC, "the service mesh failed");
            tracing::error!("{error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let of_app = error.downcast_ref().map(AppError::exit_code);
    let of_check = || error.downcast_ref().map(CheckError::exit_code);
    of_app.or_else(of_check).unwrap_or(1)
}

fn print_rules(config: &Config) -> anyhow::Result<u8> {
    let rules = config.rules().map_err(AppError::from)?;
    io::stdout()
        .write_all(rules.as_bytes())
        .context("cannot write to standard output")?;
    Ok(0)
}

fn run(config: &Config) -> anyhow::Result<u8> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        ?config,
        "service mesh starts"
    );
    forbid_core_dumps()?;
    // One thread is enough: traffic flows through Envoy, not through this process.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    Ok(runtime.block_on(app::run(config))?)
}
