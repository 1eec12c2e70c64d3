//! The order of things: check, wait for certificates, write Envoy's configuration, start it, serve, drain.

use std::{
    convert::Infallible,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use contrast_firewall::FirewallError;
use contrast_telemetry::{drain::termination_signal, exposure::PUBLIC};
use prost::Message;
use tempfile::TempDir;

use crate::{
    certificates::{self, CertificatesError},
    config::{Config, ConfigError},
    envoy::{Paths, admin::AdminInterface, bootstrap, certificate_file, peer_ca_file},
    gate::Gate,
    metrics::Metrics,
    model::{IngressPort, Mesh, Mode, Protection},
    peer::WorkloadPattern,
    privileges,
    supervise::{Envoy, Options, SuperviseError, exit_code},
};

/// Exit code when the configuration cannot be used, as in `sysexits.h` (EX_USAGE).
pub const EXIT_USAGE: u8 = 64;

/// The sidecar cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No certificates.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
    /// Envoy failed.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    /// Connections cannot be redirected.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// A file or directory of ours cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The port for metrics cannot be had.
    #[error(
        "cannot listen on port {port} for metrics (CONTRAST_METRICS_PORT); is it the application's?"
    )]
    Metrics {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The handlers for SIGTERM and SIGINT cannot be installed.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
}

impl AppError {
    /// Exit code of the process: Envoy's when Envoy ended with a failure, [`EXIT_USAGE`] for configuration, otherwise 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_USAGE,
            Self::Supervise(SuperviseError::Ended { status, .. }) => exit_code(*status).max(1),
            _ => 1,
        }
    }
}

/// Runs the sidecar until Envoy ends or SIGTERM or SIGINT arrives; returns the exit code after an orderly stop.
///
/// # Errors
/// When the configuration cannot be used, certificates do not appear, or Envoy does not start or ends unasked.
pub async fn run(config: &Config) -> Result<u8, AppError> {
    let mesh = config.mesh()?;
    describe(&mesh);
    let gate = Gate::close(&mesh)?;
    let tls_config = config.base_dir.join("tls-config");
    let ready = ReadyFile::absent(&config.ready_file)?;

    // Polled from here on, so that no signal is lost between the steps.
    let termination = termination_signal();
    tokio::pin!(termination);
    if mesh.needs_certificates() {
        tokio::select! {
            outcome = certificates::wait(&tls_config, config.certificate_timeout()) => outcome?,
            signal = &mut termination => return stopped_early(signal),
        }
    }

    gate.redirect()?;
    let runtime = runtime_directory(config.runtime_dir.as_deref())?;
    let paths = Paths {
        tls_config,
        runtime: runtime.path().to_owned(),
    };
    write_configuration(&mesh, &paths)?;
    if gate.is_there() {
        hand_over(&paths)?;
    }
    let admin = AdminInterface::of(&mesh, &paths);
    let options = Options {
        binary: config.envoy_binary.clone(),
        log_level: config.envoy_log_level.clone(),
        component_log_level: config.component_log_level.clone(),
        concurrency: config.concurrency,
        drain_time: config.drain_timeout(),
        own_user: gate.is_there(),
    };
    let metrics = serve_metrics(&mesh, &admin, &config.base_dir).await?;
    tokio::pin!(metrics);
    let mut envoy = Envoy::start(&options, &paths)?;
    tokio::select! {
        outcome = envoy.wait_until_live(&admin, mesh.needs_certificates(), config.start_timeout()) => outcome?,
        signal = &mut termination => return stopped_early(signal),
    }
    gate.open()?;
    let ready = ready.create()?;
    tracing::info!(exposure = PUBLIC, "Envoy is live; the mesh is ready");

    let signal = tokio::select! {
        ended = envoy.ended() => return Err(ended.into()),
        never = &mut metrics => match never {},
        signal = &mut termination => signal.map_err(AppError::Signals)?,
    };
    tracing::info!(
        signal,
        timeout_s = config.drain_timeout_seconds,
        exposure = PUBLIC,
        "draining"
    );
    drop(ready);
    let again = async {
        if termination_signal().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    // Draining is worth watching too.
    let ended = tokio::select! {
        ended = envoy.drain(&admin, config.drain_timeout(), again) => ended?,
        never = &mut metrics => match never {},
    };
    gate.close_again();
    let status = match ended {
        Some(status) => status,
        None => envoy.stop().await?,
    };
    tracing::info!(%status, exposure = PUBLIC, "Envoy stopped");
    Ok(exit_code(status))
}

/// Listens for whoever wants metrics, if somebody may; serves when polled.
async fn serve_metrics(
    mesh: &Mesh,
    admin: &AdminInterface,
    base_dir: &Path,
) -> Result<impl Future<Output = Infallible> + use<>, AppError> {
    let metrics = match mesh.metrics() {
        None => None,
        Some(port) => {
            let metrics = Metrics::listen(port, admin.clone(), base_dir.to_owned()).await;
            Some(metrics.map_err(|source| AppError::Metrics { port, source })?)
        }
    };
    Ok(async {
        match metrics {
            Some(metrics) => metrics.serve().await,
            None => std::future::pending().await,
        }
    })
}

fn stopped_early(signal: io::Result<&'static str>) -> Result<u8, AppError> {
    let signal = signal.map_err(AppError::Signals)?;
    tracing::info!(signal, "stopped before the mesh was ready");
    Ok(0)
}

/// Says what will be served, and what a reader should worry about.
fn describe(mesh: &Mesh) {
    if let Mode::Explicit { .. } = mesh.mode() {
        tracing::warn!(
            "explicit ingress mode: nothing redirects traffic, so a port that the application opens itself is outside the mesh"
        );
    }
    for IngressPort {
        name,
        port,
        protection,
        protocol,
        ..
    } in mesh.ingress()
    {
        match protection {
            Protection::MutualTls { allow } if allow.is_empty() => {
                tracing::info!(%name, port, %protocol, "ingress with mutual TLS");
            }
            Protection::MutualTls { allow } => {
                let allow: Vec<_> = allow.iter().map(WorkloadPattern::spiffe_regex).collect();
                tracing::info!(%name, port, %protocol, ?allow, "ingress with mutual TLS for the allowed workloads");
            }
            Protection::Tls => {
                tracing::info!(%name, port, %protocol, "ingress with TLS, client certificate optional, as its entry demands");
            }
            Protection::Plain => {
                tracing::warn!(%name, port, "ingress WITHOUT TLS, as its entry demands");
            }
        }
    }
    if mesh.serves_other_ports() {
        tracing::info!("ingress with mutual TLS on every other TCP port");
    }
    for route in mesh.egress() {
        tracing::info!(name = %route.name, listens = ?route.listens, capture = ?route.capture, remote = %route.remote, peer = ?route.peer, "egress with mutual TLS");
    }
    for port in mesh.exposed_admin() {
        tracing::warn!(name = %port.name, port = port.port, "ingress exposes Envoy's admin interface, which allows destructive calls");
    }
    if mesh.admin().is_some_and(|admin| !admin.ip().is_loopback()) {
        tracing::warn!(admin = ?mesh.admin(), "Envoy's admin interface is reachable without TLS from outside the pod");
    }
    if mesh.ingress().is_empty() && !mesh.serves_other_ports() {
        tracing::info!("no ingress port is served");
    }
}

fn runtime_directory(parent: Option<&Path>) -> Result<TempDir, AppError> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .prefix("contrast-service-mesh-")
        .tempdir_in(&parent)
        .map_err(|source| AppError::Write {
            path: parent,
            source,
        })
}

