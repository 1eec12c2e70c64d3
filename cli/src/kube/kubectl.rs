//! The program `kubectl`.

use std::{env, ffi::OsString, io, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::{diagnostic::Diagnose, exit::Exit};

/// Which program to run instead of `kubectl`.
const VARIABLE: &str = "CONTRAST_KUBECTL";
/// An API server that drops packets never answers.
const DEADLINE: Duration = Duration::from_secs(20);

/// The program to run.
pub(crate) fn program() -> OsString {
    env::var_os(VARIABLE).unwrap_or_else(|| "kubectl".into())
}

/// `kubectl` did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubectlError {
    /// There is no such program.
    #[error("cannot find `{program}`")]
    Missing {
        /// Its name or path.
        program: String,
    },
    /// It could not be started.
    #[error("cannot start `{program}`")]
    Start {
        /// Its name or path.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// What was run.
        command: String,
        /// What it printed on standard error, without the lines that say nothing.
        said: String,
    },
    /// It took too long.
    #[error("`{command}` did not answer within {} s", DEADLINE.as_secs())]
    Deadline {
        /// What was run.
        command: String,
    },
    /// Its output is not JSON.
    #[error("`{command}` printed something else than JSON")]
    Json {
        /// What was run.
        command: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Diagnose for KubectlError {
    fn exit(&self) -> Exit {
        match self {
            Self::Missing { .. } | Self::Start { .. } => Exit::Usage,
            Self::Failed { .. } | Self::Deadline { .. } | Self::Json { .. } => Exit::Unavailable,
        }
    }

    fn hints(&self) -> Vec<String> {
        vec![match self {
            Self::Missing { .. } => format!(
                "install kubectl, name it with {VARIABLE}, or forward the port yourself and use `--coordinator`"
            ),
            Self::Failed { said, .. } => hint(said).to_owned(),
            Self::Deadline { .. } => {
                "check that the API server of the kubeconfig's context can be reached from here"
                    .into()
            }
            Self::Start { .. } | Self::Json { .. } => {
                format!(
                    "check the program that {VARIABLE} names, or that is `kubectl` in your PATH"
                )
            }
        }]
    }
}

/// What to do about what `kubectl` said. Its texts are not promised; the last hint fits all of them.
fn hint(said: &str) -> &'static str {
    let hints = [
        (
            "context was not found",
            "`kubectl config get-contexts` lists the contexts; choose one with `--kube-context`",
        ),
        (
            "does not exist",
            "`kubectl config get-contexts` lists the contexts; choose one with `--kube-context`",
        ),
        (
            "error loading config file",
            "the kubeconfig is broken; check the file that KUBECONFIG names, or ~/.kube/config",
        ),
        (
            "localhost:8080",
            "there is no kubeconfig; set KUBECONFIG, or log in to the cluster",
        ),
        (
            "Unauthorized",
            "the credentials of the kubeconfig are not accepted; log in to the cluster again",
        ),
        (
            "orbidden",
            "ask the cluster's administrator for the right; `kubectl auth can-i --list` shows yours",
        ),
        (
            "x509",
            "the API server's certificate is not of the kubeconfig's CA: a proxy intercepts TLS, or the cluster is another one",
        ),
        (
            "NotFound",
            "install the chart with `portForwarder.enabled=true`, or name the namespace: `--kube=NAMESPACE`",
        ),
        (
            "unable to forward",
            "the pod of the port forwarder does not run; look at it with `kubectl get pods`",
        ),
    ];
    hints.iter().find(|(text, _)| said.contains(text)).map_or(
        "run the command yourself to see more; `contrast doctor` checks the way to the cluster",
        |(_, hint)| hint,
    )
}

/// How `kubectl` is called.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl {
    program: OsString,
    context: Option<String>,
}

impl Kubectl {
    /// With a context of the kubeconfig, or its current one.
    pub(crate) fn new(context: Option<String>) -> Self {
        Self {
            program: program(),
            context,
        }
    }

    /// The command, not started; it ends when it is dropped.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(context) = &self.context {
            command.arg(format!("--context={context}"));
        }
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// How the command looks in messages.
    pub(super) fn shown(&self, arguments: &[&str]) -> String {
        let mut words = vec![self.program.to_string_lossy().into_owned()];
        words.extend(
            self.context
                .iter()
                .map(|context| format!("--context={context}")),
        );
        words.extend(arguments.iter().map(|&argument| argument.to_owned()));
        words.join(" ")
    }

    pub(super) fn not_started(&self, source: io::Error) -> KubectlError {
        let program = self.program.to_string_lossy().into_owned();
        match source.kind() {
            io::ErrorKind::NotFound => KubectlError::Missing { program },
            _ => KubectlError::Start { program, source },
        }
    }

    /// Runs it to its end and returns standard output and standard error.
    ///
    /// # Errors
    /// When it cannot be run, fails, or does not end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<(Vec<u8>, String), KubectlError> {
        let output = timeout(DEADLINE, self.command(arguments).output())
            .await
            .map_err(|_| KubectlError::Deadline {
                command: self.shown(arguments),
            })?
            .map_err(|source| self.not_started(source))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok((output.stdout, said)),
            false => Err(KubectlError::Failed {
                command: self.shown(arguments),
                said: said_in_short(&said),
            }),
        }
    }

    /// Runs it and reads its output as JSON.
    ///
    /// # Errors
    /// As [`Self::run`], and when the output is something else.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Result<Value, KubectlError> {
        let (output, _) = self.run(arguments).await?;
        serde_json::from_slice(&output).map_err(|source| KubectlError::Json {
            command: self.shown(arguments),
            source,
        })
    }
}

/// The last line: those before repeat attempts and carry the source positions of a log.
fn said_in_short(said: &str) -> String {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.next_back().unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_what_is_wrong() {
        let said = "E1127 20:00:00.1 1 memcache.go:265] \"Unhandled\"\nError from server (NotFound): deployments.apps not found\n\n";
        assert_eq!(
            said_in_short(said),
            "Error from server (NotFound): deployments.apps not found"
        );
        assert_eq!(said_in_short(""), "it said nothing");
    }

    #[test]
    fn what_to_do_follows_from_what_was_said() {
        let failed = |said: &str| KubectlError::Failed {
            command: "kubectl get".into(),
            said: said.into(),
        };
        for (said, expected) in [
            ("error: context \"x\" does not exist", "--kube-context"),
            (
                "The connection to the server localhost:8080 was refused",
                "no kubeconfig",
            ),
            (
                "error: You must be logged in to the server (Unauthorized)",
                "log in",
            ),
            (
                "Error from server (NotFound): deployments.apps \"c\" not found",
                "portForwarder.enabled=true",
            ),
            (
                "Unable to connect to the server: tls: failed to verify certificate: x509: unknown",
                "intercepts TLS",
            ),
            ("something new", "contrast doctor"),
        ] {
            let hints = failed(said).hints();
            assert!(hints.join(" ").contains(expected), "{said}: {hints:?}");
        }
    }
}
