use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use contrast_telemetry::drain::Watcher;
use rustix::fs::statvfs;
use tokio::task::spawn_blocking;

use super::Metrics;

const PERIOD: Duration = Duration::from_secs(30);

/// Measures the file system of `directory` from time to time until draining starts. Not while somebody waits for metrics: the host
/// may let a disk hang.
pub(crate) async fn measure(
    directory: PathBuf,
    metrics: Arc<Metrics>,
    drain: Watcher,
) -> Result<(), Infallible> {
    while !drain.is_draining() {
        let of = directory.clone();
        tokio::select! {
            measured = spawn_blocking(move || statvfs(&of)) => match measured {
                Ok(Ok(found)) => metrics.store_measured(
                    found.f_blocks.saturating_mul(found.f_frsize),
                    found.f_bavail.saturating_mul(found.f_frsize),
                ),
                // Whoever writes there says more.
                Ok(Err(error)) => tracing::debug!(%error, "the data directory cannot be measured"),
                Err(error) => tracing::debug!(%error, "the data directory was not measured"),
            },
            () = drain.draining() => return Ok(()),
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = drain.draining() => {}
        }
    }
    Ok(())
}
