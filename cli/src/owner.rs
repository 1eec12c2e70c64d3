//! The keys of the person who runs `contrast`: workload owner and seed share owner.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use contrast_manifest::OwnerKeyDigest;
use contrast_pki::{
    Derivation, DeriveError, OwnerKeyError, RootKey, Salt, Seed, SeedError, WorkloadOwnerKey,
    shares::{EncryptedShare, SeedShare, SeedSharesDocument, SharesError, decrypt_share},
};
use contrast_proto::user::{ImportSeedRequest, OwnerSignature, SeedShares, SetManifestRequest};
use zeroize::Zeroizing;

use crate::{
    approval::Update,
    diagnostic::Diagnose,
    exit::Exit,
    workspace::{self, WorkspaceError},
};

/// An owner's key, or what is encrypted to it, could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] WorkspaceError),
    /// The file is not text, so it is not PEM.
    #[error("`{}` is not a PEM file", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// Not a workload owner's private key.
    #[error("`{}` is not the private key of a workload owner", .path.display())]
    WorkloadOwner {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: OwnerKeyError,
    },
    /// Not the public key of a workload owner.
    #[error("`{}` is not the public key of a workload owner", .path.display())]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: OwnerKeyError,
    },
    /// The update could not be signed.
    #[error("cannot sign the update with `{}`", .path.display())]
    Sign {
        /// The key's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: OwnerKeyError,
    },
    /// The seed shares document is damaged.
    #[error("{origin} cannot be read as seed shares")]
    Shares {
        /// The file, or the Coordinator.
        origin: String,
        /// Why.
        #[source]
        source: SharesError,
    },
    /// A seed that one person must not get at.
    #[error(
        "it takes {threshold} seed share owners to get at the seed, and their shares meet in a Coordinator only; import a seed with threshold 1"
    )]
    SeveralOwners {
        /// How many it takes.
        threshold: u32,
    },
    /// A seed or salt of another length.
    #[error("the seed shares hold no seed")]
    Seed(#[source] SeedError),
    /// Nothing can be derived from it.
    #[error("the root CA key cannot be derived from the seed")]
    Derive(#[source] DeriveError),
    /// No share could be decrypted.
    #[error("cannot decrypt a seed share with `{}`", .path.display())]
    Decrypt {
        /// The key's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SharesError,
    },
}

impl Diagnose for OwnerError {
    fn exit(&self) -> Exit {
        match self {
            Self::File(error) => error.exit(),
            Self::Sign { .. } => Exit::Internal,
            _ => Exit::Usage,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::File(error) => error.hints(),
            Self::WorkloadOwner { .. } => vec![
                "expected an ECDSA P-384 private key in PEM, such as `contrast generate` creates"
                    .into(),
            ],
            Self::PublicKey { .. } => vec![
                "expected an ECDSA P-384 key in PEM, `PUBLIC KEY`, such as `openssl ec -pubout` writes".into(),
            ],
            _ => Vec::new(),
        }
    }
}

/// A workload owner's private key and where it came from.
#[derive(Debug)]
pub struct WorkloadOwner {
    path: PathBuf,
    key: WorkloadOwnerKey,
}

impl WorkloadOwner {
    /// Reads a key that must exist.
    ///
    /// # Errors
    /// When the file is missing or holds no P-384 private key.
    pub fn read(path: &Path) -> Result<Self, OwnerError> {
        let bytes = workspace::read("workload owner key", path, "")?;
        Self::parse(path, bytes)
    }

    /// Reads a key that may be missing.
    ///
    /// # Errors
    /// When the file exists and holds no P-384 private key.
    pub fn read_optional(path: &Path) -> Result<Option<Self>, OwnerError> {
        workspace::read_optional("workload owner key", path)?
            .map(|bytes| Self::parse(path, bytes))
            .transpose()
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, OwnerError> {
        let text = secret_text(path, bytes)?;
        let key =
            WorkloadOwnerKey::from_pem(&text).map_err(|source| OwnerError::WorkloadOwner {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path: path.to_owned(),
            key,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How manifests name this owner.
    pub fn digest(&self) -> OwnerKeyDigest {
        OwnerKeyDigest::of(self.key.public_key_spki())
    }

    /// Approves an update.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn approve(&self, update: Update) -> Result<OwnerSignature, OwnerError> {
        let signature = self
            .key
            .approve_update(&update.manifest.0, &update.base.0)
            .map_err(|source| OwnerError::Sign {
                path: self.path.clone(),
                source,
            })?;
        Ok(OwnerSignature {
            public_key: self.key.public_key_spki().to_vec().into(),
            signature: signature.into(),
        })
    }
}

/// Reads a workload owner's public key, SubjectPublicKeyInfo DER, from PEM: `PUBLIC KEY`, or a private key whose public half is taken.
///
/// # Errors
/// When the file is missing or holds no P-384 key.
pub fn read_public_key(path: &Path) -> Result<Vec<u8>, OwnerError> {
    let text = secret_text(path, workspace::read("owner public key", path, "")?)?;
    WorkloadOwnerKey::public_key_from_pem(&text).map_err(|source| OwnerError::PublicKey {
        path: path.to_owned(),
        source,
    })
}

/// A seed share owner's private key, PEM, wiped when dropped.
pub struct SeedShareOwner {
    path: PathBuf,
    pem: Zeroizing<String>,
}

impl std::fmt::Debug for SeedShareOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeedShareOwner({})", self.path.display())
    }
}

impl SeedShareOwner {
    /// Reads the file; whether it holds a key shows when it is used.
    ///
    /// # Errors
    /// When the file is missing or not text.
    pub fn read(path: &Path) -> Result<Self, OwnerError> {
        let hint = "name the private key of a seed share owner with `--seedshare-owner-key`";
        let bytes = workspace::read("seed share owner key", path, hint)?;
        Ok(Self {
            path: path.to_owned(),
            pem: secret_text(path, bytes)?,
        })
    }

    /// Decrypts this owner's share.
    ///
    /// # Errors
    /// When the key is no RSA private key, owns no share, or the share is damaged.
    pub fn decrypt(&self, shares: &SeedSharesDocument) -> Result<SeedShare, OwnerError> {
        decrypt_share(shares, &self.pem).map_err(|source| OwnerError::Decrypt {
            path: self.path.clone(),
            source,
        })
    }
}

/// A seed that somebody outside of a Coordinator knows.
#[derive(Debug)]
pub struct KnownSeed {
    share: SeedShare,
    salt: Vec<u8>,
}

impl KnownSeed {
    /// Decrypts the seed in `shares`, whose threshold must be 1: the shares of several owners meet in a Coordinator only.
    ///
    /// # Errors
    /// When it takes several owners, or the key is none of theirs.
    pub fn decrypt(
        owner: &SeedShareOwner,
        shares: &SeedSharesDocument,
    ) -> Result<Self, OwnerError> {
        if shares.threshold != 1 {
            return Err(OwnerError::SeveralOwners {
                threshold: shares.threshold,
            });
        }
        Ok(Self {
            share: owner.decrypt(shares)?,
            salt: shares.salt.clone(),
        })
    }

    /// The root CA key that follows from it.
    ///
    /// # Errors
    /// When seed or salt have a wrong length.
    pub fn root_key(&self) -> Result<RootKey, OwnerError> {
        let salt = Salt::from_slice(&self.salt).map_err(OwnerError::Seed)?;
        let seed = Seed::from_slice(self.share.expose()).map_err(OwnerError::Seed)?;
        let key = Derivation::new(&seed, &salt).root_ca_key();
        let key = key.map_err(OwnerError::Derive)?;
        Ok(RootKey::from_spki(key.public_key_spki().to_vec()))
    }

    /// What a Coordinator is asked that begins with `first` and this seed.
    pub fn request(&self, first: SetManifestRequest) -> ImportSeedRequest {
        ImportSeedRequest {
            first: Some(first),
            seed: share_bytes(self.share.clone()),
            salt: self.salt.clone().into(),
        }
    }
}

/// Reads `seed-shares.json`.
///
/// # Errors
/// When the file holds something else.
pub fn shares_from_file(path: &Path, json: &[u8]) -> Result<SeedSharesDocument, OwnerError> {
    let document = SeedSharesDocument::from_json(json).map_err(|source| OwnerError::Shares {
        origin: format!("`{}`", path.display()),
        source,
    })?;
    Ok(document)
}

/// The Coordinator's message as the document that `seed-shares.json` holds.
pub fn shares_from_wire(shares: &SeedShares) -> SeedSharesDocument {
    let share = |share: &contrast_proto::user::SeedShare| EncryptedShare {
        public_key: share.public_key.to_vec(),
        encrypted_seed: share.encrypted_seed.to_vec(),
        digest: share.digest.to_vec(),
    };
    SeedSharesDocument {
        salt: shares.salt.to_vec(),
        threshold: shares.threshold,
        set: shares.set.to_vec(),
        shares: shares.shares.iter().map(share).collect(),
    }
}

/// The text of `seed-shares.json`.
///
/// # Errors
/// When the document has no JSON form.
pub fn shares_to_json(shares: &SeedShares) -> Result<String, OwnerError> {
    shares_from_wire(shares)
        .to_json()
        .map_err(|source| OwnerError::Shares {
            origin: "the Coordinator's answer".to_owned(),
            source,
        })
}

/// The share's bytes for a request; wiped when the request is dropped.
pub fn share_bytes(share: SeedShare) -> Bytes {
    struct Exposed(SeedShare);
    impl AsRef<[u8]> for Exposed {
        fn as_ref(&self) -> &[u8] {
            self.0.expose()
        }
    }
    Bytes::from_owner(Exposed(share))
}

fn secret_text(path: &Path, bytes: Vec<u8>) -> Result<Zeroizing<String>, OwnerError> {
    let bytes = Zeroizing::new(bytes);
    let text = std::str::from_utf8(&bytes).map_err(|_| OwnerError::NotText {
        path: path.to_owned(),
    })?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use contrast_clock::{SeededEntropy, SystemEntropy};
    use contrast_manifest::ManifestHash;
    use contrast_pki::{Salt, Seed, shares, verify_update_approval};

    use super::*;
    use crate::transition::TransitionHash;

    fn file(contents: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("key.pem");
        std::fs::write(&path, contents).expect("write");
        (dir, path)
    }

    #[test]
    fn approval_verifies_for_this_manifest_and_base_only() {
        let key = WorkloadOwnerKey::generate(&SystemEntropy).expect("key");
        let (_dir, path) = file(&key.to_pem().expect("PEM"));
        let owner = WorkloadOwner::read(&path).expect("reads");
        let update = Update {
            manifest: ManifestHash([1; 32]),
            base: TransitionHash([2; 32]),
        };
        let approval = owner.approve(update).expect("signs");
        let verify = |manifest: [u8; 32], base: [u8; 32]| {
            verify_update_approval(&approval.public_key, &manifest, &base, &approval.signature)
        };
        verify([1; 32], [2; 32]).expect("verifies");
        verify([3; 32], [2; 32]).expect_err("another manifest");
        verify([1; 32], [3; 32]).expect_err("another base");
    }

    #[test]
    fn missing_key_is_fine_only_when_optional() {
        let path = Path::new("/nonexistent/workload-owner.pem");
        assert!(
            WorkloadOwner::read_optional(path)
                .expect("optional")
                .is_none()
        );
        assert_eq!(
            WorkloadOwner::read(path).expect_err("needed").exit(),
            Exit::Usage
        );
    }

    #[test]
    fn share_survives_file_and_wire() {
        let pem = shares::generate_owner_key_pem().expect("key");
        let (_dir, path) = file(&pem);
        let entropy = SeededEntropy::new(3);
        let seed = Seed::generate(&entropy).expect("seed");
        let salt = Salt::generate(&entropy).expect("salt");
        let owner = shares::SeedShareOwnerKey::from_pem(&pem).expect("owner");
        let document =
            shares::encrypt_seed(&seed, &salt, &[owner], 1, &SystemEntropy).expect("encrypts");
        let wire = SeedShares {
            salt: document.salt.clone().into(),
            threshold: 1,
            set: document.set.clone().into(),
            shares: vec![contrast_proto::user::SeedShare {
                public_key: document.shares[0].public_key.clone().into(),
                encrypted_seed: document.shares[0].encrypted_seed.clone().into(),
                digest: document.shares[0].digest.clone().into(),
            }],
        };
        let json = shares_to_json(&wire).expect("JSON");
        let read = shares_from_file(Path::new("seed-shares.json"), json.as_bytes()).expect("reads");
        assert_eq!(read, document);
        let share = SeedShareOwner::read(&path)
            .expect("key")
            .decrypt(&read)
            .expect("decrypts");
        assert_eq!(share_bytes(share), seed.expose());
    }

    #[test]
    fn garbage_is_named_by_its_file() {
        let (_dir, path) = file("no key");
        let error = WorkloadOwner::read(&path).expect_err("garbage").to_string();
        assert!(error.contains("key.pem"), "{error}");
        let error = shares_from_file(Path::new("seed-shares.json"), b"{}").expect_err("garbage");
        assert_eq!(
            error.to_string(),
            "`seed-shares.json` cannot be read as seed shares"
        );
    }
}
