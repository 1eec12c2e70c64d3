use std::{sync::Arc, time::Duration};

use contrast_atls::{ClientConfig, Identity, IdentityError, Limits};
use contrast_attestation::PlatformError;
use contrast_clock::{SystemWallClock, WallClock};
use contrast_collateral::AzureImds;
use contrast_telemetry::{drain, exposure::PUBLIC};
use contrast_volume::RollbackRule;
use tokio::sync::{mpsc, watch};

use crate::{
    Config, InstallError, Rollover, Target,
    enroll::private_key_pem,
    follow::Coordinator,
    ingress::open_ingress,
    install::{self, DeploymentError},
    output::{Output, now},
    report::Reporter,
    storage::{CoordinatorRecord, Storage, StorageError},
};

/// The Initializer cannot do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// No TEE to prove anything with.
    #[error("this pod cannot prove what it runs")]
    Platform(#[from] PlatformError),
    /// The TLS identity could not be made.
    #[error("cannot make a TLS identity")]
    Identity(#[from] IdentityError),
    /// The own key cannot be written as PEM.
    #[error("the TLS key cannot be encoded")]
    Key(#[source] der::Error),
    /// The part that follows the Coordinator ended, which it never does by itself.
    #[error("certificates are not renewed any more; this is a bug in the Initializer")]
    Stopped,
    /// What the container before left cannot be read.
    #[error(transparent)]
    Deployment(#[from] DeploymentError),
    /// Files could not be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The first enrolment did not succeed in time.
    #[error("not enrolled within {deadline:?}; the log above says why each attempt failed")]
    Deadline {
        /// How long it was tried.
        deadline: Duration,
    },
    /// The encrypted volume.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Signals cannot be received.
    #[error("cannot install signal handlers")]
    Signals(#[source] std::io::Error),
}

/// Enrols, installs, and renews until a termination signal arrives (or once, if so configured); or only waits for the signal.
///
/// # Errors
/// When there is no TEE, an encrypted volume cannot be opened, files cannot be written, or the first enrolment misses its deadline.
pub async fn run(config: Config) -> Result<(), AppError> {
    if config.hold {
        let signal = drain::termination_signal().await;
        let signal = signal.map_err(AppError::Signals)?;
        tracing::info!(signal, exposure = PUBLIC, "stopping");
        return Ok(());
    }
    let mut storage = None;
    let outcome = tokio::select! {
        outcome = enroll_and_stay(&config, &mut storage) => outcome,
        signal = drain::termination_signal() => {
            let signal = signal.map_err(AppError::Signals)?;
            tracing::info!(signal, exposure = PUBLIC, "stopping");
            Ok(())
        }
    };
    match storage.filter(|_| !config.once) {
        Some(storage) => outcome.and(storage.close().await.map_err(AppError::from)),
        None => outcome,
    }
}

async fn enroll_and_stay(config: &Config, storage: &mut Option<Storage>) -> Result<(), AppError> {
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    // One key for the pod's whole life: a renewal then changes a single file, and no reader can see a key and a chain that
    // do not belong together.
    let identity = Arc::new(Identity::generate(clock.now())?);
    let output = Output {
        target: Target {
            base: config.base_dir.clone(),
            owner: config.files_owner,
            pull_credentials: config.pull_credentials_dir.clone(),
        },
        private_key: Arc::new(private_key_pem(&identity).map_err(AppError::Key)?),
        identity: Arc::clone(&identity),
        svid: watch::Sender::new(None),
        secret: watch::Sender::default(),
    };
    let coordinator = Coordinator {
        address: config.coordinator_authority(),
        reporter: Reporter::new(config.base_dir.clone()),
        client: ClientConfig {
            identity,
            issuer: Some(config.issuer().issuer_on(AzureImds::shared())?),
            verifier: None,
            clock,
            limits: Limits::client(),
        },
    };
    let _serving = output.serve(config);

    // The container may have been restarted, and the pod belongs to a deployment already.
    let deployment = install::root_key(&config.base_dir)?;
    let first = coordinator.enroll_with_retries(deployment.as_ref(), None);
    let first = match config.enroll_deadline() {
        None => first.await,
        Some(deadline) => tokio::time::timeout(deadline, first)
            .await
            .map_err(|_| AppError::Deadline { deadline })?,
    };
    // Before anything is installed: the startup probe must not succeed, or the application would write into memory what was to be on the disk.
    if let Some(request) = config.volume.request(RollbackRule::Strict) {
        let secret = first.workload_secret.as_ref();
        let secret = secret.ok_or(StorageError::NoSecret)?.clone();
        let record = CoordinatorRecord::new(coordinator.volume_record(first.root_key.clone()));
        let opened = Storage::open(request, config.volume.file_bytes, secret, Arc::new(record));
        *storage = Some(opened.await?);
    }
    let rollover = Rollover::begin(now(), &first);
    output.put(&rollover.credentials())?;
    if config.service_mesh_disabled {
        // It blocks for milliseconds; it cannot panic, so that there is no outcome to look at.
        let _ = tokio::task::spawn_blocking(open_ingress).await;
    }
    tracing::info!(
        workload_secret = first.workload_secret.is_some(),
        exposure = PUBLIC,
        "certificate installed"
    );
    if config.once {
        return Ok(());
    }
    let (answers, receiver) = mpsc::channel(1);
    tokio::select! {
        () = coordinator.follow(first, answers) => {}
        () = output.keep(rollover, receiver) => {}
    }
    Err(AppError::Stopped)
}
