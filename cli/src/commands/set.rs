//! `contrast set`: attests the Coordinator and hands it the manifest.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use contrast_clock::{SystemWallClock, WallClock};
use contrast_manifest::Manifest;
use contrast_proto::user::{GetManifestsResponse, SetManifestRequest, SetManifestResponse};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{collateral, read_manifest, warn_if_insecure};
use crate::{
    args::SetArgs,
    call::{CallError, REASON_NO_MANIFEST},
    deployment::Deployment,
    diagnostic::{Diagnose, Failure},
    dial::{DialError, Session},
    exit::Exit,
    output::{Output, Paint, Render, Spinner},
    owner::{WorkloadOwner, shares_to_json},
    transition::{TransitionHash, TransitionHashError, transition_hash},
    workspace::{
        KnownTransition, LATEST_TRANSITION, MANIFEST, MESH_CA, ROOT_CA, SEED_SHARES,
        WORKLOAD_OWNER_KEY, Workspace,
    },
};

const RETRY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum SetError {
    #[error(
        "the Coordinator has a manifest already (transition {base}), and there is no workload owner key to approve the \
         update: `{}` does not exist", .path.display()
    )]
    NoOwnerKey { base: TransitionHash, path: PathBuf },
    #[error("the Coordinator answered with something that is no transition")]
    Answer(#[source] TransitionHashError),
}

impl Diagnose for SetError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoOwnerKey { .. } => Exit::Usage,
            Self::Answer(_) => Exit::Unavailable,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoOwnerKey { .. } => {
                vec!["name the private key of a workload owner with `--workload-owner-key`".into()]
            }
            Self::Answer(_) => Vec::new(),
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
    let manifest = read_manifest(&workspace.choose(args.manifest.as_deref(), MANIFEST))?;
    let deployment = Deployment::read(&args.paths)?;
    deployment.require_policies(&manifest)?;
    let owners = read_owners(args, workspace)?;
    warn(&manifest, &owners, output);
    let known = workspace.known_transitions()?;

    let collateral = collateral::open(&args.collateral)?;
    let spinner = output.spinner(&format!(
        "attesting the Coordinator at {}",
        args.coordinator
    ));
    let mut patience = Patience::new(Duration::from_secs(args.timeout));
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    // What was asked must not change between attempts: the answer to an earlier one may just have been lost.
    let mut request = None;
    let (request, response) = loop {
        let attempt = async {
            let mut session =
                Session::attest(&args.coordinator, &manifest, &collateral, &clock).await?;
            if request.is_none() {
                let base = match args.atomic {
                    true => args
                        .latest_transition
                        .or_else(|| known.first().map(|known| known.hash))
                        .unwrap_or_default(),
                    false => {
                        let history = current_history(&mut session).await?;
                        warn_about_rollback(&known, &history, output);
                        history.last().copied().unwrap_or_default()
                    }
                };
                request = Some(prepare(
                    &manifest,
                    &deployment,
                    &owners,
                    base,
                    args,
                    workspace,
                )?);
            }
            // Just filled; the fallback is an empty request, which the Coordinator refuses.
            let request = request.clone().unwrap_or_default();
            spinner.message("setting the manifest");
            let response = session.set_manifest(request.clone()).await?;
            Ok((request, response))
        };
        match attempt.await {
            Ok(done) => break done,
            Err(error) => patience.next(error, &spinner, args).await?,
        }
    };
    drop(spinner);

    let base =
        TransitionHash::try_from(request.base_transition.as_ref()).map_err(SetError::Answer)?;
    let transition =
        TransitionHash::try_from(response.transition.as_ref()).map_err(SetError::Answer)?;
    let set = Set {
        coordinator: args.coordinator.to_string(),
        manifest_sha256: manifest.hash().to_string(),
        insecure: manifest.accepts_insecure_evidence(),
        base_transition: base,
        transition,
        files: write_files(workspace, &response, transition)?,
    };
    output.result(args.format.format, &set)?;
    Ok(())
}

/// Why an attempt failed.
#[derive(Debug)]
enum AttemptError {
    Dial(DialError),
    Call(CallError),
    Other(Failure),
}

