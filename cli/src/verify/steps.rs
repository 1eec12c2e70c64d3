//! The history as steps: which manifest came when, and what each changed.

use std::collections::{BTreeSet, HashMap};

use contrast_attestation::printable;
use contrast_manifest::{
    Manifest, ManifestHash, OwnerKeyDigest,
    diff::{self, ManifestDiff},
};
use contrast_proto::user::GetManifestsResponse;
use serde::Serialize;

use super::history::History;
use crate::transition::{TransitionHash, sha256};

/// Why there is a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The deployment began.
    First,
    /// Another manifest came into force.
    Update,
    /// The same manifest with a new mesh CA.
    Recovery,
}

impl Event {
    /// The event in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::First => "first manifest",
            Self::Update => "update",
            Self::Recovery => "recovery",
        }
    }

    /// What it means.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::First => "The deployment began with this manifest. Nobody had to approve it.",
            Self::Update => {
                "Another manifest came into force. A Coordinator demands that workload owners of the manifest before approve it."
            }
            Self::Recovery => {
                "The manifest stayed the same and the mesh CA is new: the Coordinators had lost its key and were recovered, or the same \
                 manifest was set again."
            }
        }
    }
}

/// A value that differs between two manifests, JSON in one line; `None` where it is absent. Nothing is cut, and characters that
/// [`printable`] replaces are written as `\u{..}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where, for example `$.Policies["…"].SANs[0]`.
    pub path: String,
    /// The value before.
    pub before: Option<String>,
    /// The value after.
    pub after: Option<String>,
}

/// How two manifests differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// What happened to owners and thresholds, in words.
    pub owners: Vec<String>,
    /// Every value that differs, those of owners too.
    pub values: Vec<Change>,
    /// What is to be said about manifests whose values cannot be compared, or are equal; empty otherwise.
    pub note: String,
}

impl Changes {
    /// Compares the bytes, and the owners of those manifests that are valid.
    pub fn between(before: &Side<'_>, after: &Side<'_>) -> Self {
        let mut changes = Self::default();
        match diff::explain(before.bytes, after.bytes) {
            ManifestDiff::Equal => {}
            ManifestDiff::Values(differences) => {
                let shown = |value: Option<String>| value.map(|text| printable(&text).into_owned());
                let values = differences.into_iter().map(|difference| Change {
                    path: printable(&difference.path.to_string()).into_owned(),
                    before: shown(difference.expected),
                    after: shown(difference.found),
                });
                changes.values = values.collect();
            }
            // Its lines are its own, and what they quote is escaped.
            other => {
                let line = other.to_string().replace("\n  ", " ");
                changes.note = printable(&line).into_owned();
            }
        }
        if let (Some(before), Some(after)) = (before.manifest, after.manifest) {
            changes.owners = owner_changes(before, after);
        }
        changes
    }
}

/// A manifest to compare.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// What they say; none when they are not valid.
    pub manifest: Option<&'a Manifest>,
}

impl<'a> Side<'a> {
    /// A valid manifest.
    pub fn of(manifest: &'a Manifest) -> Self {
        Self {
            bytes: manifest.bytes(),
            manifest: Some(manifest),
        }
    }
}

/// One transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its number, from 1.
    pub generation: usize,
    /// Why there is one.
    pub event: Event,
    /// Its hash; none when it or one before it cannot be computed.
    pub transition: Option<TransitionHash>,
    /// SHA-256 of its manifest, hex.
    pub manifest_sha256: String,
    /// The manifest's number among the manifests of the answer, from 0, as in `verify/manifest.N.json`; none when it is missing.
    pub manifest: Option<usize>,
    /// SHA-256 of the mesh CA's SubjectPublicKeyInfo, hex.
    pub mesh_ca_key_sha256: String,
    /// SHA-256 of the SubjectPublicKeyInfo of the key that signed, hex.
    pub signing_key_sha256: String,
    /// Whether the seed was encrypted to its owners anew.
    pub seed_shared_anew: bool,
    /// What is different from the step before.
    pub changes: Changes,
}

