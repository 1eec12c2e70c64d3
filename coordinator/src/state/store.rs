mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::PathBuf,
};

use bytes::Bytes;
use contrast_attestation::PolicyHash;
use contrast_manifest::ManifestHash;
use plan::{Extend, Plan, Wanted};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};

use super::{FoundVolumes, History, Medium, Observer, Step, TransitionHash};
use crate::format::{Format, Newer, Other};

const TRANSITIONS: Table = TableDefinition::new("transitions");
const MANIFESTS: Table = TableDefinition::new("manifests");
const POLICIES: Table = TableDefinition::new("policies");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Key: SHA-256 of what the value means.
type Table = TableDefinition<'static, &'static [u8; 32], &'static [u8]>;

/// Rows of `meta`.
const FORMAT: &str = "format";
const HEAD: &str = "head";
const SEED_SHARES: &str = "seed_shares";
const ROOT_CERTIFICATE: &str = "root_certificate";
const VOLUMES: &str = "volumes";

/// Value of the row `format`.
const FORMAT_NAME: Format = Format {
    words: "contrast history",
    version: 1,
};

/// The store could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory or the file cannot be reached.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process holds the directory.
    #[error("another Coordinator uses {}; each needs a directory of its own", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file is no store, or not all of it is there.
    #[error(
        "{} is no intact Coordinator store: {reason}. It was not modified. Restore it from a copy; only if this deployment \
         is to be given up, move the file away to start empty", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A later version wrote the file.
    #[error("{} {newer}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it says.
        newer: Newer,
    },
    /// The database was opened and does not hold what it should.
    #[error("the database is no Coordinator store: {0}")]
    Content(String),
    /// No space.
    #[error(
        "the history could not be written because the disk is full; the manifest from before stays active"
    )]
    Full(#[source] Box<redb::Error>),
    /// Too little space for a change.
    #[error(
        "the disk has {free} bytes left, the change needs {needed}; the manifest from before stays active. Make room on the \
         Coordinator's volume"
    )]
    NoRoom {
        /// Free bytes.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// Reading or writing failed.
    #[error("the history could not be read or written; the manifest from before stays active")]
    Database(#[source] Box<redb::Error>),
}

impl StoreError {
    /// What an error of the database means. A disk without space is told apart from all else.
    pub fn from_redb(error: impl Into<redb::Error>) -> Self {
        let error = error.into();
        match &error {
            redb::Error::Io(cause)
                if matches!(
                    cause.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                Self::Full(Box::new(error))
            }
            _ => Self::Database(Box::new(error)),
        }
    }
}

/// Everything in a store, as it was found. Nothing is verified yet.
#[derive(Debug, Clone)]
pub struct Records {
    /// Latest transition.
    pub head: TransitionHash,
    /// Encoded transitions by hash.
    pub transitions: BTreeMap<TransitionHash, Vec<u8>>,
    /// Manifests by hash.
    pub manifests: BTreeMap<ManifestHash, Bytes>,
    /// Initdata documents by hash.
    pub policies: BTreeMap<PolicyHash, Bytes>,
    /// JSON of the seed shares document.
    pub seed_shares: Bytes,
    /// Root CA certificate, DER.
    pub root_certificate: Bytes,
    /// Generations of encrypted volumes.
    pub volumes: FoundVolumes,
}

/// What [`Store::follow`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Followed {
    /// Nothing: the store has this history already.
    Unchanged,
    /// The store had the beginning of the history.
    Extended {
        /// How many transitions it lacked; 0 when only seed shares, root certificate or volumes differed.
        transitions: usize,
    },
    /// The store had a transition that is not in the history. It was set aside, and another one was made.
    SetAside {
        /// The latest transition of the one that was set aside; [`TransitionHash::NONE`] when it could not be used.
        head: TransitionHash,
    },
}

/// The history on disk: a redb database with the tables `transitions`, `manifests`, `policies` (rows named by SHA-256) and
/// `meta`. One change is one durable transaction.
pub struct Store {
    medium: Box<dyn Medium>,
    /// `None` after a failure: redb gives up a database whose storage failed once, so it is opened anew.
    database: Option<Database>,
    /// Transitions of changes that failed since the last one that did not. Any of them may be on the disk all the same.
    doubtful: BTreeSet<TransitionHash>,
    /// Nobody can use what is there: the first history that is followed takes its place.
    unusable: bool,
}

