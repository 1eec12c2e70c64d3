//! A small deployment, and a disk in memory that can be filled up, recorded and replayed.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use contrast_attestation::{
    Demands, ReferenceValue, Root,
    appraisal::{SnpDemands, SnpGuestPolicy, SnpMeasurement, SnpPlatformInfo, SnpProduct, SnpTcb},
};
use contrast_clock::{FixedWallClock, SeededEntropy, WallClock};
use contrast_manifest::{ManifestDocument, ManifestHash, PolicyDocument};
use contrast_pki::{
    Salt, Seed, WorkloadOwnerKey,
    shares::{SeedShareOwnerKey, SeedSharesDocument, decrypt_share, generate_owner_key_pem},
};
use redb::{Database, StorageBackend};

use crate::{
    cluster::{LogFile, LogMedium, TypeConfig},
    replica::{Alone, Parts, Replica, Timing, message::Place},
    state::{
        Active, Advance, Advanced, Approval, Directory, Fill, Medium, Observer, Phase,
        RecoveryRequest, StateError, StoreError, TransitionHash, UpdateRequest, Volumes, store,
        update::policy_hash,
    },
};

/// RSA-4096 takes seconds to generate; one key serves all tests.
pub(crate) static SEED_SHARE_OWNER: LazyLock<String> =
    LazyLock::new(|| generate_owner_key_pem().expect("RSA key").to_string());

pub(crate) fn owner_key(number: u64) -> WorkloadOwnerKey {
    WorkloadOwnerKey::generate(&SeededEntropy::new(number)).expect("owner key")
}

/// A manifest with one owner; `name` becomes a SAN, so that different names give different manifests.
pub(crate) fn document(name: &str, owners: &[&WorkloadOwnerKey]) -> ManifestDocument {
    let entry = |sans: &[&str], role: &str| PolicyDocument {
        sans: sans.iter().map(ToString::to_string).collect(),
        workload_secret_id: "secret".to_owned(),
        role: role.to_owned(),
        vcpus: None,
        spiffe_path: String::new(),
        sealed_secrets: Vec::new(),
    };
    let mut document = ManifestDocument {
        policies: BTreeMap::from([
            (
                policy_hash(&policies()[0]).to_string(),
                entry(&["coordinator"], "coordinator"),
            ),
            (
                policy_hash(&policies()[1]).to_string(),
                entry(&[name, "*"], ""),
            ),
        ]),
        workload_owner_pub_keys: owners
            .iter()
            .map(|key| hex::encode(key.public_key_spki()))
            .collect(),
        seedshare_owner_pub_keys: vec![hex::encode(seed_share_owner().as_der())],
        ..ManifestDocument::default()
    };
    let demands = Demands::Snp(SnpDemands {
        product: SnpProduct::Milan,
        measurement: SnpMeasurement::Any([7; 48]),
        minimum_tcb: SnpTcb::default(),
        guest_policy: SnpGuestPolicy {
            smt: true,
            ..SnpGuestPolicy::default()
        },
        platform_info: SnpPlatformInfo::default(),
        minimum_mitigation_vector: 0,
        allowed_chip_ids: Vec::new(),
        trusted_id_key_digests: Vec::new(),
        trusted_author_key_digests: Vec::new(),
    });
    let reference = ReferenceValue {
        vtpm: None,
        name: String::new(),
        root: Root::Vendor,
        demands,
    };
    document.reference_values.push(&reference, "Test");
    document
}

pub(crate) fn policies() -> Vec<Bytes> {
    vec![
        Bytes::from_static(b"coordinator initdata"),
        Bytes::from_static(b"web initdata"),
    ]
}

fn seed_share_owner() -> SeedShareOwnerKey {
    SeedShareOwnerKey::from_pem(&SEED_SHARE_OWNER).expect("own key")
}

