//! Entry point of the service mesh sidecar.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use contrast_service_mesh::{
    app::{self, AppError, EXIT_USAGE},
    check::{self, CheckArgs, CheckError, Command},
    config::Config,
};
use contrast_telemetry::logging;

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
    if let Some(Command::Check(args)) = &config.command {
        return checked(args, &config);
    }
    let outcome = match config.print_rules {
        true => print_rules(&config),
        false => run(&config),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(
                error
                    .downcast_ref::<AppError>()
                    .map_or(1, AppError::exit_code),
            )
        }
    }
}

fn checked(args: &CheckArgs, config: &Config) -> ExitCode {
    let outcome = logging::init(&config.logging())
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(check::run(args, config)?));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("{error:#}");
            let usage = matches!(
                error.downcast_ref(),
                Some(CheckError::Egress(_) | CheckError::Target(_))
            );
            ExitCode::from(if usage { EXIT_USAGE } else { 1 })
        }
    }
}

fn print_rules(config: &Config) -> anyhow::Result<u8> {
    logging::init(&config.logging())?;
    let rules = config.rules().map_err(AppError::from)?;
    io::stdout()
        .write_all(rules.as_bytes())
        .context("cannot write to standard output")?;
    Ok(0)
}

fn run(config: &Config) -> anyhow::Result<u8> {
    logging::init(&config.logging())?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        ?config,
        "service mesh starts"
    );
    // One thread is enough: traffic flows through Envoy, not through this process.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    Ok(runtime.block_on(app::run(config))?)
}
