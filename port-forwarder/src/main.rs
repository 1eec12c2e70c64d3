//! The `port-forwarder` program. Exit code 0 after a graceful stop, 1 after a failure, 2 for wrong options.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use contrast_port_forwarder::{Config, Forwarder};
use contrast_telemetry::{
    drain, logging,
    tasks::{TaskError, Tasks},
};

fn main() -> ExitCode {
    match run(&Config::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("port-forwarder failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> anyhow::Result<()> {
    logging::init(&config.logging)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let (trigger, watcher) = drain::channel();
    let mut tasks = Tasks::default();
    for route in &config.forward {
        let forwarder = Forwarder::bind(route, config.connections.get()).await?;
        tracing::info!(address = %forwarder.address(), target = route.target, "forwarding");
        tasks.spawn("forward", forwarder.serve(watcher.clone()));
    }
    let signal = drain::termination_signal()
        .await
        .context("cannot listen for signals")?;
    tracing::info!(signal, "asked to stop");
    trigger.drain();
    match tasks.join_within(config.drain_deadline).await {
        // Whoever still forwards a port is cut off; that is no failure of this program.
        Err(TaskError::Deadline { unfinished, .. }) => {
            tracing::warn!(unfinished, "connections were cut off");
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}
