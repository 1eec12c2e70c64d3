//! The commands.

use std::{
    io::{self, Write},
    time::Duration,
};

use serde::Serialize;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
    time::sleep,
};

use crate::{
    apply::apply,
    args::{Command, Format, GlobalArgs, RunArgs},
    check::chain,
    config::Config,
    error::{Error, NOT_AS_WANTED},
    host::ThisHost,
    node::Node,
    tree::{HostTree, LogSteps},
    uninstall::uninstall,
};

#[derive(Serialize)]
struct Checked<'a> {
    handler: &'a str,
    as_wanted: bool,
    findings: &'a [String],
}

#[derive(Serialize)]
struct Uninstalled<'a> {
    handler: &'a str,
    removed: &'a [String],
}

/// Runs a command; the exit code is returned.
///
/// # Errors
/// When the command ends before its end.
pub fn run(global: &GlobalArgs, command: &Command) -> Result<u8, Error> {
    let config = Config::read(&global.config)?;
    let mut out = io::stdout().lock();
    match command {
        Command::Plan(output) => {
            let plan = node(global)?.compare(&config, false)?.plan;
            print(&mut out, output.format, &plan, |out| plan.text(out))?;
            Ok(0)
        }
        Command::Apply(output) => {
            let plan = apply(&node(global)?, &config, global.lock_seconds)?;
            print(&mut out, output.format, &plan, |out| plan.text(out))?;
            Ok(0)
        }
        Command::Check(check) => {
            let findings = node(global)?.findings(&config, check.quick)?;
            let checked = Checked {
                handler: &config.handler,
                as_wanted: findings.is_empty(),
                findings: &findings,
            };
            print(&mut out, check.output.format, &checked, |out| {
                if findings.is_empty() {
                    writeln!(out, "{}: the node is as wanted", config.handler)?;
                }
                let mut lines = findings.iter();
                lines.try_for_each(|finding| writeln!(out, "{}: {finding}", config.handler))
            })?;
            Ok(if findings.is_empty() {
                0
            } else {
                NOT_AS_WANTED
            })
        }
        Command::Uninstall(output) => {
            let removed = uninstall(&node(global)?, &config, global.lock_seconds)?;
            let uninstalled = Uninstalled {
                handler: &config.handler,
                removed: &removed,
            };
            print(&mut out, output.format, &uninstalled, |out| {
                if removed.is_empty() {
                    writeln!(out, "{}: nothing was installed", config.handler)?;
                }
                let mut lines = removed.iter();
                lines.try_for_each(|line| writeln!(out, "{}: removed {line}", config.handler))
            })?;
            Ok(0)
        }
        Command::Run(args) => stay(global, config, *args),
        // `main` does it, before anything starts a thread.
        Command::HostExec(_) => Ok(2),
    }
}

fn node(global: &GlobalArgs) -> Result<Node, Error> {
    Ok(Node {
        tree: HostTree::open(&global.host_root, Box::new(LogSteps))?,
        host: Box::new(ThisHost::new(&global.host_root)),
    })
}

fn print<T: Serialize>(
    out: &mut impl Write,
    format: Format,
    value: &T,
    text: impl Fn(&mut Vec<u8>) -> io::Result<()>,
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    match format {
        Format::Text => text(&mut bytes).map_err(Error::Output)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut bytes, value)
                .map_err(|error| Error::Output(error.into()))?;
            bytes.push(b'\n');
        }
    }
    match out.write_all(&bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}

/// Applies, then checks until a signal comes. What is not as wanted is only said: two who correct each other would restart containerd
/// forever.
fn stay(global: &GlobalArgs, config: Config, args: RunArgs) -> Result<u8, Error> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Signals)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        // Not ended by a signal: containerd would be left between two configurations.
        let changed = blocking(global, &config, |node, global, config| {
            apply(node, config, global.lock_seconds)
        })
        .await?;
        tracing::info!(
            handler = config.handler,
            changes = changed.changes.len(),
            "the node is as wanted"
        );
        let mut said = Vec::new();
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = sleep(Duration::from_secs(args.interval_seconds)) => {}
            }
            let found = blocking(global, &config, |node, _, config| {
                node.findings(config, true)
            });
            let findings = found.await.unwrap_or_else(|error| vec![chain(&error)]);
            if findings != said {
                match findings.is_empty() {
                    true => tracing::info!("the node is as wanted again"),
                    false => tracing::error!(
                        ?findings,
                        "the node is not as wanted any more; restart this pod to apply again"
                    ),
                }
                said = findings;
            }
        }
        tracing::info!("ends; what is installed stays");
        Ok(0)
    })
}

async fn blocking<T: Send + 'static>(
    global: &GlobalArgs,
    config: &Config,
    work: impl FnOnce(&Node, &GlobalArgs, &Config) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (global, config) = (global.clone(), config.clone());
    let done = spawn_blocking(move || work(&node(&global)?, &global, &config)).await;
    done.unwrap_or_else(|error| Err(Error::Panicked(error)))
}
