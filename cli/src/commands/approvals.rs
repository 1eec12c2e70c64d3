//! `contrast approvals`: what an update changes, and who approved it.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use contrast_clock::{SystemWallClock, WallClock};
use contrast_manifest::{Manifest, ManifestError, OwnerKeyDigest, diff};
use serde::Serialize;

use super::{collateral, read_manifest, warn_if_insecure};
use crate::{
    approval::{Approval, Collector, Update},
    args::{ApprovalFiles, ApprovalsArgs},
    attempts::{Attempts, shown},
    diagnostic::{Diagnose, Failure},
    dial::Session,
    exit::Exit,
    kube,
    output::{Output, Paint, Render},
    owner::read_public_key,
    transition::TransitionHash,
    verify::history::{History, Memory, newest_manifest},
    workspace::{MANIFEST, Workspace},
};

#[derive(Debug, thiserror::Error)]
enum ApprovalsError {
    #[error("the manifest that the Coordinator enforces cannot be read")]
    Active(#[source] ManifestError),
    #[error(
        "the Coordinator's history is not consistent, or does not name the manifest that it enforces"
    )]
    History,
    #[error(
        "the Coordinator's latest transition is {base}, and the one that was last seen here is {known}; an approval would be for that one"
    )]
    Unknown {
        base: TransitionHash,
        known: TransitionHash,
    },
    #[error("the Coordinator enforces this very manifest; there is nothing to approve")]
    Nothing,
    #[error("the active manifest has no workload owners, so nobody can update it, for ever")]
    Disabled,
    #[error("the update needs approvals of {needed} workload owner(s), and has {found}")]
    NotEnough { needed: u32, found: usize },
}

