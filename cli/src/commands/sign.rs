//! `contrast sign`: an owner's approval of an update, in a file.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use contrast_pki::update_approval_text;
use serde::Serialize;

use super::read_manifest;
use crate::{
    approval::{ApprovalDocument, Update},
    args::SignArgs,
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::{Output, Paint, Render},
    owner::WorkloadOwner,
    transition::TransitionHash,
    workspace::{self, MANIFEST, WORKLOAD_OWNER_KEY, Workspace},
};

/// Where the approval text goes.
const APPROVAL_TEXT: &str = "approval.txt";
/// Characters of the key's digest in the name of an approval.
const DIGEST_SHOWN: usize = 16;

#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error(
        "no latest transition is known here, and an approval holds for the step from one transition only"
    )]
    NoBase,
    #[error(
        "the first manifest of a deployment needs no approval: there is no transition before it"
    )]
    First,
    #[error("the approval has no JSON form")]
    Encode(#[source] serde_json::Error),
}

impl Diagnose for SignError {
    fn exit(&self) -> Exit {
        match self {
            Self::Encode(_) => Exit::Internal,
            Self::NoBase | Self::First => Exit::Usage,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoBase => vec![
                "run `contrast verify` first, with the manifest that is active now, or give `--latest-transition`".into(),
            ],
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Signed {
    manifest_sha256: String,
    base_transition: TransitionHash,
    /// Digest of the owner's key; none when another tool signs.
    owner: Option<String>,
    file: PathBuf,
}

impl Render for Signed {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        match &self.owner {
            Some(owner) => writeln!(out, "{} the update as {owner}", paint.good("approved"))?,
            None => writeln!(out, "{} the text to sign", paint.good("prepared"))?,
        }
        writeln!(out, "manifest SHA-256: {}", self.manifest_sha256)?;
        writeln!(out, "after transition: {}", self.base_transition)?;
        writeln!(out, "wrote {}", self.file.display())?;
        if self.owner.is_none() {
            writeln!(
                out,
                "sign it with ECDSA and SHA-256, for example: openssl dgst -sha256 -sign KEY -out approval.sig {}",
                self.file.display()
            )?;
        }
        Ok(())
    }
}

/// Signs, or prepares what another tool signs.
///
/// # Errors
/// When files are missing or wrong, or there is no transition to update from.
pub(super) fn run(args: &SignArgs, workspace: &Workspace, output: &Output) -> Result<(), Failure> {
    let manifest = read_manifest(&workspace.choose(args.manifest.as_deref(), MANIFEST))?;
    let base = match args.latest_transition {
        Some(hash) => hash,
        None => {
            let known = workspace.known_transitions()?;
            known.first().ok_or(SignError::NoBase)?.hash
        }
    };
    if base == TransitionHash::NONE {
        return Err(SignError::First.into());
    }
    let update = Update {
        manifest: manifest.hash(),
        base,
    };
    let (owner, default, contents) = match args.prepare {
        true => {
            let text = update_approval_text(&update.manifest.0, &update.base.0);
            (None, APPROVAL_TEXT.to_owned(), text)
        }
        false => {
            let path = workspace.choose(args.workload_owner_key.as_deref(), WORKLOAD_OWNER_KEY);
            let key = WorkloadOwner::read(&path)?;
            let document = ApprovalDocument::new(update, &key.approve(update)?);
            let owner = key.digest().to_string();
            let name: String = owner.chars().take(DIGEST_SHOWN).collect();
            let json = document.to_json().map_err(SignError::Encode)?;
            (Some(owner), format!("approval-{name}.json"), json)
        }
    };
    let file = workspace.choose(args.out.as_deref(), &default);
    workspace::overwrite(&file, contents.as_bytes())?;
    let signed = Signed {
        manifest_sha256: manifest.hash().to_string(),
        base_transition: base,
        owner,
        file,
    };
    output.result(args.format.format, &signed)?;
    Ok(())
}
