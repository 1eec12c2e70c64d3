//! `contrast verify`: one verdict for the whole deployment.

use std::{error::Error as _, path::PathBuf, sync::Arc};

use contrast_clock::{SystemWallClock, WallClock};
use contrast_manifest::{Manifest, diff};

use super::{collateral, read_manifest};
use crate::{
    args::VerifyArgs,
    attempts::{AttemptError, Attempts, shown},
    diagnostic::{Diagnose, Failure},
    dial::{DialError, Session},
    exit::Exit,
    output::Output,
    verify::{
        files,
        history::{History, newest_manifest},
        report::{Report, Row, Rows},
    },
    workspace::{MANIFEST, VERIFY_DIR, Workspace},
};

/// The Coordinator answered, and the answer is not what it must be.
#[derive(Debug, thiserror::Error)]
enum VerdictError {
    #[error("the Coordinator's history is not consistent{}", listed(.failed))]
    History { failed: Vec<Row> },
    #[error(
        "the Coordinator's history was rolled back or forked, or this is another deployment{}",
        listed(.failed)
    )]
    Memory { failed: Vec<Row>, dir: PathBuf },
    #[error("the Coordinator enforces another manifest than `{}`", .manifest.display())]
    Manifest {
        manifest: PathBuf,
        newest: PathBuf,
        #[source]
        difference: Difference,
    },
}

/// How the manifests differ.
#[derive(Debug, thiserror::Error)]
#[error("given manifest (expected) and newest manifest of the Coordinator (found) differ\n{0}")]
struct Difference(diff::ManifestDiff);

impl Diagnose for VerdictError {
    fn exit(&self) -> Exit {
        Exit::Negative
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::History { .. } => vec![
                "do not trust this deployment; nothing was written to the workspace".into(),
            ],
            Self::Memory { dir, .. } => vec![
                "do not trust this deployment until its operator explains what happened; nothing was written to the \
                 workspace"
                    .into(),
                format!(
                    "if it was set up anew on purpose, remove `{}` and `latest-transition` and verify again",
                    dir.display()
                ),
            ],
            Self::Manifest { newest, .. } => vec![
                "somebody updated the manifest, or you were given another one".into(),
                format!(
                    "audit `{}`; if it is what you want to trust, verify again with `--manifest {0}`",
                    newest.display()
                ),
            ],
        }
    }
}

fn listed(rows: &[Row]) -> String {
    rows.iter()
        .map(
            |Row {
                 name,
                 expected,
                 found,
                 ..
             }| { format!("\n{name}: expected {expected}, found {found}") },
        )
        .collect()
}

/// Attests the Coordinator, checks its history, writes `verify/`, and compares the manifest.
///
/// # Errors
/// When the Coordinator cannot be reached, or the verdict is negative; the report is printed in both cases of a verdict.
pub(super) async fn run(
    args: &VerifyArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let path = workspace.choose(args.manifest.as_deref(), MANIFEST);
    let manifest = read_manifest(&path)?;
    let memory = files::recall(workspace)?;

    let collateral = collateral::open(&args.collateral)?;
    let addresses = &args.coordinators.coordinator;
    let spinner = output.spinner(&format!("attesting {}", shown(addresses)));
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    let mut attempts = Attempts::brief(addresses);
    let (coordinator, session, response) = loop {
        let address = attempts.address();
        let attempt = async {
            let mut session = Session::attest(address, &manifest, &collateral, &clock).await?;
            spinner.message("reading the history");
            let response = session.manifests().await?;
            Ok((session, response))
        };
        let failed = match attempt.await {
            Ok((session, response)) => break (address.to_string(), session, response),
            Err(error) => attempts.next(error, &spinner).await,
        };
        match failed {
            Ok(()) => {}
            Err(AttemptError::Dial(error)) => {
                drop(spinner);
                let coordinator = address.to_string();
                return Err(refused(args, coordinator, &manifest, error, output)?);
            }
            Err(error) => return Err(error.into()),
        }
    };
    drop(spinner);
    let mut rows = Rows::default();
    rows.accepted(&manifest, session.evidence());

    let history = History::check(&response, &memory);
    let consistent = history.consistent.passed();
    let remembered = history.remembered.failed().next().is_none();
    rows.extend(history.consistent.clone());
    rows.extend(history.remembered.clone());
    let files = match consistent && remembered {
        true => files::write(workspace, &response, &history)?,
        false => Vec::new(),
    };
    let newest = newest_manifest(&response).unwrap_or_default();
    rows.equal(
        "newest manifest SHA-256",
        manifest.hash().to_string(),
        contrast_manifest::ManifestHash::of(newest).to_string(),
    );

    let report = Report {
        latest_transition: history.latest(),
        files,
        ..Report::new(coordinator, &manifest, rows)
    };
    output.result(args.format.format, &report)?;
    let failed = |rows: &Rows| rows.failed().cloned().collect::<Vec<_>>();
    if !consistent {
        return Err(VerdictError::History {
            failed: failed(&history.consistent),
        }
        .into());
    }
    if !remembered {
        let failed = failed(&history.remembered);
        return Err(VerdictError::Memory {
            failed,
            dir: workspace.path(VERIFY_DIR),
        }
        .into());
    }
    if newest != manifest.bytes() {
        let index = response
            .manifests
            .iter()
            .position(|bytes| bytes == newest)
            .unwrap_or_default();
        return Err(VerdictError::Manifest {
            manifest: path,
            newest: workspace.path(&format!("{VERIFY_DIR}/manifest.{index}.json")),
            difference: Difference(diff::explain(manifest.bytes(), newest)),
        }
        .into());
    }
    Ok(())
}

/// Evidence that was refused is a verdict too: it gets a report.
fn refused(
    args: &VerifyArgs,
    coordinator: String,
    manifest: &Manifest,
    error: DialError,
    output: &Output,
) -> Result<Failure, Failure> {
    if error.exit() == Exit::Negative {
        let mut rows = Rows::default();
        match error.appraisal() {
            Some(report) => rows.refused(report),
            None => {
                let found = error
                    .source()
                    .map_or_else(|| error.to_string(), ToString::to_string);
                rows.record(
                    "Coordinator evidence",
                    "meets a reference value",
                    found,
                    false,
                );
            }
        }
        output.result(
            args.format.format,
            &Report::new(coordinator, manifest, rows),
        )?;
    }
    Ok(error.into())
}