impl From<DialError> for AttemptError {
    fn from(error: DialError) -> Self {
        Self::Dial(error)
    }
}

impl From<CallError> for AttemptError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

impl From<AttemptError> for Failure {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::Dial(error) => error.into(),
            AttemptError::Call(error) => error.into(),
            AttemptError::Other(failure) => failure,
        }
    }
}

/// How long to go on while the Coordinator is not up.
#[derive(Debug)]
struct Patience {
    deadline: Instant,
}

impl Patience {
    fn new(total: Duration) -> Self {
        let now = Instant::now();
        Self {
            deadline: now.checked_add(total).unwrap_or(now),
        }
    }

    /// Waits before the next attempt, or gives up with the error of the last one.
    async fn next(
        &mut self,
        error: AttemptError,
        spinner: &Spinner,
        args: &SetArgs,
    ) -> Result<(), Failure> {
        let transient = match &error {
            AttemptError::Dial(error) => error.is_transient(),
            AttemptError::Call(error) => error.is_transient(),
            AttemptError::Other(_) => false,
        };
        if !transient || Instant::now() + RETRY_INTERVAL > self.deadline {
            return Err(error.into());
        }
        tracing::info!(?error, "Coordinator is not available yet");
        spinner.message(&format!(
            "waiting for the Coordinator at {}",
            args.coordinator
        ));
        sleep(RETRY_INTERVAL).await;
        Ok(())
    }
}

fn read_owners(args: &SetArgs, workspace: &Workspace) -> Result<Vec<WorkloadOwner>, Failure> {
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

/// Hashes of the Coordinator's transitions, oldest first; empty when no manifest was set yet.
async fn current_history(session: &mut Session) -> Result<Vec<TransitionHash>, AttemptError> {
    let response = match session.manifests().await {
        Ok(response) => response,
        Err(error) if error.has_reason(REASON_NO_MANIFEST) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let GetManifestsResponse { transitions, .. } = response;
    let hashes: Result<Vec<_>, _> = transitions.iter().map(transition_hash).collect();
    Ok(hashes.map_err(|error| Failure::from(SetError::Answer(error)))?)
}

fn warn_about_rollback(known: &[KnownTransition], history: &[TransitionHash], output: &Output) {
    for known in known.iter().filter(|known| !history.contains(&known.hash)) {
        output.warning(&format!(
            "the Coordinator's history does not contain the transition in `{}`: it was rolled back, or this is another \
             deployment",
            known.path.display()
        ));
    }
}

fn prepare(
    manifest: &Manifest,
    deployment: &Deployment,
    owners: &[WorkloadOwner],
    base: TransitionHash,
    args: &SetArgs,
    workspace: &Workspace,
) -> Result<SetManifestRequest, Failure> {
    let signatures = match base == TransitionHash::NONE {
        true => Vec::new(),
        false if owners.is_empty() && args.workload_owner_key.is_empty() => {
            let path = workspace.path(WORKLOAD_OWNER_KEY);
            return Err(SetError::NoOwnerKey { base, path }.into());
        }
        false => owners
            .iter()
            .map(|owner| owner.approve(manifest.hash(), base))
            .collect::<Result<_, _>>()?,
    };
    Ok(SetManifestRequest {
        manifest: manifest.bytes().to_vec().into(),
        policies: deployment
            .documents()
            .map(|document| document.to_vec().into())
            .collect(),
        base_transition: base.0.to_vec().into(),
        signatures,
    })
}

/// Seed shares come first: they cannot be had by asking again in every state, the rest can.
fn write_files(
    workspace: &Workspace,
    response: &SetManifestResponse,
    transition: TransitionHash,
) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    if let Some(shares) = &response.seed_shares {
        files.push(workspace.write(SEED_SHARES, shares_to_json(shares)?.as_bytes())?);
    }
    files.push(workspace.write(ROOT_CA, response.root_ca.as_bytes())?);
    files.push(workspace.write(MESH_CA, response.mesh_ca.as_bytes())?);
    files.push(workspace.write_transition(LATEST_TRANSITION, transition)?);
    Ok(files)
}
