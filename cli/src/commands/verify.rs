//! `contrast verify`: one verdict for the whole deployment.

use std::{error::Error as _, path::PathBuf, sync::Arc, time::SystemTime};

use contrast_clock::{SystemWallClock, WallClock};
use contrast_manifest::{Manifest, ManifestHash, diff};

use super::{collateral, read_manifest};
use crate::{
    args::VerifyArgs,
    attempts::{AttemptError, Attempts, shown},
    diagnostic::{Diagnose, Failure},
    dial::{DialError, Session},
    exit::Exit,
    output::Output,
    verify::{
        facts::{Authorities, EvidenceFacts},
        files,
        history::{History, newest_manifest},
        html,
        meaning::Kind,
        report::{Report, Verdict},
        rows::{Row, Rows},
        steps::{Changes, Side, steps},
    },
    workspace::{MANIFEST, VERIFY_DIR, Workspace, overwrite},
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
                let now = clock.now();
                return Err(refused(args, coordinator, &manifest, now, error, output)?);
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
        Kind::NewestManifest,
        "newest manifest SHA-256",
        manifest.hash().to_string(),
        ManifestHash::of(newest).to_string(),
    );

    let difference = (newest != manifest.bytes()).then(|| {
        let enforced = history.manifests.get(&ManifestHash::of(newest));
        let enforced = Side {
            bytes: newest,
            manifest: enforced,
        };
        Changes::between(&Side::of(&manifest), &enforced)
    });
    let report = Report {
        latest_transition: history.latest(),
        evidence: Some(EvidenceFacts::of(session.evidence())),
        authorities: Some(Authorities::of(&response.root_ca, &response.mesh_ca)),
        difference,
        history: steps(&response, &history),
        files,
        ..Report::new(coordinator, &manifest, clock.now(), rows)
    };
    publish(args, report, output)?;
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

/// Writes the page, and prints the report. A page that cannot be written is a failure only when there is no worse one: the verdict decides.
fn publish(args: &VerifyArgs, mut report: Report, output: &Output) -> Result<(), Failure> {
    let mut failed = None;
    if let Some(path) = &args.html {
        report.files.push(path.clone());
        if let Err(error) = overwrite(path, html::page(&report).as_bytes()) {
            report.files.pop();
            failed = Some(error);
        }
    }
    output.result(args.format.format, &report)?;
    match (failed, report.verdict) {
        (None, _) => Ok(()),
        (Some(error), Verdict::Verified) => Err(error.into()),
        (Some(error), Verdict::Refused) => {
            output.warning(&format!(
                "{error}: {}",
                error.source().map(ToString::to_string).unwrap_or_default()
            ));
            Ok(())
        }
    }
}

/// Evidence that was refused is a verdict too: it gets a report.
fn refused(
    args: &VerifyArgs,
    coordinator: String,
    manifest: &Manifest,
    now: SystemTime,
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
                    Kind::Evidence,
                    "Coordinator evidence",
                    "meets a reference value",
                    found,
                    false,
                );
            }
        }
        publish(args, Report::new(coordinator, manifest, now, rows), output)?;
    }
    Ok(error.into())
}
