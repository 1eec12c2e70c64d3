//! `contrast verify`: one verdict for the whole deployment.

use std::{
    error::Error as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use contrast_attestation::{AppraisalReport, VerifiedEvidence};
use contrast_clock::{SystemWallClock, WallClock};
use contrast_collateral::{Collateral, CompletingVerifier};
use contrast_manifest::{Manifest, ManifestHash, diff};
use contrast_proto::user::GetManifestsResponse;
use tokio::task::block_in_place;

use super::{collateral, read_manifest};
use crate::{
    args::VerifyArgs,
    attempts::{AttemptError, Attempts, shown},
    diagnostic::{Diagnose, Failure},
    dial::Session,
    exit::Exit,
    kube,
    output::Output,
    verify::{
        answer,
        facts::{Authorities, EvidenceFacts},
        files,
        history::{History, Memory, newest_manifest},
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

/// A Coordinator that proved itself, and what it said.
struct Proof {
    /// How it is named.
    coordinator: String,
    evidence: VerifiedEvidence,
    response: GetManifestsResponse,
    initdata_omitted: bool,
    /// PEM. Answers of the attest API have none.
    sealing_key: Option<String>,
}

/// Has the Coordinator's evidence judged, checks its history, writes `verify/`, and compares the manifest.
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
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    let given = match (&args.source.attest_api, &args.source.answer, &args.nonce) {
        (Some(url), ..) => Some(answer::ask(url, output)?),
        (None, Some(file), Some(nonce)) => Some(answer::read(file, *nonce)?),
        _ => None,
    };
    let proof = match given {
        None => attested(args, &manifest, &collateral, &clock, output).await?,
        Some(given) => {
            let verifier = CompletingVerifier {
                verifier: Arc::new(manifest.coordinator_verifier()),
                collateral,
            };
            let coordinator = given.source.to_string();
            // Collateral may have to be fetched.
            match block_in_place(|| given.verify(&verifier, clock.now())) {
                Ok((evidence, statement)) => Proof {
                    coordinator,
                    evidence,
                    initdata_omitted: statement.policies_omitted,
                    response: statement.into_history(),
                    sealing_key: None,
                },
                Err(error) => {
                    let asked = (coordinator, &manifest);
                    let why = (&error as &dyn Diagnose, error.appraisal());
                    refused(args, asked, clock.now(), why, output)?;
                    return Err(error.into());
                }
            }
        }
    };
    judge(
        args,
        workspace,
        (&path, &manifest),
        &memory,
        proof,
        clock.now(),
        output,
    )
}

/// Asks Coordinators over attested TLS.
async fn attested(
    args: &VerifyArgs,
    manifest: &Manifest,
    collateral: &Arc<Collateral>,
    clock: &Arc<dyn WallClock>,
    output: &Output,
) -> Result<Proof, Failure> {
    let reached = kube::through(&args.source.coordinator, &args.source.kube, output).await?;
    let addresses = &reached.addresses;
    let spinner = output.spinner(&format!("attesting {}", shown(addresses)));
    let mut attempts = Attempts::brief(addresses);
    loop {
        let address = attempts.address();
        let attempt = async {
            let mut session = Session::attest(address, manifest, collateral, clock).await?;
            spinner.message("reading the history");
            let response = session.manifests().await?;
            // The verdict does not depend on it.
            let sealing_key = session.sealing_key().await.ok().flatten();
            Ok((session, response, sealing_key))
        };
        let failed = match attempt.await {
            Ok((session, response, sealing_key)) => {
                return Ok(Proof {
                    coordinator: address.to_string(),
                    evidence: session.evidence().clone(),
                    response,
                    initdata_omitted: false,
                    sealing_key,
                });
            }
            Err(error) => attempts.next(error, &spinner).await,
        };
        match failed {
            Ok(()) => {}
            Err(AttemptError::Dial(error)) => {
                drop(spinner);
                let now = clock.now();
                let asked = (address.to_string(), manifest);
                refused(args, asked, now, (&error, error.appraisal()), output)?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Judges what the Coordinator said.
fn judge(
    args: &VerifyArgs,
    workspace: &Workspace,
    (path, manifest): (&Path, &Manifest),
    memory: &Memory,
    proof: Proof,
    now: SystemTime,
    output: &Output,
) -> Result<(), Failure> {
    let Proof {
        coordinator,
        evidence,
        response,
        initdata_omitted,
        sealing_key,
    } = proof;
    let mut rows = Rows::default();
    rows.accepted(manifest, &evidence);

    let history = match initdata_omitted {
        true => History::check_without_initdata(&response, memory),
        false => History::check(&response, memory),
    };
    let consistent = history.consistent.passed();
    let remembered = history.remembered.failed().next().is_none();
    rows.extend(history.consistent.clone());
    rows.extend(history.remembered.clone());
    let newest = newest_manifest(&response).unwrap_or_default();
    let enforced = newest == manifest.bytes();
    let files = match consistent && remembered {
        true => files::write(
            workspace,
            &response,
            &history,
            sealing_key.as_deref(),
            enforced,
        )?,
        false => Vec::new(),
    };
    rows.equal(
        Kind::NewestManifest,
        "newest manifest SHA-256",
        manifest.hash().to_string(),
        ManifestHash::of(newest).to_string(),
    );

    let difference = (!enforced).then(|| {
        let enforced = history.manifests.get(&ManifestHash::of(newest));
        let enforced = Side {
            bytes: newest,
            manifest: enforced,
        };
        Changes::between(&Side::of(manifest), &enforced)
    });
    let report = Report {
        latest_transition: history.latest(),
        evidence: Some(EvidenceFacts::of(&evidence)),
        authorities: Some(Authorities::of(&response.root_ca, &response.mesh_ca)),
        difference,
        history: steps(&response, &history),
        files,
        insecure: manifest.accepts_insecure_evidence() || history.was_insecure(),
        ..Report::new(coordinator, manifest, now, rows)
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
    if !enforced {
        let index = response
            .manifests
            .iter()
            .position(|bytes| bytes == newest)
            .unwrap_or_default();
        return Err(VerdictError::Manifest {
            manifest: path.to_owned(),
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

/// Evidence that was refused is a verdict too: it gets a report. Nothing else that may have gone wrong is one.
fn refused(
    args: &VerifyArgs,
    (coordinator, manifest): (String, &Manifest),
    now: SystemTime,
    (error, appraisal): (&dyn Diagnose, Option<&AppraisalReport>),
    output: &Output,
) -> Result<(), Failure> {
    if error.exit() != Exit::Negative {
        return Ok(());
    }
    let mut rows = Rows::default();
    match appraisal {
        Some(report) => rows.refused(report),
        None => {
            let found = error
                .source()
                .map_or_else(|| error.to_string(), ToString::to_string);
            let (name, expected) = ("Coordinator evidence", "meets a reference value");
            rows.record(Kind::Evidence, name, expected, found, false);
        }
    }
    publish(args, Report::new(coordinator, manifest, now, rows), output)
}