/// A request to set `document` after `base`, signed by `owners`.
pub(crate) fn request(
    document: &ManifestDocument,
    base: TransitionHash,
    owners: &[&WorkloadOwnerKey],
) -> UpdateRequest {
    let manifest = Bytes::from(document.to_json());
    let approvals = owners
        .iter()
        .map(|key| approval(key, &manifest, base))
        .collect();
    UpdateRequest {
        manifest,
        policies: policies(),
        base,
        approvals,
    }
}

pub(crate) fn approval(key: &WorkloadOwnerKey, manifest: &[u8], base: TransitionHash) -> Approval {
    let signature = key
        .approve_update(&ManifestHash::of(manifest).0, &base.0)
        .expect("signs");
    Approval {
        public_key: Bytes::copy_from_slice(key.public_key_spki()),
        signature: signature.into(),
    }
}

/// What the seed share owner sends.
pub(crate) fn recovery(
    shares: &SeedSharesDocument,
    known: Option<TransitionHash>,
) -> RecoveryRequest {
    let share = decrypt_share(shares, &SEED_SHARE_OWNER).expect("own share");
    RecoveryRequest {
        seed: Seed::from_slice(share.expose()).expect("threshold 1"),
        salt: Salt::from_slice(&shares.salt).expect("32 bytes"),
        known: known.into_iter().collect(),
        force: false,
        forget_volumes: false,
    }
}

/// A replica that is alone.
#[derive(Debug)]
pub(crate) struct Lone(Arc<Replica<TypeConfig>>);

impl Lone {
    pub(crate) async fn set_manifest(
        &self,
        request: UpdateRequest,
    ) -> Result<Arc<Active>, StateError> {
        let transition = self.0.set_manifest(request).await?.transition;
        let active = self.0.confirmed().await?;
        assert_eq!(active.transition(), transition);
        Ok(active)
    }

    pub(crate) async fn recover(
        &self,
        request: RecoveryRequest,
    ) -> Result<Arc<Active>, StateError> {
        let transition = self.0.recover(request).await?;
        let active = self.0.confirmed().await?;
        assert_eq!(active.transition(), transition);
        Ok(active)
    }

    pub(crate) fn snapshot(&self) -> Arc<Phase> {
        self.0.guard().snapshot()
    }

    pub(crate) async fn advance(&self, advance: Advance) -> Result<Advanced, StateError> {
        self.0.advance_volume(advance).await
    }

    pub(crate) async fn volumes(&self) -> Result<Volumes, StateError> {
        Ok(self.0.confirmed_volumes().await?.1)
    }

    pub(crate) fn catch_up(&self) -> Result<(), StateError> {
        self.0.guard().catch_up()
    }

    /// Ends it, and lets go of its disk.
    pub(crate) async fn close(self) {
        self.0.stop().await;
        let guard = Arc::downgrade(self.0.guard());
        drop(self.0);
        // Raft's tasks end on their own time.
        while guard.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

pub(crate) fn open_in(directory: &Path) -> Result<Lone, StateError> {
    let directory = Directory::claim(directory)?;
    let log = LogFile::new(&directory);
    open_with(Box::new(directory), Box::new(log))
}

pub(crate) fn open(medium: Box<dyn Medium>) -> Result<Lone, StateError> {
    open_with(medium, Box::new(Disk::default()))
}

pub(crate) fn open_with(
    history: Box<dyn Medium>,
    log: Box<dyn LogMedium>,
) -> Result<Lone, StateError> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    open_at(history, log, Arc::new(FixedWallClock::new(now)))
}

pub(crate) fn open_at(
    history: Box<dyn Medium>,
    log: Box<dyn LogMedium>,
    clock: Arc<dyn WallClock>,
) -> Result<Lone, StateError> {
    let replica = Replica::open(Parts {
        may_join: false,
        peers: Arc::new(Alone(Place::new("alone:7778"))),
        history,
        log,
        clock,
        entropy: Arc::new(contrast_clock::SystemEntropy),
        observer: Observer::default(),
        timing: Timing::default(),
    })?;
    Ok(Lone(replica))
}

pub(crate) fn active(lone: &Lone) -> Arc<Active> {
    Arc::clone(lone.snapshot().active().expect("active"))
}

/// An operation that changed the disk.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Write(u64, Vec<u8>),
    SetLength(u64),
    Sync,
}

