use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use contrast_clock::{Entropy, WallClock};
use contrast_manifest::Manifest;
use contrast_pki::{MeshCa, RootCa};
use tokio::sync::watch;

use super::{
    Active, Approval, Deployment, FoundVolumes, History, HistoryError, Keys, Medium, Phase, Sealed,
    StateError, Store, StoreError, TransitionHash,
    course::{Course, PreviousCa},
    deployment::Keyring,
    phase::Held,
    unserved::Unserved,
};
use crate::{
    causes::causes,
    cluster::{Sink, View},
    replica::{message::MeshCaKey, peers::Trusted},
};

/// Bytes that must be free beside a change, for votes, members and snapshots.
const ROOM_LEFT: u64 = 8 << 20;

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

/// What this replica knows, and the only place where that changes.
///
/// It changes nothing by itself: it follows what the replicas agreed on ([`Sink`]), and turns it into a [`Phase`] as far as the
/// secrets that this replica has allow.
#[derive(Debug)]
pub struct Guard {
    phase: ArcSwap<Phase>,
    /// Told after each change of `phase`.
    changes: watch::Sender<()>,
    trusted: ArcSwapOption<Trusted>,
    writer: Mutex<Writer>,
    clock: Arc<dyn WallClock>,
    entropy: Arc<dyn Entropy>,
    observer: Observer,
}

/// Whoever holds it may change the phase.
#[derive(Debug)]
struct Writer {
    store: Store,
    /// Why the history that was found cannot be used, until another one is in its place.
    damage: Option<String>,
    /// The history file lacks what was applied last. [`Guard::catch_up`] writes it.
    behind: Option<Arc<History>>,
    deployment: Option<Arc<Deployment>>,
    keys: Option<Arc<Keys>>,
    ring: Keyring,
    course: Option<Course>,
    trust: Trust,
}

/// By which manifest other replicas are judged.
#[derive(Debug, Default)]
enum Trust {
    /// That of the latest transition that was applied.
    #[default]
    Applied,
    /// The one that was adopted before any history came: what is applied may still be older, and its Coordinators be others than
    /// those who send the rest. Beside it, what the history says so far.
    Adopted(Option<Arc<Trusted>>),
}

impl Guard {
    /// Opens the store and reads the history. Where others may admit this replica (`may_join`), a history that cannot be used is no
    /// reason not to start: it is left as it is, and set aside when the history of a cluster takes its place.
    ///
    /// # Errors
    /// When the store is in use or cannot be reached, or a later version wrote it; unless `may_join`, when it is damaged, or this version
    /// refuses its latest manifest. Nothing is modified then.
    pub fn open(
        may_join: bool,
        medium: Box<dyn Medium>,
        clock: Arc<dyn WallClock>,
        entropy: Arc<dyn Entropy>,
        observer: Observer,
    ) -> Result<Arc<Self>, StateError> {
        let (mut store, records) = Store::open_any(medium);
        let history = records.map_err(StateError::from);
        let history = history.and_then(|records| {
            let Some(records) = records else {
                return Ok(None);
            };
            let volumes = match &records.volumes {
                FoundVolumes::Sealed(volumes) => volumes.clone(),
                FoundVolumes::Open(_) => None,
            };
            let history = History::read_links(records)?;
            match history.latest_manifest() {
                // The cluster may have another one by now, and what is here stays.
                Err(error @ HistoryError::Manifest { .. }) if may_join => {
                    let why = causes(&error);
                    tracing::error!(
                        event = "manifest_refused",
                        "{why}: it may be of a later version; this replica waits to be admitted"
                    );
                }
                latest => drop(latest?),
            }
            Ok(Some((history, volumes)))
        });
        let (phase, damage) = match history {
            Ok(None) => (Phase::Empty, None),
            Ok(Some((history, volumes))) => {
                let history = Arc::new(history);
                let sealed = Sealed { history, volumes };
                (Phase::Sealed(Arc::new(sealed)), None)
            }
            Err(error) if may_join && is_damage(&error) => {
                tracing::error!(
                    event = "history_damaged",
                    %error,
                    "the history on this disk cannot be used; this replica founds and recovers nothing, and waits to be admitted"
                );
                store.give_up();
                (Phase::Empty, Some(error.to_string()))
            }
            Err(error) => return Err(error),
        };
        Ok(Arc::new(Self {
            phase: ArcSwap::from_pointee(phase),
            changes: watch::Sender::new(()),
            trusted: ArcSwapOption::empty(),
            writer: Mutex::new(Writer {
                store,
                damage,
                behind: None,
                deployment: None,
                keys: None,
                ring: Keyring::default(),
                course: None,
                trust: Trust::default(),
            }),
            clock,
            entropy,
            observer,
        }))
    }

