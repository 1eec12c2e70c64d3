//! `contrast set`: attests the Coordinator and hands it the manifest.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use contrast_clock::{SystemWallClock, WallClock};
use contrast_manifest::{Manifest, ManifestError};
use contrast_proto::user::{OwnerSignature, SetManifestRequest, SetManifestResponse};
use serde::Serialize;

use super::{approvals, collateral, read_manifest, warn_about_rollback, warn_if_insecure};
use crate::{
    approval::{Collector, Update},
    args::SetArgs,
    attempts::{AttemptError, Attempts, shown},
    call::REASON_NO_MANIFEST,
    deployment::Deployment,
    diagnostic::{Diagnose, Failure},
    dial::Session,
    exit::Exit,
    kube,
    output::{Output, Paint, Render},
    owner::{KnownSeed, WorkloadOwner, shares_to_json},
    transition::{TransitionHash, TransitionHashError, transition_hash},
    verify::history::newest_manifest,
    workspace::{
        LATEST_TRANSITION, MANIFEST, MESH_CA, ROOT_CA, SEALING_KEY, SEED_SHARES,
        WORKLOAD_OWNER_KEY, Workspace,
    },
};

#[derive(Debug, thiserror::Error)]
enum SetError {
    #[error(
        "the Coordinator has a manifest already (transition {base}), and there is no workload owner key to approve the \
         update: `{}` does not exist", .path.display()
    )]
    NoOwnerKey { base: TransitionHash, path: PathBuf },
    #[error("the Coordinator answered with something that is no transition")]
    Answer(#[source] TransitionHashError),
    #[error(
        "approvals are given, and the Coordinator has no manifest yet whose owners could approve an update"
    )]
    NoActiveManifest,
    #[error(
        "the Coordinator has a manifest and a seed already (transition {base}); a seed is imported into one that has none"
    )]
    NotEmpty { base: TransitionHash },
    #[error("the manifest that the Coordinator enforces cannot be read")]
    ActiveManifest(#[source] ManifestError),
}

impl Diagnose for SetError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoOwnerKey { .. } | Self::NoActiveManifest | Self::NotEmpty { .. } => Exit::Usage,
            Self::Answer(_) | Self::ActiveManifest(_) => Exit::Unavailable,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoOwnerKey { .. } => {
                vec![
                    "name the private key of a workload owner with `--workload-owner-key`, or owners' approvals with `--signature`"
                        .into(),
                ]
            }
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Set {
    coordinator: String,
    manifest_sha256: String,
    insecure: bool,
    base_transition: TransitionHash,
    transition: TransitionHash,
    files: Vec<PathBuf>,
}

impl Render for Set {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        let verb = if self.base_transition == TransitionHash::NONE {
            "set"
        } else {
            "updated"
        };
        writeln!(
            out,
            "{} the manifest of {}",
            paint.good(verb),
            self.coordinator
        )?;
        writeln!(out, "manifest SHA-256:  {}", self.manifest_sha256)?;
        writeln!(out, "latest transition: {}", self.transition)?;
        for file in &self.files {
            writeln!(out, "wrote {}", file.display())?;
        }
        Ok(())
    }
}

/// Checks the manifest against the YAML, attests the Coordinator, sets the manifest and writes what it returns.
///
/// # Errors
/// When files do not fit each other, the Coordinator cannot be reached, or its evidence or it itself refuses.
pub(super) async fn run(
    args: &SetArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    set(args, None, workspace, output).await
}