/// The steps of a history that was checked.
pub fn steps(response: &GetManifestsResponse, history: &History) -> Vec<Step> {
    let numbers: HashMap<[u8; 32], usize> = response
        .manifests
        .iter()
        .enumerate()
        .map(|(number, bytes)| (sha256(bytes), number))
        .collect();
    let number_of = |hash: &[u8]| numbers.get(<&[u8; 32]>::try_from(hash).ok()?).copied();
    let side = |hash: &[u8]| {
        let bytes = response.manifests.get(number_of(hash)?)?;
        let manifest = history.manifests.get(&ManifestHash::of(bytes));
        Some(Side { bytes, manifest })
    };
    let transitions = response.transitions.iter();
    let before = [None].into_iter().chain(transitions.clone().map(Some));
    let step = |(index, (transition, before)): (usize, (_, Option<_>))| {
        let transition: &contrast_proto::user::Transition = transition;
        let before: Option<&contrast_proto::user::Transition> = before;
        let event = match before {
            None => Event::First,
            Some(before) if before.manifest_hash == transition.manifest_hash => Event::Recovery,
            Some(_) => Event::Update,
        };
        let changes = match (event, before.map(|before| &before.manifest_hash)) {
            (Event::Update, Some(hash)) => match (side(hash), side(&transition.manifest_hash)) {
                (Some(before), Some(after)) => Changes::between(&before, &after),
                _ => Changes {
                    note: "the Coordinator did not send both manifests, so nothing can be said about the difference".into(),
                    ..Changes::default()
                },
            },
            _ => Changes::default(),
        };
        Step {
            generation: index.saturating_add(1),
            event,
            transition: history.chain.get(index).copied(),
            manifest_sha256: hex::encode(&transition.manifest_hash),
            manifest: number_of(&transition.manifest_hash),
            mesh_ca_key_sha256: hex::encode(sha256(&transition.mesh_ca_public_key)),
            signing_key_sha256: hex::encode(sha256(&transition.signing_public_key)),
            seed_shared_anew: before
                .is_some_and(|before| before.seed_shares_digest != transition.seed_shares_digest),
            changes,
        }
    };
    transitions.zip(before).enumerate().map(step).collect()
}

fn owner_changes(before: &Manifest, after: &Manifest) -> Vec<String> {
    let mut changes = Vec::new();
    let seedshare = |manifest: &Manifest| -> BTreeSet<OwnerKeyDigest> {
        let keys = manifest.seedshare_owners().iter();
        keys.map(|key| OwnerKeyDigest::of(key)).collect()
    };
    let workload = (before.workload_owners(), after.workload_owners());
    members(&mut changes, "workload owner", workload.0, workload.1);
    threshold(
        &mut changes,
        "workload owners that must approve an update",
        before.workload_owner_threshold(),
        after.workload_owner_threshold(),
    );
    let owners = (seedshare(before), seedshare(after));
    members(&mut changes, "seed share owner", &owners.0, &owners.1);
    threshold(
        &mut changes,
        "seed share owners that it takes to recover",
        before.seedshare_threshold(),
        after.seedshare_threshold(),
    );
    if !before.workload_owners().is_empty() && after.workload_owners().is_empty() {
        changes.push("nobody can update the deployment any more".into());
    }
    changes
}

fn members(
    changes: &mut Vec<String>,
    who: &str,
    before: &BTreeSet<OwnerKeyDigest>,
    after: &BTreeSet<OwnerKeyDigest>,
) {
    let added = after.difference(before);
    changes.extend(added.map(|digest| format!("{who} added: key with SHA-256 {digest}")));
    let removed = before.difference(after);
    changes.extend(removed.map(|digest| format!("{who} removed: key with SHA-256 {digest}")));
}

fn threshold(changes: &mut Vec<String>, what: &str, before: u32, after: u32) {
    if before != after {
        changes.push(format!("number of {what}: {before} before, {after} now"));
    }
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
