//! Ports of a Coordinator on this machine, for as long as a `kubectl port-forward` lives.

use std::{io, process::ExitStatus, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};

use super::kubectl::{Kubectl, KubectlError};
use crate::{address::CoordinatorAddress, diagnostic::Diagnose, exit::Exit};

/// The Deployment of the port forwarder in the chart. A pod of an ordinary runtime class: `kubectl port-forward` cannot reach into a
/// confidential VM.
pub(crate) const DEPLOYMENT: &str = "deployment/coordinator-port-forwarder";
/// Until the first port is forwarded.
const DEADLINE: Duration = Duration::from_secs(20);
/// How `kubectl` says that it goes on without one of several ports.
const NOT_LISTENING: &str = "Unable to listen on port";

/// A port of the Coordinator, and where it is to be on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port {
    /// 0 for any that is free.
    local: u16,
    remote: u16,
}

impl Port {
    /// Of owners.
    pub(crate) const USER_API: u16 = 1313;
    /// Of everybody.
    pub(crate) const ATTEST_API: u16 = 1314;

    /// At any local port.
    pub(crate) fn any(remote: u16) -> Self {
        Self { local: 0, remote }
    }

    /// At this local port.
    pub(crate) fn at(local: u16, remote: u16) -> Self {
        Self { local, remote }
    }

    fn argument(self) -> String {
        match self.local {
            0 => format!(":{}", self.remote),
            local => format!("{local}:{}", self.remote),
        }
    }
}

