//! What a change of the state would be, before anybody agrees to it. Pure but for randomness and the time.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use contrast_clock::Entropy;
use contrast_manifest::{Manifest, ManifestHash};
use contrast_pki::{
    MeshCa, RootCa, Salt, Seed,
    shares::{SeedShareOwnerKey, SharesError, encrypt_seed},
};

use super::{
    Active, Deployment, History, KeysError, StateError, Transition, TransitionHash, UpdateRequest,
    transition::sha256, update,
};
use crate::{
    cluster::{Change, FoundingDocuments},
    replica::message::{MeshCaKey, SetReceipt},
};

/// A change that is ready to be committed, with the key that must be known to others before it is.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) change: Change,
    pub(crate) key: MeshCaKey,
    pub(crate) mesh_ca: Arc<MeshCa>,
    /// What the owner is told when the change is committed.
    pub(crate) receipt: SetReceipt,
}

/// Where a deployment has its seed from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// It is drawn here, and nobody knows it but attested Coordinators and the owners of its shares.
    Drawn,
    /// Somebody brings it from another Coordinator, and knows it.
    Imported {
        /// The seed.
        seed: Arc<Seed>,
        /// Its salt.
        salt: Arc<Salt>,
    },
}

/// The first manifest, with its seed.
pub(crate) fn found(
    request: UpdateRequest,
    origin: &Origin,
    entropy: &dyn Entropy,
    now: SystemTime,
) -> Result<(Arc<Deployment>, Manifest, Proposal), StateError> {
    let manifest = Manifest::parse(&request.manifest).map_err(StateError::Manifest)?;
    let policies = update::check_policies(&manifest, request.policies)?;
    let (seed, salt) = match origin {
        Origin::Drawn => (
            Arc::new(Seed::generate(entropy)?),
            Arc::new(Salt::generate(entropy)?),
        ),
        Origin::Imported { seed, salt } => (Arc::clone(seed), Arc::clone(salt)),
    };
    let shares = share(&seed, &salt, &manifest, entropy)?;
    let deployment = Arc::new(Deployment::new(seed, salt).map_err(StateError::Keys)?);
    check_sealed(&manifest, &deployment)?;
    let root = RootCa::new(deployment.derivation().root_ca_key()?, now)?;
    let founding = FoundingDocuments {
        seed_shares: Bytes::copy_from_slice(shares.as_bytes()),
        root_certificate: Bytes::copy_from_slice(root.certificate_der()),
    };
    let next = Next {
        manifest: &manifest,
        policies: policies.into_values().collect(),
        previous: TransitionHash::NONE,
        seed_shares: sha256(&[shares.as_bytes()]),
        founding: Some(founding),
    };
    let mut proposal = next.propose(&deployment, &root, entropy, now)?;
    proposal.receipt.seed_shares = Some(shares);
    Ok((deployment, manifest, proposal))
}

/// Refuses a manifest with a sealed secret that its pods could never get.
fn check_sealed(manifest: &Manifest, deployment: &Deployment) -> Result<(), StateError> {
    let key = deployment.sealing_key();
    for (name, secret) in manifest.sealed_secrets() {
        let opened = key.open(secret.kind.as_str(), name, &secret.ciphertext);
        opened.map_err(|_| StateError::Sealed { name: name.clone() })?;
    }
    Ok(())
}

/// JSON of the seed's shares for the owners that `manifest` names.
fn share(
    seed: &Seed,
    salt: &Salt,
    manifest: &Manifest,
    entropy: &dyn Entropy,
) -> Result<String, StateError> {
    let owners = manifest
        .seedshare_owners()
        .iter()
        .map(|key| SeedShareOwnerKey::from_der(key))
        .collect::<Result<Vec<_>, SharesError>>()?;
    let shares = encrypt_seed(seed, salt, &owners, manifest.seedshare_threshold(), entropy)?;
    Ok(shares.to_json()?)
}

