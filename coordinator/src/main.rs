//! The `coordinator` program. Exit code 0 after a graceful stop, 1 after a failure, 2 for wrong options.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use contrast_coordinator::{
    app::{Bound, Surroundings},
    config::Config,
    open_ingress,
};
use contrast_telemetry::{drain, exposure::PUBLIC, logging, memory::forbid_core_dumps};

/// How long work on blocking threads may go on after everything else ended.
const BLOCKING_STOP: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let config = Config::parse();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(exposure = PUBLIC, "coordinator failed");
            tracing::error!("coordinator failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> anyhow::Result<()> {
    let _traces = logging::init_traced(&config.logging, "contrast-coordinator")?;
    forbid_core_dumps()?;
    tracing::debug!(?config, "options");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let outcome = runtime.block_on(serve(config));
    // A vendor's service that does not answer must not hold up a stop.
    runtime.shutdown_timeout(BLOCKING_STOP);
    outcome
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let bound = Bound::bind(config, Surroundings::of(config)?).await?;
    if config.open_ingress {
        tokio::task::spawn_blocking(open_ingress)
            .await
            .context("cannot open the pod")?;
    }
    let shutdown = async {
        match drain::termination_signal().await {
            Ok(signal) => tracing::info!(signal, exposure = PUBLIC, "asked to stop"),
            Err(error) => tracing::error!(%error, "cannot listen for signals; stopping"),
        }
    };
    Ok(bound.run(shutdown).await?)
}