/// As [`run`]; with `origin`, the deployment keeps that seed.
///
/// # Errors
/// As [`run`].
pub(super) async fn set(
    args: &SetArgs,
    origin: Option<&KnownSeed>,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let manifest = read_manifest(&workspace.choose(args.manifest.as_deref(), MANIFEST))?;
    let mut deployment = Deployment::read(&args.paths)?;
    let earlier = deployment.require_policies(&manifest)?;
    let owners = read_owners(args, workspace)?;
    let keys = approvals::public_keys(&args.approvals)?;
    warn(&manifest, &owners, output);
    let known = workspace.known_transitions()?;

    let collateral = collateral::open(&args.collateral)?;
    let reached = kube::reach(&args.coordinators, output).await?;
    let addresses = &reached.addresses;
    let spinner = output.spinner(&format!("attesting {}", shown(addresses)));
    let mut attempts = Attempts::patient(addresses, Duration::from_secs(args.timeout));
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    // What was asked must not change between attempts: the answer to an earlier one may just have been lost.
    let mut request = None;
    let (address, request, response, sealing_key) = loop {
        let address = attempts.address();
        let attempt = async {
            let mut session = Session::attest(address, &manifest, &collateral, &clock).await?;
            if request.is_none() {
                // The owners who may approve stand in the active manifest.
                let needs_active = !args.approvals.signature.is_empty();
                let history = match args.atomic && earlier.is_empty() && !needs_active {
                    true => History::default(),
                    false => current_history(&mut session).await?,
                };
                deployment
                    .complete(&manifest, &history.policies)
                    .map_err(Failure::from)?;
                let base = match args.atomic {
                    true => args
                        .latest_transition
                        .or_else(|| known.first().map(|known| known.hash))
                        .unwrap_or_default(),
                    false => {
                        warn_about_rollback(&known, &history.transitions, output);
                        history.transitions.last().copied().unwrap_or_default()
                    }
                };
                if origin.is_some() && base != TransitionHash::NONE {
                    return Err(Failure::from(SetError::NotEmpty { base }).into());
                }
                let update = Update {
                    manifest: manifest.hash(),
                    base,
                };
                let collected = collect(args, update, &history, &keys)?;
                let signatures = match base == TransitionHash::NONE {
                    true => Vec::new(),
                    false => approve(update, collected, &owners, workspace)?,
                };
                request = Some(SetManifestRequest {
                    manifest: manifest.bytes().to_vec().into(),
                    policies: deployment
                        .documents()
                        .map(|document| document.to_vec().into())
                        .collect(),
                    base_transition: base.0.to_vec().into(),
                    signatures,
                });
            }
            // Just filled; the fallback is an empty request, which the Coordinator refuses.
            let request = request.clone().unwrap_or_default();
            spinner.message("setting the manifest");
            let response = match origin {
                Some(seed) => session.import_seed(seed.request(request.clone())).await?,
                None => session.set_manifest(request.clone()).await?,
            };
            // It is set, whatever becomes of this question: `verify` asks it, too.
            let sealing_key = session.sealing_key().await.ok().flatten();
            Ok((request, response, sealing_key))
        };
        match attempt.await {
            Ok((request, response, sealing_key)) => {
                break (address, request, response, sealing_key);
            }
            Err(error) => attempts.next(error, &spinner).await?,
        }
    };
    drop(spinner);

    let base =
        TransitionHash::try_from(request.base_transition.as_ref()).map_err(SetError::Answer)?;
    let transition =
        TransitionHash::try_from(response.transition.as_ref()).map_err(SetError::Answer)?;
    let set = Set {
        coordinator: address.to_string(),
        manifest_sha256: manifest.hash().to_string(),
        insecure: manifest.accepts_insecure_evidence(),
        base_transition: base,
        transition,
        files: write_files(workspace, &response, sealing_key.as_deref(), transition)?,
    };
    output.result(args.format.format, &set)?;
    Ok(())
}

fn read_owners(args: &SetArgs, workspace: &Workspace) -> Result<Vec<WorkloadOwner>, Failure> {
    if args.workload_owner_key.is_empty() && !args.approvals.signature.is_empty() {
        return Ok(Vec::new());
    }
    if args.workload_owner_key.is_empty() {
        let path = workspace.path(WORKLOAD_OWNER_KEY);
        return Ok(WorkloadOwner::read_optional(&path)?.into_iter().collect());
    }
    let owners = args
        .workload_owner_key
        .iter()
        .map(|path| WorkloadOwner::read(path));
    Ok(owners.collect::<Result<_, _>>()?)
}