    /// The state now. It never changes; take it once for each request.
    pub fn snapshot(&self) -> Arc<Phase> {
        self.phase.load_full()
    }

    /// Learns of each change of the state. Take it before the [`snapshot`](Self::snapshot), or a change in between is missed.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The manifest by which other replicas are judged; `None` while there is none.
    pub fn trusted(&self) -> Option<Arc<Trusted>> {
        self.trusted.load_full()
    }

    /// Refuses to begin anything where a damaged history lies, which may be the only one that is left.
    ///
    /// # Errors
    /// [`StateError::Damaged`].
    pub(crate) fn check_undamaged(&self) -> Result<(), StateError> {
        match &self.writer().damage {
            None => Ok(()),
            Some(reason) => Err(StateError::Damaged(reason.clone())),
        }
    }

    /// The seed and what follows from it, once this replica has it.
    pub fn deployment(&self) -> Option<Arc<Deployment>> {
        self.writer().deployment.clone()
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

    /// Takes over a deployment's secrets, and whom to believe until the history says so itself.
    pub(crate) fn adopt(&self, deployment: Arc<Deployment>, trusted: Option<Arc<Trusted>>) {
        let mut writer = self.writer();
        writer.deployment = Some(deployment);
        writer.keys = None;
        // Of another life: a recovery costs the mesh CA, and who joins did not see the changes that it catches up with.
        writer.course = None;
        if let Some(trusted) = trusted {
            writer.trust = Trust::Adopted(None);
            self.trusted.store(Some(trusted));
        }
    }

    /// A quorum confirmed that what was applied is the latest: from now on nothing else decides whom to believe.
    pub(crate) fn believe_history(&self) {
        let mut writer = self.writer();
        if let Trust::Adopted(Some(applied)) = std::mem::take(&mut writer.trust) {
            self.trusted.store(Some(applied));
        }
    }

    /// Gives up secrets that turned out to be of no use, before any history came with them.
    pub(crate) fn forget(&self) {
        let mut writer = self.writer();
        if !matches!(&**self.phase.load(), Phase::Active(_) | Phase::Held(_)) {
            writer.behind = None;
            writer.deployment = None;
            writer.keys = None;
            writer.ring = Keyring::default();
            writer.course = None;
            self.trusted.store(None);
        }
    }

    /// Keeps a mesh CA that was made here.
    pub(crate) fn add_own_key(&self, key: MeshCaKey, mesh_ca: Arc<MeshCa>) {
        let phase = self.snapshot();
        let needed = phase
            .history()
            .map(|history| &history.head().transition.mesh_ca_public_key);
        let now = self.clock.now();
        let mut writer = self.writer();
        let needed = needed.map(AsRef::as_ref);
        writer.ring.add_own(key, mesh_ca, needed, now);
    }

    /// Keeps a mesh CA key, and serves if it is the one that was missing.
    ///
    /// # Errors
    /// When it is no key.
    pub(crate) fn add_key(&self, key: MeshCaKey) -> Result<(), StateError> {
        let mut writer = self.writer();
        let phase = self.snapshot();
        let needed = phase
            .history()
            .map(|history| &history.head().transition.mesh_ca_public_key);
        let added = writer
            .ring
            .add(key, needed.map(AsRef::as_ref), self.clock.now());
        added.map_err(StateError::Keys)?;
        if let Phase::Held(held) = &*phase {
            self.refresh(&mut writer, &held.history);
        }
        Ok(())
    }

    /// The key with the given public key (SubjectPublicKeyInfo DER).
    pub(crate) fn key(&self, public: &[u8]) -> Option<MeshCaKey> {
        self.writer().ring.get(public).cloned()
    }

    /// Writes what the history file lacks: what was applied since the last call, or what could not be written then.
    ///
    /// # Errors
    /// When it cannot be written. The next call tries again.
    pub(crate) fn catch_up(&self) -> Result<(), StateError> {
        let mut writer = self.writer();
        match writer.behind.take() {
            None => Ok(()),
            Some(history) => {
                self.write_own(&mut writer, &history)?;
                self.refresh(&mut writer, &history);
                Ok(())
            }
        }
    }

    /// Writes a history of `deployment` to the disk that is not served: what a log had beyond the history file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep(
        &self,
        history: &Arc<History>,
        deployment: &Deployment,
    ) -> Result<(), StateError> {
        self.write(&mut self.writer(), history, deployment)
    }

