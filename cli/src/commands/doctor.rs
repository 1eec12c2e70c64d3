//! `contrast doctor`: whether this machine, the cluster and the way to both are fit for a deployment.

use std::time::Duration;

use contrast_clock::SystemWallClock;
use tokio::task::block_in_place;

use crate::{
    args::DoctorArgs,
    diagnostic::{Diagnose, Failure},
    doctor::{Report, cluster, machine, proxies, vendors},
    exit::Exit,
    output::Output,
    workspace::Workspace,
};

#[derive(Debug, thiserror::Error)]
#[error("{failed} check(s) failed")]
struct Unfit {
    failed: usize,
}

impl Diagnose for Unfit {
    fn exit(&self) -> Exit {
        Exit::Negative
    }
}

/// Checks everything and prints the rows.
///
/// # Errors
/// When a check failed; the report is printed all the same.
pub(super) async fn run(
    args: &DoctorArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let ours = SystemWallClock;
    let mut checks = machine(workspace);
    checks.push(proxies());
    let spinner = output.spinner("asking the vendors' services");
    let timeout = Duration::from_secs(args.timeout);
    checks.extend(block_in_place(|| vendors(&args.collateral, timeout, &ours)));
    if !args.no_kube {
        spinner.message("asking the cluster");
        checks.extend(cluster(args, &ours).await);
    }
    drop(spinner);
    let report = Report { checks };
    output.result(args.format.format, &report)?;
    match report.failed() {
        0 => Ok(()),
        failed => Err(Unfit { failed }.into()),
    }
}