#[derive(Debug, Default)]
pub(crate) struct Contents {
    bytes: Vec<u8>,
    log: Vec<Operation>,
    /// Operations left before the disk is full; `None`: it never is.
    room: Option<usize>,
}

/// A file in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenFile(Arc<Mutex<Contents>>);

impl OpenFile {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, operation: Operation) -> io::Result<()> {
        let mut contents = self.contents();
        match &mut contents.room {
            Some(0) => return Err(io::ErrorKind::StorageFull.into()),
            Some(room) => *room -= 1,
            None => {}
        }
        apply(&mut contents.bytes, &operation);
        contents.log.push(operation);
        Ok(())
    }
}

/// A disk in memory with one file, which can be set aside for another one; clones are the same disk. Whoever has opened the file
/// keeps the one it opened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    file: Arc<Mutex<OpenFile>>,
    /// What was set aside last.
    aside: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Disk {
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.restore(bytes);
        disk
    }

    /// The file of now.
    pub(crate) fn file(&self) -> OpenFile {
        let file = self.file.lock();
        file.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.file().contents().bytes.clone()
    }

    /// Puts the disk into another state, behind the back of whoever uses it.
    pub(crate) fn restore(&self, bytes: Vec<u8>) {
        self.file().contents().bytes = bytes;
    }

    /// Puts another file in the place of the one of now.
    pub(crate) fn replace_file(&self, bytes: Vec<u8>) {
        let new = OpenFile::default();
        new.contents().bytes = bytes;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *file, new);
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        *aside = Some(old.contents().bytes.clone());
    }

    /// What was set aside last.
    pub(crate) fn aside(&self) -> Option<Vec<u8>> {
        let aside = self.aside.lock();
        aside.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn full_after(&self, operations: Option<usize>) {
        self.file().contents().room = operations;
    }

    /// Replaces bytes wherever they are, behind the back of whoever uses the disk. Returns how often.
    pub(crate) fn replace(&self, old: &[u8], new: &[u8]) -> usize {
        assert_eq!(old.len(), new.len());
        let file = self.file();
        let bytes = &mut file.contents().bytes;
        let places: Vec<usize> = (0..bytes.len() - old.len())
            .filter(|at| bytes[*at..].starts_with(old))
            .collect();
        for at in &places {
            bytes[*at..*at + old.len()].copy_from_slice(new);
        }
        places.len()
    }

    /// Starts a new log and returns the old one.
    pub(crate) fn take_log(&self) -> Vec<Operation> {
        std::mem::take(&mut self.file().contents().log)
    }
}

pub(crate) fn apply(bytes: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Write(offset, data) => {
            let offset = usize::try_from(*offset).expect("small");
            bytes[offset..offset + data.len()].copy_from_slice(data);
        }
        Operation::SetLength(length) => bytes.resize(usize::try_from(*length).expect("small"), 0),
        Operation::Sync => {}
    }
}

impl StorageBackend for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.contents().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let contents = self.contents();
        let offset = usize::try_from(offset).expect("small");
        let found = contents.bytes.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Operation::SetLength(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Operation::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Operation::Write(offset, data.to_vec()))
    }
}

impl Medium for Disk {
    fn open(&self) -> Result<Database, StoreError> {
        let new = self.bytes().is_empty();
        let database = Database::builder()
            .create_with_backend(self.file())
            .map_err(StoreError::from_redb)?;
        if new {
            store::initialise(&database)?;
        }
        Ok(database)
    }

    fn set_aside(&self, fill: &Fill<'_>) -> Result<Database, StoreError> {
        let new = Self::default();
        fill(&Medium::open(&new)?)?;
        self.replace_file(new.bytes());
        Medium::open(self)
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}
