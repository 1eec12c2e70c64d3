//! Approvals of workload owners in files, which travel to whoever runs `contrast set`.
//!
//! Two forms: the document that `contrast sign` writes, and the bare signature of another tool over the text that
//! `contrast sign --prepare` writes. The second does not say whose it is, so every key that is known is tried.

use std::path::{Path, PathBuf};

use contrast_manifest::{Manifest, ManifestHash, OwnerKeyDigest};
use contrast_pki::verify_update_approval;
use contrast_proto::user::OwnerSignature;
use serde::{Deserialize, Serialize};

use crate::{
    diagnostic::Diagnose,
    exit::Exit,
    transition::TransitionHash,
    workspace::{self, WorkspaceError},
};

/// An update that owners are asked to approve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// The new manifest.
    pub manifest: ManifestHash,
    /// The transition that it follows.
    pub base: TransitionHash,
}

/// The file that `contrast sign` writes. Not secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ApprovalDocument {
    /// SHA-256 of the approved manifest, 32 bytes, hex in JSON.
    #[serde(with = "hex")]
    pub manifest: [u8; 32],
    /// Transition that the manifest may follow, 32 bytes, hex in JSON.
    #[serde(with = "hex")]
    pub base_transition: [u8; 32],
    /// The owner's key, SubjectPublicKeyInfo DER, hex in JSON.
    #[serde(with = "hex")]
    pub public_key: Vec<u8>,
    /// ECDSA signature (P-384, SHA-256) over the approval text, ASN.1 DER, hex in JSON.
    #[serde(with = "hex")]
    pub signature: Vec<u8>,
}

impl ApprovalDocument {
    /// An owner's approval of `update`.
    pub fn new(update: Update, signature: &OwnerSignature) -> Self {
        Self {
            manifest: update.manifest.0,
            base_transition: update.base.0,
            public_key: signature.public_key.to_vec(),
            signature: signature.signature.to_vec(),
        }
    }

    /// The file's JSON, indented by two spaces, with a final newline.
    ///
    /// # Errors
    /// Never: hex always has a JSON form.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }
}

/// A file with an approval that does not count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApprovalError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] WorkspaceError),
    /// It starts like a document and is none.
    #[error("`{}` is not an approval document", .path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The owner approved another manifest.
    #[error("`{}` approves the manifest {signed}, not {proposed}", .path.display())]
    OtherManifest {
        /// The file.
        path: PathBuf,
        /// What was approved.
        signed: ManifestHash,
        /// What should be.
        proposed: ManifestHash,
    },
    /// The owner approved a step from another transition: another deployment's, or one that was replaced meanwhile.
    #[error(
        "`{}` approves an update that follows the transition {signed}, but the latest transition is {latest}", .path.display()
    )]
    OtherBase {
        /// The file.
        path: PathBuf,
        /// What was approved.
        signed: TransitionHash,
        /// Where the deployment is.
        latest: TransitionHash,
    },
    /// The signature does not fit what its document says.
    #[error("the signature in `{}` is not one of its key over this update; the file is damaged", .path.display())]
    Signature {
        /// The file.
        path: PathBuf,
    },
    /// Whoever signed has no say.
    #[error("`{}` is by the key {owner}, which is not among the active manifest's workload owners", .path.display())]
    NotAnOwner {
        /// The file.
        path: PathBuf,
        /// Digest of the key.
        owner: OwnerKeyDigest,
    },
    /// A bare signature that no known key made over this update.
    #[error(
        "`{}` is not a signature of any of the {known} known owner key(s) over this update (manifest {}, after the transition {})",
        .path.display(), .update.manifest, .update.base
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// How many keys were tried.
        known: usize,
        /// What should be approved.
        update: Update,
    },
    /// One owner twice, which counts once.
    #[error("`{}` and `{}` are approvals of the same owner {owner}", .first.display(), .path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The file that counts.
        first: PathBuf,
        /// Digest of the key.
        owner: OwnerKeyDigest,
    },
}

