//! `contrast dashboard`: a page about the deployment, on this machine.

use std::sync::Arc;

use contrast_clock::{SystemWallClock, WallClock};

use super::{collateral, read_manifest, warn_if_insecure};
use crate::{
    args::DashboardArgs,
    dashboard::{Dashboard, Source},
    diagnostic::Failure,
    kube,
    output::Output,
    workspace::{MANIFEST, Workspace},
};

/// Serves until it is interrupted.
///
/// # Errors
/// When the manifest cannot be read, or the port not be had.
pub(super) async fn run(
    args: &DashboardArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let manifest = read_manifest(&workspace.choose(args.manifest.as_deref(), MANIFEST))?;
    warn_if_insecure(&manifest, output);
    let collateral = collateral::open(&args.collateral)?;
    let dashboard = Dashboard::bind(args.listen).await?;
    let (addresses, mut way) = kube::reach(&args.coordinators, output).await?.split();
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    let source = Source::new(addresses, manifest, collateral, clock);
    output.raw(format!("{}\n", dashboard.url()).as_bytes())?;
    output.note("until you interrupt it");
    tokio::select! {
        ended = dashboard.serve(source) => Ok(ended?),
        lost = way.lost() => Err(lost.into()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}
