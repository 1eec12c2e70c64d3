//! Ports of a Coordinator on this machine, for as long as a `kubectl port-forward` lives.

use std::{process::ExitStatus, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout},
    time::timeout,
};

use super::kubectl::{Kubectl, KubectlError, said_in_short};
use crate::{address::CoordinatorAddress, diagnostic::Diagnose, exit::Exit};

/// The Deployment of the port forwarder in the chart. A pod of an ordinary runtime class: `kubectl port-forward` cannot reach into a
/// confidential VM.
pub(crate) const DEPLOYMENT: &str = "deployment/coordinator-port-forwarder";
/// Until the first port is forwarded.
const DEADLINE: Duration = Duration::from_secs(20);
/// At most this much of what a failed `kubectl` says is read.
const SAID_BYTES_MAX: u64 = 16 * 1024;

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
            Self::Ended { .. } => Exit::Unavailable,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Kubectl(error) => error.hints(),
            Self::Ended { .. } => {
                vec!["the pod of the port forwarder may have moved; run this command again".into()]
            }
        }
    }
}

/// A running `kubectl port-forward`; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Forward {
    child: Child,
    command: String,
    output: Lines<BufReader<ChildStdout>>,
    errors: Option<ChildStderr>,
    addresses: Vec<CoordinatorAddress>,
}

impl Forward {
    /// Starts it and waits until every port is there.
    ///
    /// # Errors
    /// When `kubectl` is not there, fails, or forwards nothing in time.
    pub(crate) async fn start(
        kubectl: &Kubectl,
        namespace: Option<&str>,
        ports: &[Port],
    ) -> Result<Self, ForwardError> {
        let ports: Vec<_> = ports.iter().map(|port| port.argument()).collect();
        let namespace = namespace.map(|name| format!("--namespace={name}"));
        let mut arguments = vec!["port-forward", "--address=127.0.0.1"];
        arguments.extend(namespace.as_deref());
        arguments.push(DEPLOYMENT);
        arguments.extend(ports.iter().map(String::as_str));
        let command = kubectl.shown(&arguments);
        let mut child = kubectl
            .command(&arguments)
            .spawn()
            .map_err(|source| ForwardError::Kubectl(kubectl.not_started(source)))?;
        let (Some(output), errors) = (child.stdout.take(), child.stderr.take()) else {
            return Err(ForwardError::Kubectl(
                kubectl.not_started(std::io::Error::other("its output is not connected")),
            ));
        };
        let mut forward = Self {
            child,
            command,
            output: BufReader::new(output).lines(),
            errors,
            addresses: Vec::new(),
        };
        match timeout(DEADLINE, forward.ready(ports.len())).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                return Err(ForwardError::Kubectl(KubectlError::Deadline {
                    command: forward.command,
                }));
            }
        }
        Ok(forward)
    }

    /// Where the ports are, in the order in which they were asked for.
    pub(crate) fn addresses(&self) -> &[CoordinatorAddress] {
        &self.addresses
    }

    /// Waits for its end, which it comes to by itself only when it fails.
    pub(crate) async fn ended(&mut self) -> ForwardError {
        // It prints a line for every connection; nobody may let it wait for a reader.
        while let Ok(Some(_)) = self.output.next_line().await {}
        self.failure().await
    }

    async fn ready(&mut self, ports: usize) -> Result<(), ForwardError> {
        while self.addresses.len() < ports {
            let line = self.output.next_line().await.ok().flatten();
            let Some(line) = line else {
                return Err(match self.failure().await {
                    ForwardError::Ended { command, said, .. } => {
                        ForwardError::Kubectl(KubectlError::Failed { command, said })
                    }
                    other => other,
                });
            };
            self.addresses.extend(local_address(&line));
        }
        Ok(())
    }

    async fn failure(&mut self) -> ForwardError {
        let mut said = String::new();
        if let Some(errors) = self.errors.take() {
            // Whatever could be read is what can be shown.
            let _ = errors.take(SAID_BYTES_MAX).read_to_string(&mut said).await;
        }
        match self.child.wait().await {
            Ok(status) => ForwardError::Ended {
                command: self.command.clone(),
                status,
                said: said_in_short(&said),
            },
            Err(source) => ForwardError::Kubectl(KubectlError::Start {
                program: self.command.clone(),
                source,
            }),
        }
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