/// `kubectl port-forward` does not forward.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    /// It is not there, or refuses.
    #[error("cannot reach the Coordinator through kubectl")]
    Kubectl(#[source] KubectlError),
    /// A local port is taken.
    #[error("`{command}` says: {said}")]
    Port {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// It ended while it was needed.
    #[error("`{command}` ended with {status}: {said}")]
    Ended {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
}

impl Diagnose for ForwardError {
    fn exit(&self) -> Exit {
        match self {
            Self::Kubectl(error) => error.exit(),
            Self::Port { .. } => Exit::Usage,
            Self::Ended { .. } => Exit::Unavailable,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Kubectl(error) => error.hints(),
            Self::Port { .. } => {
                vec![
                    "choose other local ports with `--port` and `--attest-port`; 0 takes any"
                        .into(),
                ]
            }
            Self::Ended { .. } => {
                vec!["the pod of the port forwarder may have moved; run this command again".into()]
            }
        }
    }
}

/// A running `kubectl port-forward`; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Forward {
    /// The one task that reads what it prints, so that it never waits for a reader, and hears of its end.
    attendant: JoinSet<ForwardError>,
    addresses: Vec<CoordinatorAddress>,
}

impl Forward {
    /// Starts it and waits until every port is there.
    ///
    /// # Errors
    /// When `kubectl` is not there, fails, or does not forward every port in time.
    pub(crate) async fn start(
        kubectl: &Kubectl,
        namespace: Option<&str>,
        ports: &[Port],
    ) -> Result<Self, ForwardError> {
        let wanted: Vec<_> = ports.iter().map(|port| port.argument()).collect();
        let namespace = namespace.map(|name| format!("--namespace={name}"));
        let mut arguments = vec!["port-forward", "--address=127.0.0.1"];
        arguments.extend(namespace.as_deref());
        arguments.push(DEPLOYMENT);
        arguments.extend(wanted.iter().map(String::as_str));
        let shown = kubectl.shown(&arguments);
        let (ready, forwarded) = oneshot::channel();
        let attendance = Attendance {
            shown: shown.clone(),
            ports: ports.len(),
            addresses: Vec::new(),
            ready: Some(ready),
            said: String::new(),
        };
        let child = kubectl
            .command(&arguments)
            .spawn()
            .map_err(|source| ForwardError::Kubectl(kubectl.not_started(source)))?;
        let mut attendant = JoinSet::new();
        attendant.spawn(attendance.run(child));
        match timeout(DEADLINE, forwarded).await {
            Ok(Ok(addresses)) => Ok(Self {
                attendant,
                addresses,
            }),
            // It ended before.
            Ok(Err(_)) => Err(match ended(&mut attendant).await {
                ForwardError::Ended { command, said, .. } => {
                    ForwardError::Kubectl(KubectlError::Failed { command, said })
                }
                other => other,
            }),
            Err(_) => Err(ForwardError::Kubectl(KubectlError::Deadline {
                command: shown,
            })),
        }
    }

    /// Where the ports are, in the order in which they were asked for.
    pub(crate) fn addresses(&self) -> &[CoordinatorAddress] {
        &self.addresses
    }

    /// Waits for its end, which it comes to by itself only when it fails.
    pub(crate) async fn ended(&mut self) -> ForwardError {
        ended(&mut self.attendant).await
    }
}

async fn ended(attendant: &mut JoinSet<ForwardError>) -> ForwardError {
    let failed = |error: String| {
        ForwardError::Kubectl(KubectlError::Start {
            program: "kubectl".to_owned(),
            source: io::Error::other(error),
        })
    };
    match attendant.join_next().await {
        Some(Ok(error)) => error,
        Some(Err(error)) => failed(error.to_string()),
        None => failed("it ended before".to_owned()),
    }
}

/// What is known of a running `kubectl port-forward`.
struct Attendance {
    shown: String,
    ports: usize,
    addresses: Vec<CoordinatorAddress>,
    ready: Option<oneshot::Sender<Vec<CoordinatorAddress>>>,
    /// The last line on standard error.
    said: String,
}

impl Attendance {
    /// Reads until both of its streams end, and then says how it ended.
    async fn run(mut self, mut child: Child) -> ForwardError {
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return self.start_failed(io::Error::other("its output is not connected"));
        };
        let mut output = BufReader::new(output).lines();
        let mut errors = BufReader::new(errors).lines();
        let (mut prints, mut complains) = (true, true);
        while prints || complains {
            tokio::select! {
                line = output.next_line(), if prints => match line {
                    Ok(Some(line)) => self.printed(&line),
                    _ => prints = false,
                },
                line = errors.next_line(), if complains => match line {
                    Ok(Some(line)) if line.starts_with(NOT_LISTENING) && self.ready.is_some() => {
                        return ForwardError::Port { command: self.shown, said: line };
                    }
                    Ok(Some(line)) => self.complained(line),
                    _ => complains = false,
                },
            }
        }
        match child.wait().await {
            Ok(status) => ForwardError::Ended {
                said: match self.said.is_empty() {
                    true => "it said nothing".to_owned(),
                    false => self.said,
                },
                command: self.shown,
                status,
            },
            Err(source) => self.start_failed(source),
        }
    }

    fn printed(&mut self, line: &str) {
        self.addresses.extend(local_address(line));
        if self.addresses.len() == self.ports
            && let Some(ready) = self.ready.take()
        {
            // Nobody waits for it any more only when the deadline has passed.
            let _ = ready.send(self.addresses.clone());
        }
    }

    fn complained(&mut self, line: String) {
        tracing::info!(line, "kubectl");
        if !line.trim().is_empty() {
            self.said = line.trim().to_owned();
        }
    }

    fn start_failed(self, source: io::Error) -> ForwardError {
        ForwardError::Kubectl(KubectlError::Start {
            program: self.shown,
            source,
        })
    }
}

/// From `Forwarding from 127.0.0.1:40001 -> 1313`.
fn local_address(line: &str) -> Option<CoordinatorAddress> {
    let rest = line.strip_prefix("Forwarding from ")?;
    let (address, _) = rest.split_once(" -> ")?;
    address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_a_port_is() {
        let address = local_address("Forwarding from 127.0.0.1:40001 -> 1313").expect("an address");
        assert_eq!((address.host.as_str(), address.port), ("127.0.0.1", 40001));
        assert_eq!(local_address("Handling connection for 1313"), None);
    }
}