fn warn(manifest: &Manifest, owners: &[WorkloadOwner], output: &Output) {
    let allowed = manifest.workload_owners();
    if allowed.is_empty() {
        output.warning(
            "the manifest names no workload owner: once it is set, nobody can ever update this deployment",
        );
    } else {
        for owner in owners
            .iter()
            .filter(|owner| !allowed.contains(&owner.digest()))
        {
            output.warning(&format!(
                "the key `{}` is not among the workload owners of the new manifest: once it is set, this key cannot \
                 update the deployment any more",
                owner.path().display()
            ));
        }
    }
    warn_if_insecure(manifest, output);
}

/// What is there already; empty when no manifest was set yet.
#[derive(Debug, Default)]
struct History {
    /// Hashes of the transitions, oldest first.
    transitions: Vec<TransitionHash>,
    /// Initdata documents.
    policies: Vec<Bytes>,
    /// The manifest of the latest transition.
    active: Option<Vec<u8>>,
}

async fn current_history(session: &mut Session) -> Result<History, AttemptError> {
    let response = match session.manifests().await {
        Ok(response) => response,
        Err(error) if error.has_reason(REASON_NO_MANIFEST) => return Ok(History::default()),
        Err(error) => return Err(error.into()),
    };
    let hashes: Result<Vec<_>, _> = response.transitions.iter().map(transition_hash).collect();
    Ok(History {
        active: newest_manifest(&response).map(<[u8]>::to_vec),
        transitions: hashes.map_err(|error| Failure::from(SetError::Answer(error)))?,
        policies: response.policies,
    })
}

/// The approvals in files, all of which must count.
fn collect(
    args: &SetArgs,
    update: Update,
    history: &History,
    keys: &[Vec<u8>],
) -> Result<Vec<OwnerSignature>, Failure> {
    let files = &args.approvals.signature;
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let active = history.active.as_ref().ok_or(SetError::NoActiveManifest)?;
    let active = Manifest::parse(active).map_err(SetError::ActiveManifest)?;
    let mut collector = Collector::new(update, &active, keys);
    files.iter().try_for_each(|file| collector.add(file))?;
    let collected = collector.finish().into_iter();
    Ok(collected.map(|approval| approval.signature).collect())
}

/// Adds to `collected` the approvals by keys that are here.
fn approve(
    update: Update,
    collected: Vec<OwnerSignature>,
    owners: &[WorkloadOwner],
    workspace: &Workspace,
) -> Result<Vec<OwnerSignature>, Failure> {
    if collected.is_empty() && owners.is_empty() {
        return Err(SetError::NoOwnerKey {
            base: update.base,
            path: workspace.path(WORKLOAD_OWNER_KEY),
        }
        .into());
    }
    let mut signatures = collected;
    for owner in owners {
        let signature = owner.approve(update)?;
        // One's own approval may be among the files.
        if !signatures
            .iter()
            .any(|other| other.public_key == signature.public_key)
        {
            signatures.push(signature);
        }
    }
    Ok(signatures)
}

/// Seed shares come first: they cannot be had by asking again in every state, the rest can.
fn write_files(
    workspace: &Workspace,
    response: &SetManifestResponse,
    sealing_key: Option<&str>,
    transition: TransitionHash,
) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    if let Some(shares) = &response.seed_shares {
        files.push(workspace.write(SEED_SHARES, shares_to_json(shares)?.as_bytes())?);
    }
    files.push(workspace.write(ROOT_CA, response.root_ca.as_bytes())?);
    files.push(workspace.write(MESH_CA, response.mesh_ca.as_bytes())?);
    if let Some(key) = sealing_key {
        files.push(workspace.write(SEALING_KEY, key.as_bytes())?);
    }
    files.push(workspace.write_transition(LATEST_TRANSITION, transition)?);
    Ok(files)
}