    /// As [`keep`](Self::keep), with a record of encrypted volumes that nobody believes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep_without_volumes(&self, history: &History) -> Result<(), StateError> {
        // Shorter than any MAC.
        self.writer().store.follow(history, &[], &self.observer)?;
        Ok(())
    }

    /// Refuses a change for which the disk has no room: once it is proposed, a full disk would end this replica.
    ///
    /// # Errors
    /// [`StoreError::NoRoom`].
    pub(crate) fn check_room(&self, request: &UpdateRequest) -> Result<(), StateError> {
        let policies: usize = request.policies.iter().map(Bytes::len).sum();
        let size = u64::try_from(request.manifest.len() + policies).unwrap_or(u64::MAX);
        // Once in the log, once in the history, and pages that are replaced, not overwritten.
        let needed = size.saturating_mul(4).saturating_add(ROOM_LEFT);
        match self.writer().store.free_bytes() {
            Some(free) if free < needed => Err(StoreError::NoRoom { free, needed }.into()),
            _ => Ok(()),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic inside leaves every field as it was before or after an assignment.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a history of the deployment whose secrets are here.
    fn write_own(&self, writer: &mut Writer, history: &Arc<History>) -> Result<(), StateError> {
        match writer.deployment.clone() {
            Some(deployment) => self.write(writer, history, &deployment),
            None => {
                writer.behind = Some(Arc::clone(history));
                Err(StateError::RecoveryNeeded)
            }
        }
    }

    fn write(
        &self,
        writer: &mut Writer,
        history: &Arc<History>,
        deployment: &Deployment,
    ) -> Result<(), StateError> {
        let head = history.head().hash;
        let volumes = history.volumes().seal(deployment.volume_key(), head);
        match writer.store.follow(history, &volumes, &self.observer) {
            Ok(_) => {
                writer.behind = None;
                writer.damage = None;
                Ok(())
            }
            Err(error) => {
                writer.behind = Some(Arc::clone(history));
                Err(error.into())
            }
        }
    }

    /// Turns `history` into the phase that the secrets at hand allow.
    fn refresh(&self, writer: &mut Writer, history: &Arc<History>) {
        let Some(deployment) = writer.deployment.clone() else {
            return;
        };
        let course = writer.course.take();
        let followed = Course::follow(course, history.head(), self.clock.now());
        writer.course = Some(followed);
        let current = self.snapshot();
        if matches!(&*current, Phase::Active(active) if active.transition() == history.head().hash)
        {
            return;
        }
        let phase = match self.activate(writer, &deployment, history, &current) {
            Ok(active) => Phase::Active(Arc::new(active)),
            Err(why) => {
                tracing::warn!(transition = %history.head().hash, "this replica cannot serve: {why}");
                Phase::Held(Arc::new(Held {
                    history: Arc::clone(history),
                    why,
                }))
            }
        };
        self.phase.store(Arc::new(phase));
        self.changes.send_replace(());
    }

    fn activate(
        &self,
        writer: &mut Writer,
        deployment: &Arc<Deployment>,
        history: &Arc<History>,
        current: &Phase,
    ) -> Result<Active, Unserved> {
        let now = self.clock.now();
        let manifest = history.latest_manifest().map_err(Unserved::Manifest)?;
        let trusted = Arc::new(Trusted::of(&manifest, self.trusted().as_deref()));
        self.trust(writer, history, &trusted);
        let keys = match &writer.keys {
            Some(keys) if keys.root.certificate_der() == history.root_certificate() => {
                Arc::clone(keys)
            }
            _ => Arc::new(Keys {
                root: deployment.root_of(history, now).map_err(Unserved::other)?,
                deployment: Arc::clone(deployment),
            }),
        };
        writer.keys = Some(Arc::clone(&keys));
        let public = &history.head().transition.mesh_ca_public_key;
        let mesh_ca = match writer.ring.mesh_ca(public, &keys.root, now) {
            None => return Err(Unserved::MissingKey(public.clone())),
            Some(mesh_ca) => mesh_ca.map_err(|error| Unserved::other(error.into()))?,
        };
        // A key that is denied from now on has a certificate of the mesh CA before, which can only be refused together with all others.
        let revoking = history.denies_more_than_before(&manifest);
        let previous = match manifest.mesh_ca_overlap().is_zero() || revoking {
            true => None,
            false => previous_ca(writer, public, &keys.root, now),
        };
        let active = Active {
            history: Arc::clone(history),
            trust_domain: trust_domain(&manifest, &keys.root),
            manifest,
            trusted,
            keys,
            mesh_ca,
            previous,
            since: now,
        };
        announce(&active, current);
        Ok(active)
    }

    /// Believes `applied`, the latest manifest of `history`, unless one was adopted that `history` does not reach yet: a replica
    /// that catches up with an upgrade would otherwise refuse those who send it the rest.
    fn trust(&self, writer: &mut Writer, history: &History, applied: &Arc<Trusted>) {
        let adopted = self.trusted();
        let behind = adopted.is_some_and(|adopted| history.manifest(adopted.manifest).is_none());
        match &mut writer.trust {
            Trust::Adopted(so_far) if behind => *so_far = Some(Arc::clone(applied)),
            trust => {
                *trust = Trust::Applied;
                self.trusted.store(Some(Arc::clone(applied)));
            }
        }
    }
}

/// The mesh CA before that with the key `latest`, if this replica saw it in force and has its key.
///
/// It counts as replaced from the moment when the key of the latest came here, which happens before that is proposed: a replica that hears
/// of the change late does not start anew, unless it was cut off from the offer of the key as well. Then the members remove it after
/// [`Timing::dead_member_grace`](crate::replica::Timing::dead_member_grace), which bounds by how much it can be wrong.
fn previous_ca(
    writer: &mut Writer,
    latest: &[u8],
    root: &RootCa,
    now: SystemTime,
) -> Option<PreviousCa> {
    let (before, applied) = writer.course.as_ref().and_then(Course::change)?;
    let before = before.clone();
    let received = writer.ring.received(latest).unwrap_or(applied);
    match writer.ring.mesh_ca(&before, root, now)? {
        Ok(mesh_ca) => Some(PreviousCa {
            self_signed_pem: mesh_ca.self_signed_pem(),
            replaced: applied.min(received),
        }),
        Err(error) => {
            tracing::warn!(%error, "the mesh CA before is not trusted any more: it cannot be certified again");
            None
        }
    }
}

/// That of the manifest, or one that nobody else can have: the root CA's key follows from the seed.
fn trust_domain(manifest: &Manifest, root: &RootCa) -> String {
    let of_root = || hex::encode(digest(&SHA256, root.public_key_spki()));
    manifest.trust_domain().map_or_else(of_root, str::to_owned)
}

/// Whether what is on the disk is to blame, not the way to it.
fn is_damage(error: &StateError) -> bool {
    match error {
        StateError::History(_) => true,
        StateError::Store(error) => matches!(
            error,
            StoreError::Damaged { .. } | StoreError::Content(_) | StoreError::Database(_)
        ),
        _ => false,
    }
}

fn announce(active: &Active, before: &Phase) {
    tracing::info!(
        manifest = %active.manifest().hash(),
        transition = %active.transition(),
        generation = active.history().generation(),
        before = before.name(),
        "manifest is active"
    );
    if active.manifest().accepts_insecure_evidence() {
        tracing::warn!(
            manifest = %active.manifest().hash(),
            "INSECURE: the active manifest accepts evidence of a software TEE; whoever holds its root key can \
             impersonate every workload. Do not use it for anything that matters"
        );
    }
}

impl Sink for Guard {
    fn applied(&self, view: &Arc<View>) -> Result<(), io::Error> {
        let Some(history) = &view.history else {
            return Ok(());
        };
        let mut writer = self.writer();
        // The log, which is durable on a quorum, is what an answer rests on. The history file is a second copy: writing it may wait for
        // [`Guard::catch_up`], so that neither this change nor the next waits for its flush.
        if matches!(&**self.phase.load(), Phase::Active(_) | Phase::Held(_)) {
            writer.behind = Some(Arc::clone(history));
            self.refresh(&mut writer, history);
            return Ok(());
        }
        // Where there was nothing, nothing is served before it is on the disk: a founder that dies has no other copy.
        let written = self.write_own(&mut writer, history);
        if written.is_ok() || !matches!(&**self.phase.load(), Phase::Empty) {
            self.refresh(&mut writer, history);
        }
        written.map_err(io::Error::other)
    }
}
