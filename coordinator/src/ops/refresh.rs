use std::{convert::Infallible, sync::Arc, time::Duration};

use contrast_attestation::{Issuer, ReportData};
use contrast_collateral::CompletingIssuer;
use contrast_telemetry::drain::Watcher;
use tokio::task::spawn_blocking;

const PERIOD: Duration = Duration::from_mins(1);

/// Fetches the vendors' documents that are due, one after the other, until draining starts: first those that this
/// Coordinator's own evidence needs, later those that are about to end.
pub(crate) async fn keep_fresh(issuer: CompletingIssuer, drain: Watcher) -> Result<(), Infallible> {
    let own = issuer.clone();
    // No connection has report data of zeros, so nobody can use this evidence; what it lacks becomes due.
    let issued = spawn_blocking(move || own.issue(&ReportData([0; 64])).map(drop)).await;
    if let Ok(Err(error)) = issued {
        tracing::warn!(%error, "no evidence yet, so that its collateral is not fetched ahead");
    }
    while !drain.is_draining() {
        let now = issuer.clock.now();
        for item in issuer.collateral.due(now) {
            let collateral = Arc::clone(&issuer.collateral);
            // Failures are logged, counted and tried again by the collateral itself.
            let fetch = spawn_blocking(move || collateral.fetch(&item, now).map(drop));
            tokio::select! {
                _ = fetch => {}
                () = drain.draining() => return Ok(()),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = drain.draining() => {}
        }
    }
    Ok(())
}
