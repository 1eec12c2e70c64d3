//! `contrast status`: what a Coordinator says about itself and its cluster.

use std::{sync::Arc, time::Duration};

use contrast_clock::{SystemWallClock, WallClock};
use contrast_collateral::Collateral;
use contrast_manifest::Manifest;
use tokio::time::{MissedTickBehavior, interval};

use super::{collateral, read_manifest};
use crate::{
    address::CoordinatorAddress,
    args::StatusArgs,
    attempts::{Attempts, shown},
    diagnostic::{Diagnose, Failure},
    dial::Session,
    exit::Exit,
    kube,
    output::Output,
    status::{Status, StatusError},
    workspace::{MANIFEST, Workspace},
};

impl Diagnose for StatusError {
    fn exit(&self) -> Exit {
        Exit::Unavailable
    }

    fn hints(&self) -> Vec<String> {
        vec!["the Coordinator is of another version than this `contrast`".into()]
    }
}

/// The Coordinator answered, and the answer is that it does not serve.
#[derive(Debug, thiserror::Error)]
#[error("the Coordinator at {coordinator} does not serve: {reason}")]
struct NotServing {
    coordinator: String,
    reason: String,
    role: String,
    quorum: bool,
}

impl Diagnose for NotServing {
    fn exit(&self) -> Exit {
        Exit::NotServing
    }

    fn hints(&self) -> Vec<String> {
        match self.role.as_str() {
            "empty" => vec!["set a manifest with `contrast set`".into()],
            "waiting" => vec![
                "it joins by itself as soon as a majority of the Coordinators runs and can reach it".into(),
                "if so many are lost that there can be no majority again, recover one of those that answer, or else the one \
                 with the newest disk, with `contrast recover`"
                    .into(),
            ],
            "joining" | "learner" => vec!["it is being admitted; ask again in a few seconds".into()],
            _ if !self.quorum => vec![
                "it runs apart from the majority: check the network between the Coordinators, and ask the others with \
                 `--coordinator`"
                    .into(),
            ],
            _ => Vec::new(),
        }
    }
}

/// Attests a Coordinator and shows its status, once or again and again.
///
/// # Errors
/// When none can be reached, its evidence is refused, or it does not serve; in the last case the status is printed. When it is shown again
/// and again, only what cannot change ends it.
pub(super) async fn run(
    args: &StatusArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let manifest = read_manifest(&workspace.choose(args.manifest.as_deref(), MANIFEST))?;
    let collateral = collateral::open(&args.collateral)?;
    let reached = kube::reach(&args.coordinators, output).await?;
    let (addresses, mut way) = reached.split();
    let ask = || ask(&addresses, &manifest, &collateral, output);
    let Some(seconds) = args.watch else {
        let status = ask().await?;
        output.result(args.format.format, &status)?;
        return serves(status);
    };
    let watch = async {
        let mut ticks = interval(Duration::from_secs(seconds));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match ask().await {
                Ok(status) => {
                    output.clear()?;
                    output.result(args.format.format, &status)?;
                    if let Err(failure) = serves(status) {
                        output.failure(&failure);
                    }
                }
                // It may come back; an impostor or a wrong manifest stays one.
                Err(failure) if failure.exit() == Exit::Unavailable => output.failure(&failure),
                Err(failure) => return Err::<(), Failure>(failure),
            }
        }
    };
    tokio::select! {
        ended = watch => ended,
        lost = way.lost() => Err(lost.into()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn ask(
    addresses: &[CoordinatorAddress],
    manifest: &Manifest,
    collateral: &Arc<Collateral>,
    output: &Output,
) -> Result<Status, Failure> {
    let spinner = output.spinner(&format!("attesting {}", shown(addresses)));
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    let (address, answer) = Attempts::brief(addresses)
        .first(&spinner, async |address| {
            let mut session = Session::attest(address, manifest, collateral, &clock).await?;
            Ok(session.status().await?)
        })
        .await?;
    drop(spinner);
    let insecure = manifest.accepts_insecure_evidence();
    Ok(Status::read(address.to_string(), insecure, &answer)?)
}

fn serves(status: Status) -> Result<(), Failure> {
    match status.not_serving_because {
        None => Ok(()),
        Some(reason) => Err(NotServing {
            coordinator: status.coordinator,
            reason,
            role: status.role,
            quorum: status.quorum.is_none_or(|quorum| quorum.confirmed),
        }
        .into()),
    }
}
