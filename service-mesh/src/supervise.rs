//! Envoy as a child process: start, wait until live, drain, stop.

use std::{
    ffi::OsString,
    future::Future,
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use contrast_firewall::ENVOY_UID;
use contrast_telemetry::tasks::Tasks;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

use crate::{
    envoy::{
        Paths,
        admin::{AdminError, AdminInterface},
        log::{self, LogTail},
    },
    privileges,
};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long Envoy may take to exit after SIGTERM before it gets SIGKILL.
const TERMINATION_GRACE: Duration = Duration::from_secs(5);
/// How long after Envoy's end its log may still hold back lines.
const LOG_GRACE: Duration = Duration::from_secs(1);

/// How Envoy is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The executable; a name without `/` is searched in PATH.
    pub binary: PathBuf,
    /// Value of `--log-level`.
    pub log_level: String,
    /// Value of `--component-log-level`.
    pub component_log_level: Option<String>,
    /// Value of `--concurrency`.
    pub concurrency: Option<u32>,
    /// Value of `--drain-time-s`: how long draining listeners stay open.
    pub drain_time: Duration,
    /// Whether Envoy becomes another user ([`ENVOY_UID`]) and keeps only the capabilities that it needs; for that this process must be root.
    pub own_user: bool,
}

impl Options {
    /// Envoy's arguments for the bootstrap in `paths`.
    fn arguments(&self, paths: &Paths) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![
            "--config-path".into(),
            paths.bootstrap().into(),
            // Hot restart shares memory between Envoys of one base id; sidecars are not restarted in place.
            "--disable-hot-restart".into(),
            // The log of connections would come up to ten seconds late.
            "--file-flush-interval-msec".into(),
            "500".into(),
            "--log-format".into(),
            log::FORMAT.into(),
            "--log-format-escaped".into(),
            "--log-level".into(),
            self.log_level.clone().into(),
            "--drain-time-s".into(),
            self.drain_time.as_secs().to_string().into(),
        ];
        if let Some(levels) = &self.component_log_level {
            arguments.extend(["--component-log-level".into(), levels.into()]);
        }
        if let Some(threads) = self.concurrency {
            arguments.extend(["--concurrency".into(), threads.to_string().into()]);
        }
        arguments
    }
}

/// Supervision failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuperviseError {
    /// The executable cannot be started.
    #[error(
        "cannot start Envoy from `{}`; install Envoy or set CONTRAST_ENVOY_BINARY to its path",
        binary.display()
    )]
    Start {
        /// The executable.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Envoy ended although nobody asked it to.
    #[error("Envoy ended unasked with {status}; {tail}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        tail: LogTail,
    },
    /// Envoy did not become live in time.
    #[error("Envoy was not live with its certificates loaded after {} s; {tail}", waited.as_secs())]
    NotLive {
        /// How long it was waited for.
        waited: Duration,
        /// What it said.
        tail: LogTail,
    },
    /// The system does not say how the child is doing.
    #[error("cannot wait for Envoy")]
    Wait(#[source] io::Error),
}

/// A running Envoy. Dropping it kills the process.
#[derive(Debug)]
pub struct Envoy {
    child: Child,
    tail: LogTail,
    log: Tasks,
}

