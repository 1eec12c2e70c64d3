//! `contrast recover`: hands a seed share to a Coordinator that lost its seed.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use contrast_clock::{SystemWallClock, WallClock};
use contrast_pki::shares::SeedSharesDocument;
use contrast_proto::user::RecoverRequest;
use serde::Serialize;

use super::{collateral, read_manifest, warn_if_insecure};
use crate::{
    args::RecoverArgs,
    attempts::{AttemptError, Attempts, shown},
    diagnostic::{Diagnose, Failure},
    dial::Session,
    exit::Exit,
    kube,
    output::{Output, Paint, Render},
    owner::{SeedShareOwner, share_bytes, shares_from_file, shares_from_wire},
    transition::{TransitionHash, TransitionHashError},
    workspace::{self, LATEST_TRANSITION, MANIFEST, SEED_SHARES, SEEDSHARE_OWNER_KEY, Workspace},
};

#[derive(Debug, thiserror::Error)]
#[error("the Coordinator answered with something that is no transition")]
struct AnswerError(#[source] TransitionHashError);

impl Diagnose for AnswerError {
    fn exit(&self) -> Exit {
        Exit::Unavailable
    }
}

#[derive(Debug, Serialize)]
struct Recovered {
    coordinator: String,
    insecure: bool,
    /// Whether the Coordinator serves again.
    serving: bool,
    missing_shares: u32,
    transition: Option<TransitionHash>,
    files: Vec<PathBuf>,
}

impl Render for Recovered {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        match self.serving {
            true => writeln!(
                out,
                "{} {}: it serves again, with the same root CA and a new mesh CA",
                paint.good("recovered"),
                self.coordinator
            )?,
            false => writeln!(
                out,
                "{} the seed share; {} more needed before {} can serve",
                paint.good("accepted"),
                self.missing_shares,
                self.coordinator
            )?,
        }
        if let Some(transition) = self.transition {
            writeln!(out, "latest transition: {transition}")?;
        }
        for file in &self.files {
            writeln!(out, "wrote {}", file.display())?;
        }
        Ok(())
    }
}

/// Attests the Coordinator, then decrypts the share and sends it.
///
/// # Errors
/// When no share can be decrypted, or the Coordinator does not prove itself or refuses the share.
pub(super) async fn run(
    args: &RecoverArgs,
    workspace: &Workspace,
    output: &Output,
) -> Result<(), Failure> {
    let manifest = read_manifest(&workspace.choose(args.manifest.as_deref(), MANIFEST))?;
    let key_path = workspace.choose(args.seedshare_owner_key.as_deref(), SEEDSHARE_OWNER_KEY);
    let owner = SeedShareOwner::read(&key_path)?;
    let local = read_shares(args, workspace)?;
    let known = match args.latest_transition {
        Some(hash) => Some(hash),
        None => workspace
            .known_transitions()?
            .first()
            .map(|known| known.hash),
    };
    warn_if_insecure(&manifest, output);
    if known.is_none() {
        output.warning(
            "no latest transition is known here, so an old history that the host put back cannot be noticed; give \
             `--latest-transition` if you know it",
        );
    }

    let collateral = collateral::open(&args.collateral)?;
    let reached = kube::reach(&args.coordinators, output).await?;
    let addresses = &reached.addresses;
    let spinner = output.spinner(&format!("attesting {}", shown(addresses)));
    let clock: Arc<dyn WallClock> = Arc::new(SystemWallClock);
    let mut attempts = Attempts::brief(addresses);
    let (address, response) = loop {
        let address = attempts.address();
        let attempt = async {
            let mut session = Session::attest(address, &manifest, &collateral, &clock).await?;
            let shares = match &local {
                Some(shares) => shares.clone(),
                None => {
                    spinner.message("asking for the encrypted seed shares");
                    shares_from_wire(&session.seed_shares().await?)
                }
            };
            spinner.message("handing over the seed share");
            let share = owner.decrypt(&shares).map_err(Failure::from)?;
            let request = RecoverRequest {
                seed_share: share_bytes(share),
                salt: shares.salt.into(),
                known_transition: known.map(|hash| hash.0.to_vec()).unwrap_or_default().into(),
                force: args.force,
                forget_volumes: args.forget_volumes,
            };
            // When the answer is lost it may have been the last share that was needed, and the next would be refused.
            let answer = session.recover(request).await;
            answer.map_err(AttemptError::once)
        };
        match attempt.await {
            Ok(response) => break (address, response),
            Err(error) => attempts.next(error, &spinner).await?,
        }
    };
    drop(spinner);

    let transition = match response.missing_shares {
        0 => Some(TransitionHash::try_from(response.transition.as_ref()).map_err(AnswerError)?),
        _ => None,
    };
    let files = match transition {
        Some(hash) => vec![workspace.write_transition(LATEST_TRANSITION, hash)?],
        None => Vec::new(),
    };
    let recovered = Recovered {
        coordinator: address.to_string(),
        insecure: manifest.accepts_insecure_evidence(),
        serving: response.missing_shares == 0,
        missing_shares: response.missing_shares,
        transition,
        files,
    };
    output.result(args.format.format, &recovered)?;
    Ok(())
}

/// The encrypted shares in the workspace. A file that was named must exist; without one the Coordinator is asked.
fn read_shares(
    args: &RecoverArgs,
    workspace: &Workspace,
) -> Result<Option<SeedSharesDocument>, Failure> {
    let path = workspace.choose(args.seed_shares.as_deref(), SEED_SHARES);
    let json = match args.seed_shares {
        Some(_) => Some(workspace::read("seed shares", &path, "")?),
        None => workspace::read_optional("seed shares", &path)?,
    };
    Ok(json
        .map(|json| shares_from_file(&path, &json))
        .transpose()?)
}
