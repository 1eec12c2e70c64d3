use std::{sync::Arc, time::Duration};

use contrast_clock::WallClock;
use contrast_telemetry::exposure::PUBLIC;
use tokio::task::spawn_blocking;

use super::AppError;
use crate::{
    audit::{Queue, Recorder, subject},
    config::Config,
    ops::Metrics,
};

/// How long the last records may take to be written.
const AUDIT_STOP: Duration = Duration::from_secs(1);

/// Opens the audit stream of this process. `key` proves this Coordinator in attested TLS, `boot` is the number of this process.
pub(super) fn open(
    config: &Config,
    clock: &Arc<dyn WallClock>,
    metrics: &Metrics,
    (key, boot): (&[u8], u64),
) -> Result<Arc<Recorder>, AppError> {
    let metrics = metrics.audit();
    let log = config.audit_log.open()?;
    let queue = log.map(|file| Queue::start(file, metrics.write_failures()));
    let queue = queue.transpose().map_err(AppError::AuditThread)?;
    let recorder = Recorder::new(Arc::clone(clock), queue, metrics);
    recorder.record(subject::started(key, boot));
    Ok(Arc::new(recorder))
}

/// Records the end and waits for what is not written yet.
pub(super) async fn close(recorder: Arc<Recorder>, graceful: bool) {
    let closed = spawn_blocking(move || recorder.close(subject::stopped(graceful), AUDIT_STOP));
    if !closed.await.unwrap_or(false) {
        tracing::error!(
            exposure = PUBLIC,
            "the last records of the audit stream could not be written"
        );
    }
}