impl Diagnose for ApprovalsError {
    fn exit(&self) -> Exit {
        match self {
            Self::Active(_) | Self::History => Exit::Unavailable,
            Self::Nothing => Exit::Usage,
            Self::Disabled | Self::NotEnough { .. } | Self::Unknown { .. } => Exit::Negative,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NotEnough { .. } => vec![
                "further owners approve with `contrast sign`; name their files with `--signature`"
                    .into(),
            ],
            Self::Unknown { .. } => vec![
                "run `contrast verify` with the manifest that you know to be active, and look at what changed".into(),
            ],
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    coordinator: String,
    insecure: bool,
    manifest_sha256: String,
    active_manifest_sha256: String,
    base_transition: TransitionHash,
    changes: Vec<Change>,
    needed: u32,
    owners: Vec<Owner>,
    /// Approvals that do not count.
    refused: Vec<Refused>,
    sufficient: bool,
}

/// A value of the manifest; `None` where it is absent.
#[derive(Debug, Serialize)]
struct Change {
    path: String,
    active: Option<String>,
    proposed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Owner {
    key_sha256: String,
    /// The file with the approval.
    approved_by: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Refused {
    file: PathBuf,
    reason: String,
}

impl Render for Report {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        writeln!(out, "{} for {}", paint.strong("update"), self.coordinator)?;
        writeln!(out, "active manifest:   {}", self.active_manifest_sha256)?;
        writeln!(out, "proposed manifest: {}", self.manifest_sha256)?;
        writeln!(out, "after transition:  {}", self.base_transition)?;
        writeln!(out, "\n{}", paint.strong("changes"))?;
        if self.changes.is_empty() {
            writeln!(out, "  none but white space or the order of fields")?;
        }
        for Change {
            path,
            active,
            proposed,
        } in &self.changes
        {
            writeln!(out, "  {path}")?;
            if let Some(active) = active {
                writeln!(out, "    {} {active}", paint.bad("-"))?;
            }
            if let Some(proposed) = proposed {
                writeln!(out, "    {} {proposed}", paint.good("+"))?;
            }
        }
        writeln!(
            out,
            "\n{}, {} needed",
            paint.strong("approvals"),
            self.needed
        )?;
        for Owner {
            key_sha256,
            approved_by,
        } in &self.owners
        {
            match approved_by {
                Some(file) => writeln!(
                    out,
                    "  {key_sha256} {} ({})",
                    paint.good("approved"),
                    file.display()
                )?,
                None => writeln!(out, "  {key_sha256} not yet")?,
            }
        }
        for Refused { reason, .. } in &self.refused {
            writeln!(out, "  {}: {reason}", paint.bad("does not count"))?;
        }
        match self.sufficient {
            true => writeln!(out, "{}", paint.good("enough: `contrast set` can be run")),
            false => writeln!(out, "{}", paint.alarming("not enough")),
        }
    }
}

/// Attests the Coordinator and judges the approvals by the manifest that it enforces.
///
/// # Errors
/// When the Coordinator cannot be reached or does not prove itself, or the approvals are not enough; the report is printed then, too.
pub(super) async fn run(
    args: &ApprovalsArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let proposed = read_manifest(&workspace.choose(args.manifest.as_deref(), MANIFEST))?;
    let keys = public_keys(&args.approvals)?;
    let known = workspace.known_transitions()?;
    warn_if_insecure(&proposed, output);

    let collateral = collateral::open(&args.collateral)?;
    let reached = kube::reach(&args.coordinators, output).await?;
    let addresses = &reached.addresses;
    let spinner = output.spinner(&format!("attesting {}", shown(addresses)));
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    let (coordinator, response) = Attempts::brief(addresses)
        .first(&spinner, async |address| {
            let mut session = Session::attest(address, &proposed, &collateral, &clock).await?;
            spinner.message("reading the history");
            Ok(session.manifests().await?)
        })
        .await?;
    let coordinator = coordinator.to_string();
    drop(spinner);

    let history = History::check(&response, &Memory::default());
    super::warn_about_rollback(&known, &history.chain, output);
    if history.consistent.failed().next().is_some() {
        return Err(ApprovalsError::History.into());
    }
    let base = history.latest().ok_or(ApprovalsError::History)?;
    // The proposal says whose evidence is accepted: only what was seen under a manifest that the owner knew fixes what is active.
    match known.first() {
        Some(known) if known.hash != base => {
            return Err(ApprovalsError::Unknown { base, known: known.hash }.into());
        }
        Some(_) => {}
        None => output.warning(
            "no latest transition is known here, so whoever made the proposed manifest decides who is believed about the active one; run `contrast \
             verify` with the active manifest first",
        ),
    }
    let active = newest_manifest(&response).ok_or(ApprovalsError::History)?;
    let active = Manifest::parse(active).map_err(ApprovalsError::Active)?;
    if active == proposed {
        return Err(ApprovalsError::Nothing.into());
    }
    let update = Update {
        manifest: proposed.hash(),
        base,
    };
    let mut collector = Collector::new(update, &active, &keys);
    let mut refused = Vec::new();
    for file in &args.approvals.signature {
        if let Err(error) = collector.add(file) {
            refused.push(Refused {
                file: file.clone(),
                reason: error.to_string(),
            });
        }
    }
    let approvals = collector.finish();
    let found = approvals.len();
    let needed = active.workload_owner_threshold();
    let sufficient = is_enough(&active, found);
    let report = Report {
        coordinator,
        insecure: proposed.accepts_insecure_evidence(),
        manifest_sha256: proposed.hash().to_string(),
        active_manifest_sha256: active.hash().to_string(),
        base_transition: base,
        changes: changes(&active, &proposed),
        needed,
        owners: owners(&active, &approvals),
        refused,
        sufficient,
    };
    output.result(args.format.format, &report)?;
    match sufficient {
        true => Ok(()),
        false if active.workload_owners().is_empty() => Err(ApprovalsError::Disabled.into()),
        false => Err(ApprovalsError::NotEnough { needed, found }.into()),
    }
}

/// Reads the public keys that bare signatures are tried with.
pub(super) fn public_keys(files: &ApprovalFiles) -> Result<Vec<Vec<u8>>, Failure> {
    let keys = files
        .owner_public_key
        .iter()
        .map(|path| read_public_key(path));
    Ok(keys.collect::<Result<_, _>>()?)
}

fn is_enough(active: &Manifest, found: usize) -> bool {
    let needed = usize::try_from(active.workload_owner_threshold());
    !active.workload_owners().is_empty() && needed.is_ok_and(|needed| found >= needed)
}

fn owners(active: &Manifest, approvals: &[Approval]) -> Vec<Owner> {
    let row = |owner: &OwnerKeyDigest| Owner {
        key_sha256: owner.to_string(),
        approved_by: approvals
            .iter()
            .find(|approval| approval.owner == *owner)
            .map(|approval| approval.path.clone()),
    };
    active.workload_owners().iter().map(row).collect()
}

fn changes(active: &Manifest, proposed: &Manifest) -> Vec<Change> {
    let change = |difference: diff::Difference| Change {
        path: difference.path.to_string(),
        active: difference.expected,
        proposed: difference.found,
    };
    match diff::explain(active.bytes(), proposed.bytes()) {
        diff::ManifestDiff::Values(differences) => differences.into_iter().map(change).collect(),
        _ => Vec::new(),
    }
}