impl Diagnose for ApprovalError {
    fn exit(&self) -> Exit {
        match self {
            Self::File(error) => error.exit(),
            _ => Exit::Usage,
        }
    }

    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::File(error) => return error.hints(),
            Self::Document { .. } | Self::Signature { .. } => {
                "ask the owner for the file again, as `contrast sign` wrote it"
            }
            Self::OtherManifest { .. } => {
                "give every owner the exact bytes of the manifest that is to be set, and collect their approvals again"
            }
            Self::OtherBase { .. } => {
                "let the owners run `contrast verify`, look at what changed, and sign again"
            }
            Self::NotAnOwner { .. } => "remove the file, or ask an owner of the active manifest",
            Self::Unknown { .. } => {
                "name the signer's public key with `--owner-public-key` if the active manifest has its digest only; else let the \
                 owner sign again what `contrast sign --prepare` writes"
            }
            Self::Duplicate { .. } => "name one of them",
        };
        vec![hint.to_owned()]
    }
}

/// An approval that counts.
#[derive(Debug, Clone)]
pub struct Approval {
    /// The file.
    pub path: PathBuf,
    /// Who signed.
    pub owner: OwnerKeyDigest,
    /// What the Coordinator gets.
    pub signature: OwnerSignature,
}

/// Judges files with approvals of one update.
#[derive(Debug)]
pub struct Collector<'a> {
    update: Update,
    active: &'a Manifest,
    /// Keys that bare signatures are tried with, SubjectPublicKeyInfo DER.
    keys: Vec<Vec<u8>>,
    collected: Vec<Approval>,
}

impl<'a> Collector<'a> {
    /// Judges by the owners of the manifest `active`; `keys` are owners' public keys besides those that it lists.
    pub fn new(update: Update, active: &'a Manifest, keys: &[Vec<u8>]) -> Self {
        Self {
            update,
            active,
            keys: [active.workload_owner_keys(), keys].concat(),
            collected: Vec::new(),
        }
    }

    /// Reads and judges one more file.
    ///
    /// # Errors
    /// When its approval does not count, and why.
    pub fn add(&mut self, path: &Path) -> Result<(), ApprovalError> {
        let bytes = workspace::read("approval", path, "")?;
        let signature = match bytes.trim_ascii_start().first() {
            Some(b'{') => self.read_document(path, &bytes)?,
            _ => self.match_bare_signature(path, bytes)?,
        };
        let owner = OwnerKeyDigest::of(&signature.public_key);
        if !self.active.workload_owners().contains(&owner) {
            return Err(ApprovalError::NotAnOwner {
                path: path.to_owned(),
                owner,
            });
        }
        if let Some(first) = self.collected.iter().find(|other| other.owner == owner) {
            return Err(ApprovalError::Duplicate {
                path: path.to_owned(),
                first: first.path.clone(),
                owner,
            });
        }
        self.collected.push(Approval {
            path: path.to_owned(),
            owner,
            signature,
        });
        Ok(())
    }

    /// The approvals that count, in the order of the files.
    pub fn finish(self) -> Vec<Approval> {
        self.collected
    }

    fn read_document(&self, path: &Path, json: &[u8]) -> Result<OwnerSignature, ApprovalError> {
        let document: ApprovalDocument =
            serde_json::from_slice(json).map_err(|source| ApprovalError::Document {
                path: path.to_owned(),
                source,
            })?;
        let (manifest, base) = (
            ManifestHash(document.manifest),
            TransitionHash(document.base_transition),
        );
        let path = || path.to_owned();
        if manifest != self.update.manifest {
            return Err(ApprovalError::OtherManifest {
                path: path(),
                signed: manifest,
                proposed: self.update.manifest,
            });
        }
        if base != self.update.base {
            return Err(ApprovalError::OtherBase {
                path: path(),
                signed: base,
                latest: self.update.base,
            });
        }
        match self.is_by(&document.public_key, &document.signature) {
            true => Ok(OwnerSignature {
                public_key: document.public_key.into(),
                signature: document.signature.into(),
            }),
            false => Err(ApprovalError::Signature { path: path() }),
        }
    }

    fn match_bare_signature(
        &self,
        path: &Path,
        signature: Vec<u8>,
    ) -> Result<OwnerSignature, ApprovalError> {
        match self.keys.iter().find(|key| self.is_by(key, &signature)) {
            Some(key) => Ok(OwnerSignature {
                public_key: key.clone().into(),
                signature: signature.into(),
            }),
            None => Err(ApprovalError::Unknown {
                path: path.to_owned(),
                known: self.keys.len(),
                update: self.update,
            }),
        }
    }

    fn is_by(&self, key: &[u8], signature: &[u8]) -> bool {
        let Update { manifest, base } = self.update;
        verify_update_approval(key, &manifest.0, &base.0, signature).is_ok()
    }
}
