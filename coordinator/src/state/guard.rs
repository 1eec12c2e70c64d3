use std::{collections::BTreeMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use contrast_clock::{Entropy, WallClock};
use contrast_manifest::{Manifest, ManifestHash};
use contrast_pki::{
    Derivation, MeshCa, RootCa, Salt, Seed,
    shares::{SeedShareOwnerKey, SharesError, encrypt_seed},
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    task::spawn_blocking,
};

use super::{
    Active, Approval, History, Keys, Medium, Phase, RecoveryRequest, Sealed, StateError, Store,
    Transition, TransitionHash,
    recovery::{self, Unsealed},
    update,
};

/// A point in the course of a change. Tests end the process there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Nothing was written yet.
    BeforeWrite,
    /// Some rows are in the transaction.
    InTransaction,
    /// All rows are in the transaction.
    BeforeCommit,
    /// The change is durable, readers do not see it yet.
    Committed,
    /// Readers see the change, the caller does not know yet.
    BeforeAnswer,
}

/// Hears of each [`Step`]. The default does nothing.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<dyn Fn(Step) + Send + Sync>>);

impl Observer {
    /// Calls `observe` at each step, on the thread that makes the change.
    pub fn new(observe: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observe)))
    }

    pub(crate) fn step(&self, step: Step) {
        if let Some(observe) = &self.0 {
            observe(step);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// A request to set or replace the manifest.
#[derive(Debug, Clone)]
pub struct UpdateRequest {
    /// The manifest's exact bytes.
    pub manifest: Bytes,
    /// Initdata documents.
    pub policies: Vec<Bytes>,
    /// The transition that the manifest follows.
    pub base: TransitionHash,
    /// Approvals of workload owners.
    pub approvals: Vec<Approval>,
}

/// The state and its only writer.
#[derive(Debug)]
pub struct Guard {
    phase: ArcSwap<Phase>,
    /// Whoever holds the store may change the phase.
    writer: Arc<Mutex<Store>>,
    clock: Arc<dyn WallClock>,
    entropy: Arc<dyn Entropy>,
    observer: Observer,
}

impl Guard {
    /// Opens the store and reads the history.
    ///
    /// # Errors
    /// When the store is damaged or in use, or this version refuses its latest manifest. Nothing is modified then.
    pub fn open(
        medium: Box<dyn Medium>,
        clock: Arc<dyn WallClock>,
        entropy: Arc<dyn Entropy>,
        observer: Observer,
    ) -> Result<Arc<Self>, StateError> {
        let (store, records) = Store::open(medium)?;
        let phase = match records {
            None => Phase::Empty,
            Some(records) => {
                let (history, manifest) = History::read(records)?;
                Phase::Sealed(Arc::new(Sealed {
                    history: Arc::new(history),
                    manifest,
                }))
            }
        };
        let writer = Arc::new(Mutex::new(store));
        Ok(Arc::new(Self {
            phase: ArcSwap::from_pointee(phase),
            writer,
            clock,
            entropy,
            observer,
        }))
    }

    /// The state now. It never changes; take it once for each request.
    pub fn snapshot(&self) -> Arc<Phase> {
        self.phase.load_full()
    }

    /// Sets the first manifest or replaces the active one. Repeating a request that took effect changes nothing.
    ///
    /// Once started, the change runs to its end, even when the caller goes away.
    ///
    /// # Errors
    /// As [`StateError`] says; the state is then unchanged.
    pub async fn set_manifest(
        self: &Arc<Self>,
        request: UpdateRequest,
    ) -> Result<Arc<Active>, StateError> {
        self.change(move |guard, store| guard.set_blocking(store, request))
            .await
    }

    /// Brings a sealed state back to life under a new mesh CA.
    ///
    /// # Errors
    /// As [`StateError`] says; the state is then unchanged.
    pub async fn recover(
        self: &Arc<Self>,
        request: RecoveryRequest,
    ) -> Result<Arc<Active>, StateError> {
        self.change(move |guard, store| guard.recover_blocking(store, &request))
            .await
    }

    pub(crate) fn observer(&self) -> &Observer {
        &self.observer
    }

    pub(crate) fn clock(&self) -> &dyn WallClock {
        &*self.clock
    }

    pub(crate) fn entropy(&self) -> &dyn Entropy {
        &*self.entropy
    }

    /// Runs `change` on a thread that may block. The lock travels with it: a caller who is cancelled does not let a second
    /// writer in.
    async fn change<F>(self: &Arc<Self>, change: F) -> Result<Arc<Active>, StateError>
    where
        F: FnOnce(&Self, &mut Store) -> Result<Arc<Active>, StateError> + Send + 'static,
    {
        let mut store: OwnedMutexGuard<Store> = Arc::clone(&self.writer).lock_owned().await;
        let guard = Arc::clone(self);
        spawn_blocking(move || change(&guard, &mut store))
            .await
            .map_err(|_| StateError::Panicked)?
    }

    fn set_blocking(
        &self,
        store: &mut Store,
        request: UpdateRequest,
    ) -> Result<Arc<Active>, StateError> {
        match &*self.snapshot() {
            Phase::Empty if request.base == TransitionHash::NONE => self.found(store, request),
            Phase::Empty => Err(StateError::StaleBase {
                latest: TransitionHash::NONE,
                found: request.base,
            }),
            Phase::Sealed(_) => Err(StateError::RecoveryNeeded),
            Phase::Active(active) => match took_effect(active, &request) {
                true => Ok(Arc::clone(active)),
                false => self.replace(store, active, request),
            },
        }
    }

    /// The first manifest: draws the seed.
    fn found(&self, store: &mut Store, request: UpdateRequest) -> Result<Arc<Active>, StateError> {
        let manifest = Manifest::parse(&request.manifest).map_err(StateError::Manifest)?;
        let policies = update::check_policies(&manifest, request.policies)?;
        let now = self.clock.now();
        let seed = Seed::generate(self.entropy())?;
        let salt = Salt::generate(self.entropy())?;
        let owners = manifest
            .seedshare_owners()
            .iter()
            .map(|key| SeedShareOwnerKey::from_pkcs1_der(key))
            .collect::<Result<Vec<_>, SharesError>>()?;
        let seed_shares = encrypt_seed(&seed, &salt, &owners, manifest.seedshare_threshold())?;
        let derivation = Derivation::new(&seed, &salt);
        let keys = Arc::new(Keys {
            transition_key: derivation.transition_signing_key()?,
            root: RootCa::new(derivation.root_ca_key()?, now)?,
            derivation,
        });
        let mesh_ca = MeshCa::generate(self.entropy(), &keys.root, now)?;
        let first = sign(&manifest, TransitionHash::NONE, &mesh_ca, &keys)?;
        let history = History::found(
            first,
            manifest.bytes(),
            policies,
            seed_shares,
            keys.root.certificate_der(),
        );
        store.follow(&history, &self.observer)?;
        let verifier = manifest.verifier();
        Ok(self.activate(Active {
            history: Arc::new(history),
            manifest,
            verifier,
            keys,
            mesh_ca,
        }))
    }

    /// A later manifest: needs the owners of the active one.
    fn replace(
        &self,
        store: &mut Store,
        active: &Active,
        request: UpdateRequest,
    ) -> Result<Arc<Active>, StateError> {
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
        update::check_approvals(
            active.manifest(),
            ManifestHash::of(&manifest),
            base,
            &approvals,
        )?;
        let manifest = Manifest::parse(&manifest).map_err(StateError::Manifest)?;
        if !update::same_seed_share_owners(active.manifest(), &manifest) {
            return Err(StateError::SeedShareOwnersChanged);
        }
        let policies = update::check_policies(&manifest, policies)?;
        let keys = Arc::clone(&active.keys);
        let mesh_ca = MeshCa::generate(self.entropy(), &keys.root, self.clock.now())?;
        let next = sign(&manifest, latest, &mesh_ca, &keys)?;
        let history = active.history.extended(next, manifest.bytes(), &policies);
        store.follow(&history, &self.observer)?;
        let verifier = manifest.verifier().with_chains_of(&active.verifier);
        Ok(self.activate(Active {
            history: Arc::new(history),
            manifest,
            verifier,
            keys,
            mesh_ca,
        }))
    }

    fn recover_blocking(
        &self,
        store: &mut Store,
        request: &RecoveryRequest,
    ) -> Result<Arc<Active>, StateError> {
        let snapshot = self.snapshot();
        let sealed = match &*snapshot {
            Phase::Empty => return Err(StateError::NothingToRecover),
            Phase::Active(_) => return Err(StateError::AlreadyRecovered),
            Phase::Sealed(sealed) => sealed,
        };
        let now = self.clock.now();
        let Unsealed {
            keys,
            root_replaced,
        } = recovery::unseal(sealed, request, now)?;
        let mesh_ca = MeshCa::generate(self.entropy(), &keys.root, now)?;
        let manifest = sealed.manifest.clone();
        let next = sign(&manifest, sealed.history.head().hash, &mesh_ca, &keys)?;
        let mut history = (*sealed.history).clone();
        history.extend(next, manifest.bytes(), &BTreeMap::new());
        if root_replaced {
            let seed_shares = history.seed_shares().clone();
            let root = Bytes::copy_from_slice(keys.root.certificate_der());
            history.replace_founding(seed_shares, root);
        }
        store.follow(&history, &self.observer)?;
        let verifier = manifest.verifier();
        Ok(self.activate(Active {
            history: Arc::new(history),
            manifest,
            verifier,
            keys,
            mesh_ca,
        }))
    }

    fn activate(&self, active: Active) -> Arc<Active> {
        let active = Arc::new(active);
        tracing::info!(
            manifest = %active.manifest().hash(),
            transition = %active.transition(),
            generation = active.history().generation(),
            "manifest is active"
        );
        if active.manifest().accepts_insecure_evidence() {
            tracing::warn!(
                manifest = %active.manifest().hash(),
                "INSECURE: the active manifest accepts evidence of a software TEE; whoever holds its root key can \
                 impersonate every workload. Do not use it for anything that matters"
            );
        }
        self.phase
            .store(Arc::new(Phase::Active(Arc::clone(&active))));
        active
    }
}

/// Whether `request` is the one that made the active manifest: it follows the same transition, and nothing but recoveries
/// came after it.
fn took_effect(active: &Active, request: &UpdateRequest) -> bool {
    let manifest = ManifestHash::of(&request.manifest);
    let mut after = active
        .history()
        .links()
        .map(|link| &link.transition)
        .skip_while(|transition| transition.previous != request.base)
        .peekable();
    after.peek().is_some() && after.all(|transition| transition.manifest_hash == manifest)
}

fn sign(
    manifest: &Manifest,
    previous: TransitionHash,
    mesh_ca: &MeshCa,
    keys: &Keys,
) -> Result<Transition, StateError> {
    let mesh_ca = mesh_ca.public_key_spki();
    Ok(Transition::sign(
        manifest.hash(),
        previous,
        mesh_ca,
        &keys.transition_key,
    )?)
}