impl Store {
    /// Opens the store, or creates an empty one, and reads it; `None` when it is empty.
    ///
    /// # Errors
    /// When it is damaged, in use, or cannot be read. The medium is then unchanged.
    pub fn open(medium: Box<dyn Medium>) -> Result<(Self, Option<Records>), StoreError> {
        let (store, records) = Self::open_any(medium);
        Ok((store, records?))
    }

    /// As [`open`](Self::open), but leaves a store behind that can be replaced when what is there cannot be used.
    pub(crate) fn open_any(medium: Box<dyn Medium>) -> (Self, Result<Option<Records>, StoreError>) {
        let opened = medium.open().and_then(|database| {
            let records = read(&database)?;
            Ok((database, records))
        });
        let (database, records) = match opened {
            Ok((database, records)) => (Some(database), Ok(records)),
            Err(error) => (None, Err(error)),
        };
        let store = Self {
            medium,
            unusable: database.is_none(),
            database,
            doubtful: BTreeSet::new(),
        };
        (store, records)
    }

    /// Nobody can use what is there: the first history that is followed takes its place, and what is there is set aside.
    pub(crate) fn give_up(&mut self) {
        self.database = None;
        self.unusable = true;
    }

    /// Makes the store contain exactly `history`, and `volumes`, its sealed generations of encrypted volumes. When this returns `Ok`, it is durable, and all of it became so at once. The effort
    /// depends on how much the store lacks, not on how long the history is.
    ///
    /// When the store has a transition that is not in `history`, it is of another deployment, or of a branch that a recovery
    /// ended. Such a store is set aside, not overwritten, and both latest transitions are logged.
    ///
    /// # Errors
    /// When it could not be written. The next call tries with a freshly opened medium.
    pub fn follow(
        &mut self,
        history: &History,
        volumes: &[u8],
        observer: &Observer,
    ) -> Result<Followed, StoreError> {
        let wanted = Wanted { history, volumes };
        if self.unusable {
            observer.step(Step::BeforeWrite);
            let write = |new: &Database| Extend::default().write(new, wanted, observer);
            self.database = Some(self.medium.set_aside(&write)?);
            self.unusable = false;
            observer.step(Step::Committed);
            let head = TransitionHash::NONE;
            return Ok(Followed::SetAside { head });
        }
        let database = match self.database.take() {
            Some(database) => database,
            None => self.medium.open()?,
        };
        let plan = Plan::make(&database, wanted, &self.doubtful)?;
        if let Plan::Nothing = plan {
            self.database = Some(database);
            return Ok(Followed::Unchanged);
        }
        observer.step(Step::BeforeWrite);
        let common = match &plan {
            Plan::Extend(extend) => extend.common,
            _ => 0,
        };
        match self.carry_out(plan, database, wanted, observer) {
            Ok(followed) => {
                self.doubtful.clear();
                observer.step(Step::Committed);
                Ok(followed)
            }
            Err(error) => {
                let tried = history.links_from(common).into_iter();
                self.doubtful.extend(tried.map(|link| link.hash));
                Err(error)
            }
        }
    }

    fn carry_out(
        &mut self,
        plan: Plan,
        database: Database,
        wanted: Wanted<'_>,
        observer: &Observer,
    ) -> Result<Followed, StoreError> {
        let history = wanted.history;
        let (database, followed) = match plan {
            Plan::Nothing => (database, Followed::Unchanged),
            Plan::Extend(extend) => {
                extend.write(&database, wanted, observer)?;
                let transitions = history.generation().saturating_sub(extend.common);
                (database, Followed::Extended { transitions })
            }
            Plan::SetAside { head } => {
                tracing::warn!(
                    stored = %head,
                    latest = %history.head().hash,
                    "the stored history ends in a transition that is not in this deployment's history: it is of another \
                     deployment, or of a branch that a recovery ended. It is set aside, and a new store is written"
                );
                // Closing writes to it.
                drop(database);
                let write = |new: &Database| Extend::default().write(new, wanted, observer);
                (self.medium.set_aside(&write)?, Followed::SetAside { head })
            }
        };
        self.database = Some(database);
        Ok(followed)
    }

