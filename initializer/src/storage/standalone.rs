//! Volumes that are opened without enrolling: by hand, in a container of one's own, or by the guest itself.

use std::{io, path::PathBuf, sync::Arc};

use clap::Args;
use contrast_clock::SystemEntropy;
use contrast_telemetry::drain;
use contrast_volume::{
    Advanced, GenerationRecord, RecordError, RollbackRule, VolumeError, open_ephemeral,
};
use zeroize::Zeroizing;

use crate::notify::{NotifyError, notify_ready};

use super::{CLOSE_PATIENCE, Storage, StorageError, VolumeOptions};

/// Length of the workload secret, bytes; twice as many hexadecimal digits.
const SECRET_BYTES: usize = 64;

/// Options of `initializer cryptsetup`.
#[derive(Debug, Clone, Args)]
pub struct StandaloneOptions {
    /// The volume.
    #[command(flatten)]
    pub volume: VolumeOptions,

    /// File with the workload secret, 128 hexadecimal digits, as the Initializer installs it.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/contrast/secrets/workload-secret-seed"
    )]
    pub secret_file: PathBuf,
}

/// A volume could not be opened or closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StandaloneError {
    /// Which one?
    #[error("no device: name the block device with --device-path, or in CRYPTSETUP_DEVICE")]
    NoDevice,
    /// Who would remember?
    #[error(
        "--rollback {0} needs a Coordinator, and `initializer cryptsetup` asks none; leave it out, or let the annotation secure-pv open the volume"
    )]
    NoRecord(RollbackRule),
    /// No key.
    #[error("cannot read the workload secret from {}", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another content.
    #[error("{} does not hold {SECRET_BYTES} bytes as hexadecimal digits", path.display())]
    NoSecret {
        /// The file.
        path: PathBuf,
    },
    /// The volume.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// An ephemeral volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// systemd waits to hear of it.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// Signals cannot be received.
    #[error("cannot install signal handlers")]
    Signals(#[source] io::Error),
}

/// Opens and mounts a volume, stays until a termination signal arrives, and closes it.
///
/// # Errors
/// When it cannot be opened or closed.
pub async fn standalone(options: StandaloneOptions) -> Result<(), StandaloneError> {
    let request = options.volume.request(RollbackRule::Off);
    let request = request.ok_or(StandaloneError::NoDevice)?;
    if request.rollback != RollbackRule::Off {
        return Err(StandaloneError::NoRecord(request.rollback));
    }
    let secret = read_secret(options.secret_file)?;
    let file_bytes = options.volume.file_bytes;
    let storage = Storage::open(request, file_bytes, secret, Arc::new(Nobody)).await?;
    wait_for_the_end().await?;
    Ok(storage.close().await?)
}

/// Encrypts a device with a key that is drawn now, mounts it, stays until a termination signal arrives, and gives it up.
///
/// # Errors
/// When it cannot be opened or closed.
pub async fn image_store(device: PathBuf, mount_point: PathBuf) -> Result<(), StandaloneError> {
    let open = move || open_ephemeral(&device, &mount_point, &SystemEntropy);
    let opened = tokio::task::spawn_blocking(open).await;
    let volume = opened.map_err(|_| StorageError::Task)??;
    tracing::info!("the image store is mounted");
    let ended = match notify_ready() {
        Ok(()) => wait_for_the_end().await,
        Err(error) => Err(error.into()),
    };
    let closed = tokio::task::spawn_blocking(move || volume.close(CLOSE_PATIENCE)).await;
    closed.map_err(|_| StorageError::Task)??;
    ended
}

async fn wait_for_the_end() -> Result<(), StandaloneError> {
    let signal = drain::termination_signal().await;
    let signal = signal.map_err(StandaloneError::Signals)?;
    tracing::info!(signal, "stopping");
    Ok(())
}

fn read_secret(path: PathBuf) -> Result<Zeroizing<Vec<u8>>, StandaloneError> {
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Zeroizing::new(text),
        Err(source) => return Err(StandaloneError::Secret { path, source }),
    };
    match hex::decode(text.trim_end()).map(Zeroizing::new) {
        Ok(secret) if secret.len() == SECRET_BYTES => Ok(secret),
        _ => Err(StandaloneError::NoSecret { path }),
    }
}

/// Remembers nothing, and is not asked: the rule is `off`.
#[derive(Debug)]
struct Nobody;

impl GenerationRecord for Nobody {
    fn recorded(&self, _: uuid::Uuid) -> Result<Option<u64>, RecordError> {
        Err("there is no Coordinator to ask".into())
    }

    fn advance(&self, _: uuid::Uuid, _: u64) -> Result<Advanced, RecordError> {
        Err("there is no Coordinator to ask".into())
    }
}
