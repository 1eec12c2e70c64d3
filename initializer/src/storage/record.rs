//! The Coordinator as the one who remembers generations.

use std::future::Future;

use backon::{BackoffBuilder as _, ExponentialBuilder, Retryable as _};
use contrast_volume::{Advanced, GenerationRecord, RecordError};
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::volume_record::{Advance, VolumeRecord, VolumeRecordError};

/// Pauses double from a fraction of a second; after about a minute the volume stays closed, and the pod is started anew.
const ATTEMPTS: usize = 8;

/// Asked from threads that may wait.
#[derive(Debug)]
pub(crate) struct CoordinatorRecord {
    record: VolumeRecord,
    runtime: Handle,
}

impl CoordinatorRecord {
    /// To be called where tokio runs.
    pub(crate) fn new(record: VolumeRecord) -> Self {
        Self {
            record,
            runtime: Handle::current(),
        }
    }

    fn ask<T, F>(&self, question: impl FnMut() -> F) -> Result<T, RecordError>
    where
        F: Future<Output = Result<T, VolumeRecordError>>,
    {
        let pauses = ExponentialBuilder::default()
            .with_max_times(ATTEMPTS)
            .build();
        let answer = question
            .retry(pauses)
            .when(VolumeRecordError::may_pass)
            .notify(|error, pause| {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    ?pause,
                    "asking again"
                );
            });
        Ok(self.runtime.block_on(answer)?)
    }
}

impl GenerationRecord for CoordinatorRecord {
    fn recorded(&self, volume: Uuid) -> Result<Option<u64>, RecordError> {
        self.ask(|| self.record.get(volume.into_bytes()))
    }

    fn advance(&self, volume: Uuid, generation: u64) -> Result<Advanced, RecordError> {
        let answer = self.ask(|| self.record.advance(volume.into_bytes(), generation))?;
        Ok(match answer {
            Advance::Accepted => Advanced::Recorded,
            Advance::Refused { recorded } => Advanced::Behind { recorded },
        })
    }
}