/// Writes Envoy's bootstrap and the secret discovery files into the runtime directory.
///
/// # Errors
/// When a file cannot be written.
pub fn write_configuration(mesh: &Mesh, paths: &Paths) -> Result<(), AppError> {
    write(paths.bootstrap(), &bootstrap(mesh, paths))?;
    write(paths.certificate_secret(), &certificate_file(paths))?;
    write(paths.peer_ca_secret(), &peer_ca_file(paths))
}

/// Gives what Envoy reads and writes to Envoy's user.
fn hand_over(paths: &Paths) -> Result<(), AppError> {
    let files = [
        paths.runtime.clone(),
        paths.bootstrap(),
        paths.certificate_secret(),
        paths.peer_ca_secret(),
    ];
    files.into_iter().try_for_each(|path| {
        privileges::give_to_envoy(&path).map_err(|source| AppError::Write { path, source })
    })
}

fn write(path: PathBuf, message: &impl Message) -> Result<(), AppError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&message.encode_to_vec())
    };
    write().map_err(|source| AppError::Write {
        path: path.clone(),
        source,
    })
}

/// The file that says "ready". It exists only between [`ReadyFile::create`] and the drop of what that returns.
struct ReadyFile(PathBuf);

/// Removes the ready file when dropped.
struct Ready(PathBuf);

impl ReadyFile {
    /// Removes what an earlier run left behind.
    fn absent(path: &Path) -> Result<Self, AppError> {
        match fs::remove_file(path) {
            Ok(()) => {
                tracing::info!(path = %path.display(), "removed the ready file of an earlier run")
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(AppError::Write {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        Ok(Self(path.to_owned()))
    }

    fn create(self) -> Result<Ready, AppError> {
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.0)
        {
            Ok(_) => Ok(Ready(self.0)),
            Err(source) => Err(AppError::Write {
                path: self.0,
                source,
            }),
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(error = &error as &dyn std::error::Error, path = %self.0.display(), "cannot remove the ready file");
        }
    }
}
