//! Encrypted volumes: opened before the application may start, closed when the pod ends.

mod options;
mod record;
mod standalone;

use std::{sync::Arc, time::Duration};

use contrast_clock::SystemEntropy;
use contrast_telemetry::exposure::PUBLIC;
use contrast_volume::{
    GenerationRecord, LoopFile, OpenVolume, Opener, Request, VolumeError, is_mounted,
};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

pub use options::VolumeOptions;
pub(crate) use record::CoordinatorRecord;
pub use standalone::{StandaloneError, StandaloneOptions, image_store, standalone};

/// How long the volume may stay in use when the pod ends. Kubernetes ends the Initializer after the application.
const CLOSE_PATIENCE: Duration = Duration::from_secs(20);

/// The volume cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// It panicked, which is a bug.
    #[error("the volume's task ended by itself; this is a bug in the Initializer")]
    Task,
    /// No key.
    #[error(
        "the pod has an encrypted volume and no workload secret to open it with; give its policy entry in the manifest a WorkloadSecretID"
    )]
    NoSecret,
}

/// A volume that is mounted, and what is below it.
pub(crate) struct Storage {
    volume: OpenVolume,
    file: Option<LoopFile>,
    record: Arc<dyn GenerationRecord + Send + Sync>,
}

impl Storage {
    /// Opens and mounts the volume.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn open(
        mut request: Request,
        file_bytes: Option<u64>,
        secret: Zeroizing<Vec<u8>>,
        record: Arc<dyn GenerationRecord + Send + Sync>,
    ) -> Result<Self, StorageError> {
        let work = move || -> Result<Self, VolumeError> {
            let attach = |bytes| LoopFile::attach(&request.device, bytes, request.format);
            let file = file_bytes.map(attach).transpose()?;
            if let Some(file) = &file {
                file.device().clone_into(&mut request.device);
            }
            let opener = Opener {
                workload_secret: &secret,
                record: record.as_ref(),
                entropy: &SystemEntropy,
            };
            let grown = match file.as_ref().zip(file_bytes) {
                Some((file, bytes)) if !is_mounted(&request.mount_point) => {
                    grow(&opener, file, bytes)
                }
                _ => Ok(()),
            };
            match grown.and_then(|()| opener.open(&request)) {
                Ok(volume) => Ok(Self {
                    volume,
                    file,
                    record,
                }),
                Err(error) => {
                    if let Some(Err(error)) = file.map(LoopFile::detach) {
                        tracing::warn!("{error}");
                    }
                    Err(error)
                }
            }
        };
        let storage = spawn_blocking(work)
            .await
            .map_err(|_| StorageError::Task)??;
        tracing::info!(
            volume = %storage.volume.uuid(),
            generation = storage.volume.generation(),
            exposure = PUBLIC,
            "the encrypted volume is mounted"
        );
        Ok(storage)
    }

    /// Unmounts and closes the volume.
    ///
    /// # Errors
    /// When somebody uses it, or the device fails. What was synchronised is on the disk all the same.
    pub(crate) async fn close(self) -> Result<(), StorageError> {
        let work = move || -> Result<(), VolumeError> {
            self.volume.close(self.record.as_ref(), CLOSE_PATIENCE)?;
            self.file.map_or(Ok(()), LoopFile::detach)
        };
        spawn_blocking(work)
            .await
            .map_err(|_| StorageError::Task)??;
        tracing::info!(exposure = PUBLIC, "the encrypted volume is closed");
        Ok(())
    }
}

/// A file that the host cut off stays as it is, so that opening it is refused.
fn grow(opener: &Opener<'_>, file: &LoopFile, bytes: u64) -> Result<(), VolumeError> {
    if file.is_shorter_than(bytes)? && opener.may_grow(file.device())? {
        file.grow(bytes)?;
    }
    Ok(())
}
