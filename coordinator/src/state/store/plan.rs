//! What it takes to make a store contain a history.

use std::collections::BTreeSet;

use redb::{Database, ReadableDatabase, ReadableTable};

use super::{
    HEAD, MANIFESTS, META, POLICIES, ROOT_CERTIFICATE, SEED_SHARES, StoreError, TRANSITIONS,
    VOLUMES, begin, foreign, parse_head,
};
use crate::state::{History, Observer, Step, Transition, TransitionHash};

/// What a store is to contain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) history: &'a History,
    /// The sealed generations of encrypted volumes.
    pub(super) volumes: &'a [u8],
}

/// How a store comes to contain a history.
#[derive(Debug)]
pub(super) enum Plan {
    /// It does.
    Nothing,
    /// By one transaction.
    Extend(Extend),
    /// Not at all: it has a transition that is not in the history, and that this process did not try to write.
    SetAside {
        /// The latest transition in the store.
        head: TransitionHash,
    },
}

/// A transaction.
#[derive(Debug, Default)]
pub(super) struct Extend {
    /// How many transitions of the history the store has.
    pub(super) common: usize,
    /// Transitions that have to go: this process tried to write them, said that it failed, and nobody has seen them.
    remove: Vec<TransitionHash>,
}

impl Plan {
    /// Compares the database with what is wanted. `doubtful` are transitions of writes that failed; any of them may be there.
    pub(super) fn make(
        database: &Database,
        wanted: Wanted<'_>,
        doubtful: &BTreeSet<TransitionHash>,
    ) -> Result<Self, StoreError> {
        let history = wanted.history;
        let transaction = database.begin_read().map_err(StoreError::from_redb)?;
        let meta = transaction.open_table(META).map_err(foreign)?;
        let transitions = transaction.open_table(TRANSITIONS).map_err(foreign)?;
        let stored = match meta.get(HEAD).map_err(StoreError::from_redb)? {
            Some(head) => parse_head(head.value())?,
            None => TransitionHash::NONE,
        };
        let mut extend = Extend::default();
        let mut head = stored;
        while head != TransitionHash::NONE {
            if let Some(position) = history.position(head) {
                extend.common = position.saturating_add(1);
                break;
            }
            if !doubtful.contains(&head) {
                return Ok(Self::SetAside { head: stored });
            }
            extend.remove.push(head);
            let row = transitions.get(&head.0).map_err(StoreError::from_redb)?;
            let transition = row.and_then(|row| Transition::decode(row.value()).ok());
            let unreadable =
                || StoreError::Content(format!("transition {head} is missing or cannot be read"));
            head = transition.ok_or_else(unreadable)?.previous;
        }
        let has_all = extend.remove.is_empty() && extend.common == history.generation();
        let has_rows = || -> Result<bool, StoreError> {
            for (row, expected) in beside(wanted)? {
                let found = meta.get(row).map_err(StoreError::from_redb)?;
                if found.is_none_or(|found| found.value() != expected) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        match has_all && has_rows()? {
            true => Ok(Self::Nothing),
            false => Ok(Self::Extend(extend)),
        }
    }
}

impl Extend {
    /// Writes what the database lacks. It is durable when this returns `Ok`.
    pub(super) fn write(
        &self,
        database: &Database,
        wanted: Wanted<'_>,
        observer: &Observer,
    ) -> Result<(), StoreError> {
        let history = wanted.history;
        let links = history.links_from(self.common);
        let transaction = begin(database)?;
        {
            let mut transitions = transaction
                .open_table(TRANSITIONS)
                .map_err(StoreError::from_redb)?;
            for name in &self.remove {
                transitions.remove(&name.0).map_err(StoreError::from_redb)?;
            }
            for link in &links {
                transitions
                    .insert(&link.hash.0, link.transition.encode().as_slice())
                    .map_err(StoreError::from_redb)?;
            }
            observer.step(Step::InTransaction);
            let mut manifests = transaction
                .open_table(MANIFESTS)
                .map_err(StoreError::from_redb)?;
            for name in links.iter().map(|link| link.transition.manifest_hash) {
                if let Some(manifest) = history.manifest(name) {
                    manifests
                        .insert(&name.0, manifest.as_ref())
                        .map_err(StoreError::from_redb)?;
                }
            }
            let mut policies = transaction
                .open_table(POLICIES)
                .map_err(StoreError::from_redb)?;
            for (name, document) in history.policies_from(self.common) {
                let there = policies.get(&name.0).map_err(StoreError::from_redb)?;
                if there.is_none() {
                    drop(there);
                    policies
                        .insert(&name.0, document.as_ref())
                        .map_err(StoreError::from_redb)?;
                }
            }
            let mut meta = transaction
                .open_table(META)
                .map_err(StoreError::from_redb)?;
            for (row, document) in beside(wanted)? {
                meta.insert(row, document.as_slice())
                    .map_err(StoreError::from_redb)?;
            }
            meta.insert(HEAD, &history.head().hash.0[..])
                .map_err(StoreError::from_redb)?;
        }
        observer.step(Step::BeforeCommit);
        transaction.commit().map_err(StoreError::from_redb)
    }
}

/// The rows of `meta` beside the head.
fn beside(wanted: Wanted<'_>) -> Result<[(&'static str, Vec<u8>); 3], StoreError> {
    let history = wanted.history;
    let seed_shares = history
        .seed_shares()
        .to_json()
        .map_err(|error| StoreError::Content(format!("seed shares cannot be written: {error}")))?;
    Ok([
        (SEED_SHARES, seed_shares.into_bytes()),
        (ROOT_CERTIFICATE, history.root_certificate().to_vec()),
        (VOLUMES, wanted.volumes.to_vec()),
    ])
}