    /// How many bytes can still be written where the store is; `None` when that is unknown.
    pub fn free_bytes(&self) -> Option<u64> {
        self.medium.free_bytes()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("medium", &self.medium)
            .finish_non_exhaustive()
    }
}

/// Creates the tables in an empty database. For a [`Medium`], which makes a database where there is none.
///
/// # Errors
/// When the database cannot be written.
pub fn initialise(database: &Database) -> Result<(), StoreError> {
    let transaction = begin(database)?;
    {
        transaction
            .open_table(TRANSITIONS)
            .map_err(StoreError::from_redb)?;
        transaction
            .open_table(MANIFESTS)
            .map_err(StoreError::from_redb)?;
        transaction
            .open_table(POLICIES)
            .map_err(StoreError::from_redb)?;
        let mut meta = transaction
            .open_table(META)
            .map_err(StoreError::from_redb)?;
        meta.insert(FORMAT, FORMAT_NAME.name().as_bytes())
            .map_err(StoreError::from_redb)?;
    }
    transaction.commit().map_err(StoreError::from_redb)
}

/// Reads everything; `None` when no transition was ever written.
pub(crate) fn read(database: &Database) -> Result<Option<Records>, StoreError> {
    let transaction = database.begin_read().map_err(StoreError::from_redb)?;
    let meta = transaction.open_table(META).map_err(foreign)?;
    let row = |name: &str| -> Result<Option<Bytes>, StoreError> {
        let row = meta.get(name).map_err(StoreError::from_redb)?;
        Ok(row.map(|value| Bytes::copy_from_slice(value.value())))
    };
    // Before all else: the rest may be anything in a later version.
    match FORMAT_NAME.check(row(FORMAT)?.as_deref()) {
        Ok(()) => {}
        Err(Other::Newer(newer)) => {
            let path = PathBuf::from(super::medium::FILE);
            return Err(StoreError::Newer { path, newer });
        }
        Err(Other::Foreign(reason)) => return Err(StoreError::Content(reason)),
    }
    let rows = |table: Table| -> Result<Vec<([u8; 32], Bytes)>, StoreError> {
        let table = transaction.open_table(table).map_err(foreign)?;
        let mut rows = Vec::new();
        for row in table.iter().map_err(StoreError::from_redb)? {
            let (key, value) = row.map_err(StoreError::from_redb)?;
            rows.push((*key.value(), Bytes::copy_from_slice(value.value())));
        }
        Ok(rows)
    };
    let transitions = rows(TRANSITIONS)?;
    let Some(head) = row(HEAD)? else {
        return match transitions.len() {
            0 => Ok(None),
            found => Err(StoreError::Content(format!(
                "{found} transition(s), but no head"
            ))),
        };
    };
    let head = parse_head(&head)?;
    let required = |name: &str| {
        let missing = || StoreError::Content(format!("row `{name}` of table meta is missing"));
        row(name)?.ok_or_else(missing)
    };
    Ok(Some(Records {
        head,
        transitions: transitions
            .into_iter()
            .map(|(k, v)| (TransitionHash(k), v.to_vec()))
            .collect(),
        manifests: rows(MANIFESTS)?
            .into_iter()
            .map(|(k, v)| (ManifestHash(k), v))
            .collect(),
        policies: rows(POLICIES)?
            .into_iter()
            .map(|(k, v)| (PolicyHash(k), v))
            .collect(),
        seed_shares: required(SEED_SHARES)?,
        root_certificate: required(ROOT_CERTIFICATE)?,
        volumes: FoundVolumes::Sealed(row(VOLUMES)?),
    }))
}

fn parse_head(bytes: &[u8]) -> Result<TransitionHash, StoreError> {
    let wrong = |_| StoreError::Content(format!("the head has {} bytes, expected 32", bytes.len()));
    bytes.try_into().map(TransitionHash).map_err(wrong)
}

/// A table that is missing or of another type means another program's database.
fn foreign(error: redb::TableError) -> StoreError {
    match error {
        redb::TableError::Storage(storage) => StoreError::from_redb(storage),
        other => StoreError::Content(other.to_string()),
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write().map_err(StoreError::from_redb)?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(StoreError::from_redb)?;
    Ok(transaction)
}