/// A later manifest: needs the owners of the active one. When it names other owners of the seed, the seed is shared anew.
pub(crate) fn replace(
    active: &Active,
    request: UpdateRequest,
    entropy: &dyn Entropy,
    now: SystemTime,
) -> Result<Proposal, StateError> {
    let UpdateRequest {
        manifest,
        policies,
        base,
        approvals,
    } = request;
    let latest = active.transition();
    if base != latest {
        return Err(StateError::StaleBase {
            latest,
            found: base,
        });
    }
    let hash = ManifestHash::of(&manifest);
    update::check_approvals(active.manifest(), hash, base, &approvals)?;
    let manifest = Manifest::parse(&manifest).map_err(StateError::Manifest)?;
    let policies = update::check_policies(&manifest, policies)?;
    let keys = active.keys();
    check_sealed(&manifest, keys.deployment())?;
    let shares = match update::same_seed_share_owners(active.manifest(), &manifest) {
        true => None,
        false => {
            let deployment = keys.deployment();
            Some(share(
                deployment.seed(),
                deployment.salt(),
                &manifest,
                entropy,
            )?)
        }
    };
    let founding = shares.as_ref().map(|shares| FoundingDocuments {
        seed_shares: Bytes::copy_from_slice(shares.as_bytes()),
        root_certificate: Bytes::copy_from_slice(active.history().root_certificate()),
    });
    let next = Next {
        manifest: &manifest,
        policies: policies.into_values().collect(),
        previous: latest,
        seed_shares: match &shares {
            Some(shares) => sha256(&[shares.as_bytes()]),
            None => active.history().head().transition.seed_shares,
        },
        founding,
    };
    let mut proposal = next.propose(keys.deployment(), keys.root(), entropy, now)?;
    proposal.receipt.seed_shares = shares;
    Ok(proposal)
}

/// The same manifest under a new mesh CA: after a recovery, or when no living replica has the key of the old one.
pub(crate) fn renew(
    history: &History,
    manifest: &Manifest,
    deployment: &Deployment,
    entropy: &dyn Entropy,
    now: SystemTime,
) -> Result<Proposal, StateError> {
    let root = deployment.root_of(history, now)?;
    let replaced = root.certificate_der() != history.root_certificate();
    let founding = match replaced {
        true => Some(FoundingDocuments {
            seed_shares: history.seed_shares().to_json()?.into(),
            root_certificate: Bytes::copy_from_slice(root.certificate_der()),
        }),
        false => None,
    };
    let next = Next {
        manifest,
        policies: Vec::new(),
        previous: history.head().hash,
        seed_shares: history.head().transition.seed_shares,
        founding,
    };
    next.propose(deployment, &root, entropy, now)
}

/// What a request that took effect already is answered.
pub(crate) fn receipt(active: &Active) -> Result<SetReceipt, StateError> {
    Ok(SetReceipt {
        root_ca: active.keys().root().certificate_pem(),
        mesh_ca: active.mesh_ca().self_signed_pem(),
        transition: active.transition(),
        // The answer that was lost may have been the one with new shares.
        seed_shares: Some(active.history().seed_shares().to_json()?),
    })
}

/// Whether `request` is the one that made the active manifest: it follows the same transition, and nothing but recoveries
/// came after it.
pub(crate) fn took_effect(active: &Active, request: &UpdateRequest) -> bool {
    let manifest = ManifestHash::of(&request.manifest);
    let mut after = active
        .history()
        .links()
        .map(|link| &link.transition)
        .skip_while(|transition| transition.previous != request.base)
        .peekable();
    after.peek().is_some() && after.all(|transition| transition.manifest_hash == manifest)
}

struct Next<'a> {
    manifest: &'a Manifest,
    policies: Vec<Bytes>,
    previous: TransitionHash,
    /// SHA-256 of the seed shares document that is in force with it.
    seed_shares: [u8; 32],
    founding: Option<FoundingDocuments>,
}

impl Next<'_> {
    fn propose(
        self,
        deployment: &Deployment,
        root: &RootCa,
        entropy: &dyn Entropy,
        now: SystemTime,
    ) -> Result<Proposal, StateError> {
        let mesh_ca = MeshCa::generate(entropy, root, now)?;
        let transition = Transition::sign(
            self.manifest.hash(),
            self.previous,
            mesh_ca.public_key_spki(),
            self.seed_shares,
            deployment.transition_key(),
        )?;
        let receipt = SetReceipt {
            root_ca: root.certificate_pem(),
            mesh_ca: mesh_ca.self_signed_pem(),
            transition: transition.hash(),
            seed_shares: None,
        };
        let pkcs8 = mesh_ca.private_key_pkcs8().map_err(KeysError::from);
        Ok(Proposal {
            change: Change {
                transition,
                manifest: Bytes::copy_from_slice(self.manifest.bytes()),
                policies: self.policies,
                founding: self.founding,
            },
            key: MeshCaKey {
                pkcs8: Arc::new(pkcs8.map_err(StateError::Keys)?),
            },
            mesh_ca: Arc::new(mesh_ca),
            receipt,
        })
    }
}
