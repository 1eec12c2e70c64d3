use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use contrast_atls::{ClientConfig, Identity, IdentityError, Limits};
use contrast_attestation::PlatformError;
use contrast_clock::{SystemWallClock, WallClock};
use contrast_collateral::AzureImds;
use contrast_telemetry::drain;

use crate::{
    Config, Enrolled, InstallError, enroll, ingress::open_ingress, install, renewal_delay,
};

const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

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
    /// Files could not be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The first enrolment did not succeed in time.
    #[error("not enrolled within {deadline:?}; the log above says why each attempt failed")]
    Deadline {
        /// How long it was tried.
        deadline: Duration,
    },
    /// An encrypted volume was asked for.
    #[error(
        "the pod asks for the encrypted volume {} (CRYPTSETUP_DEVICE), and this version of the Initializer cannot open one; use a version that can, \
         or remove the annotation contrast.edgeless.systems/secure-pv and generate again",
        device.display()
    )]
    EncryptedVolume {
        /// The block device.
        device: std::path::PathBuf,
    },
    /// Signals cannot be received.
    #[error("cannot install signal handlers")]
    Signals(#[source] std::io::Error),
}

/// Enrols, installs, and renews until a termination signal arrives (or once, if so configured); or only waits for the signal.
///
/// # Errors
/// When an encrypted volume is asked for, there is no TEE, files cannot be written, or the first enrolment misses its deadline.
pub async fn run(config: Config) -> Result<(), AppError> {
    if config.hold {
        let signal = drain::termination_signal().await;
        let signal = signal.map_err(AppError::Signals)?;
        tracing::info!(signal, "stopping");
        return Ok(());
    }
    // Before anything is installed: the startup probe must not succeed, or the application would write into memory what was to be on the disk.
    if let Some(device) = config.cryptsetup_device {
        return Err(AppError::EncryptedVolume { device });
    }
    let work = enroll_and_renew(&config);
    tokio::select! {
        outcome = work => outcome,
        signal = drain::termination_signal() => {
            let signal = signal.map_err(AppError::Signals)?;
            tracing::info!(signal, "stopping");
            Ok(())
        }
    }
}

async fn enroll_and_renew(config: &Config) -> Result<(), AppError> {
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    // One key for the pod's whole life: a renewal then changes a single file, and no reader can see a key and a chain that
    // do not belong together.
    let identity = Arc::new(Identity::generate(clock.now())?);
    let client = ClientConfig {
        identity,
        issuer: Some(config.issuer().issuer_on(AzureImds::shared())?),
        verifier: None,
        clock: Arc::clone(&clock),
        limits: Limits::client(),
    };
    let address = config.coordinator_authority();

    let first = enroll_with_retries(&address, &client);
    let mut enrolled = match config.enroll_deadline() {
        None => first.await,
        Some(deadline) => tokio::time::timeout(deadline, first)
            .await
            .map_err(|_| AppError::Deadline { deadline })?,
    };
    let mut opens_ingress = config.service_mesh_disabled;
    loop {
        install(&config.base_dir, &enrolled)?;
        if std::mem::take(&mut opens_ingress) {
            // It blocks for milliseconds; it cannot panic, so that there is no outcome to look at.
            let _ = tokio::task::spawn_blocking(open_ingress).await;
        }
        tracing::info!(
            directory = %config.base_dir.display(),
            workload_secret = enrolled.workload_secret.is_some(),
            "certificate installed"
        );
        if config.once {
            return Ok(());
        }
        let delay = renewal_delay(clock.now(), enrolled.not_after);
        tracing::debug!(delay_s = delay.as_secs(), "waiting for renewal");
        tokio::time::sleep(delay).await;
        enrolled = enroll_with_retries(&address, &client).await;
    }
}

/// Tries until it works, with jittered exponential pauses, so that a thousand pods that start together do not knock
/// together.
async fn enroll_with_retries(address: &str, client: &ClientConfig) -> Enrolled {
    let policy = ExponentialBuilder::default()
        .with_min_delay(RETRY_DELAY_MIN)
        .with_max_delay(RETRY_DELAY_MAX)
        .with_jitter()
        .without_max_times();
    let mut delays = policy.build();
    let mut attempt = 1_u64;
    loop {
        let error = match enroll(address, client).await {
            Ok(enrolled) => return enrolled,
            Err(error) => error,
        };
        let delay = delays.next().unwrap_or(RETRY_DELAY_MAX);
        tracing::warn!(
            attempt,
            retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            "not enrolled yet: {:#}",
            anyhow::Error::new(error)
        );
        tokio::time::sleep(delay).await;
        attempt = attempt.saturating_add(1);
    }
}