impl Envoy {
    /// Starts Envoy with the bootstrap in `paths`. Its log becomes events of ours.
    ///
    /// # Errors
    /// When the executable cannot be started.
    pub fn start(options: &Options, paths: &Paths) -> Result<Self, SuperviseError> {
        let start_error = |source| SuperviseError::Start {
            binary: options.binary.clone(),
            source,
        };
        let mut command = Command::new(&options.binary);
        command
            .args(options.arguments(paths))
            .stdin(Stdio::null())
            // The log of connections is for whoever collects the output of this container.
            .stdout(Stdio::inherit())
            .stderr(Stdio::piped())
            // A group of its own, so that Ctrl-C reaches us only and Envoy is drained instead of ended.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = if options.own_user {
            command.uid(ENVOY_UID).gid(ENVOY_UID);
            let runtime = Handle::current();
            privileges::with_kept_capabilities(|| {
                let _guard = runtime.enter();
                command.spawn()
            })
        } else {
            command.spawn()
        }
        .map_err(start_error)?;
        let tail = LogTail::default();
        let mut log = Tasks::default();
        if let Some(output) = child.stderr.take() {
            let tail = tail.clone();
            log.spawn("envoy-log", async move {
                log::forward(output, tail).await;
                Ok::<(), io::Error>(())
            });
        }
        tracing::info!(pid = child.id(), binary = %options.binary.display(), "Envoy started");
        Ok(Self { child, tail, log })
    }

    /// Waits until Envoy says that it is live and, if it `needs_certificates`, has taken them.
    ///
    /// # Errors
    /// When it ends, or is not live at the deadline.
    pub async fn wait_until_live(
        &mut self,
        admin: &AdminInterface,
        needs_certificates: bool,
        deadline: Duration,
    ) -> Result<(), SuperviseError> {
        let live = async {
            loop {
                match is_serving(admin, needs_certificates).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "Envoy is not live yet"
                    ),
                }
                sleep(POLL_INTERVAL).await;
            }
        };
        let tail = self.tail.clone();
        tokio::select! {
            // An Envoy that ended comes first: another process may answer on its admin port.
            biased;
            ended = self.ended() => Err(ended),
            live = timeout(deadline, live) => {
                live.map_err(|_| SuperviseError::NotLive { waited: deadline, tail })
            }
        }
    }

    /// Waits until Envoy ends unasked and says how.
    pub async fn ended(&mut self) -> SuperviseError {
        match self.wait().await {
            Ok(status) => SuperviseError::Ended {
                status,
                tail: self.tail.clone(),
            },
            Err(error) => error,
        }
    }

    /// Drains Envoy: listeners drain while connections are open, for at most `deadline` or until `force` is ready. Returns how it ended if it
    /// did meanwhile.
    ///
    /// # Errors
    /// When the system does not say how the child is doing.
    pub async fn drain(
        &mut self,
        admin: &AdminInterface,
        deadline: Duration,
        force: impl Future<Output = ()>,
    ) -> Result<Option<ExitStatus>, SuperviseError> {
        if !deadline.is_zero() {
            tokio::select! {
                status = self.wait() => return status.map(Some),
                () = drain_connections(admin, deadline) => {}
                () = force => tracing::warn!("told to stop again; open connections are ended"),
            }
        }
        Ok(None)
    }

    /// Stops Envoy with SIGTERM, and SIGKILL if that does not help.
    ///
    /// # Errors
    /// When the system does not say how the child is doing.
    pub async fn stop(mut self) -> Result<ExitStatus, SuperviseError> {
        self.signal(Signal::SIGTERM);
        if let Ok(status) = timeout(TERMINATION_GRACE, self.wait()).await {
            return status;
        }
        tracing::warn!(
            "Envoy did not end {} s after SIGTERM; it is killed",
            TERMINATION_GRACE.as_secs()
        );
        self.signal(Signal::SIGKILL);
        self.wait().await
    }

    /// Reaps the child and takes in the rest of its log.
    async fn wait(&mut self) -> Result<ExitStatus, SuperviseError> {
        let status = self.child.wait().await.map_err(SuperviseError::Wait)?;
        // A grandchild may hold the log open; what it still says is of no use here.
        let _ = self.log.join_within(LOG_GRACE).await;
        Ok(status)
    }

    fn signal(&self, signal: Signal) {
        // No id means that the child was reaped already; its number may belong to another process.
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) else {
            return;
        };
        if let Err(error) = kill(Pid::from_raw(pid), signal) {
            tracing::warn!(error = &error as &dyn std::error::Error, %signal, "cannot signal Envoy");
        }
    }
}

async fn is_serving(admin: &AdminInterface, needs_certificates: bool) -> Result<bool, AdminError> {
    Ok(admin.is_live().await? && (!needs_certificates || admin.has_certificates().await?))
}

/// Tells Envoy to drain and waits until no connection is open, at most until the deadline.
async fn drain_connections(admin: &AdminInterface, deadline: Duration) {
    if let Err(error) = admin.drain_listeners().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot drain Envoy; it is stopped at once"
        );
        return;
    }
    let end = Instant::now() + deadline;
    loop {
        match admin.open_connections().await {
            Ok(0) => return tracing::info!("no connection is open"),
            Ok(open) if Instant::now() >= end => {
                return tracing::warn!(
                    open,
                    "connections are still open at the drain deadline; they are ended"
                );
            }
            Ok(open) => tracing::debug!(open, "waiting for connections to end"),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot ask Envoy for open connections"
                );
                return;
            }
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Exit code that tells `status` to our parent: Envoy's own, or 128 + signal number as shells do.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => signal.saturating_add(128),
        (None, None) => 1,
    };
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(binary: &str) -> Options {
        Options {
            binary: binary.into(),
            log_level: "info".to_owned(),
            component_log_level: None,
            concurrency: None,
            drain_time: Duration::from_secs(1),
            own_user: false,
        }
    }

    fn paths() -> Paths {
        Paths {
            tls_config: "/nowhere".into(),
            runtime: "/nowhere".into(),
        }
    }

    #[tokio::test]
    async fn missing_executable_is_named_with_the_variable_to_set() {
        let error = Envoy::start(&options("/nowhere/envoy"), &paths()).expect_err("no such file");
        let text = error.to_string();
        assert!(
            text.contains("/nowhere/envoy") && text.contains("CONTRAST_ENVOY_BINARY"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_process_that_ends_before_it_is_live_is_reported_with_its_output() {
        // `ls` refuses the arguments that Envoy takes, so it stands for any executable that is not Envoy.
        let mut process = Envoy::start(&options("ls"), &paths()).expect("ls starts");
        let admin = AdminInterface::Socket("/nowhere/admin.sock".into());
        let error = process
            .wait_until_live(&admin, false, Duration::from_secs(20))
            .await
            .expect_err("it ends");
        let SuperviseError::Ended { status, tail } = &error else {
            panic!("{error}")
        };
        assert_eq!(exit_code(*status), 2);
        assert!(tail.to_string().contains("option"), "{tail}");
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
