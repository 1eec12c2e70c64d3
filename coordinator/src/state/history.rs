use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::Arc,
    thread,
};

use bytes::Bytes;
use contrast_attestation::PolicyHash;
use contrast_manifest::{Manifest, ManifestError, ManifestHash};
use contrast_pki::shares::{SeedSharesDocument, SharesError};

use super::{
    FoundVolumes, Records, Transition, TransitionFormatError, TransitionHash, Volumes,
    runs::{List, Map},
};

/// A transition and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Hash of the transition.
    pub hash: TransitionHash,
    /// The transition.
    pub transition: Transition,
}

impl From<Transition> for Link {
    fn from(transition: Transition) -> Self {
        Self {
            hash: transition.hash(),
            transition,
        }
    }
}

/// The history on disk cannot be used. Nothing was modified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// A record's content does not belong to its name.
    #[error("the history is corrupt: the {kind} stored as {name} has other content")]
    Corrupt {
        /// Kind of the record.
        kind: &'static str,
        /// The hash under which it is stored.
        name: String,
    },
    /// A record is missing.
    #[error("the history is corrupt: the {kind} {name} is missing")]
    Missing {
        /// Kind of the record.
        kind: &'static str,
        /// Its hash.
        name: String,
    },
    /// A transition's bytes are damaged.
    #[error("the history is corrupt: transition {name} cannot be read")]
    Format {
        /// Its hash.
        name: TransitionHash,
        /// Why.
        source: TransitionFormatError,
    },
    /// Transitions beside the chain that ends in the head.
    #[error("the history forks: transition {beside} does not lead to the head {head}")]
    Fork {
        /// The head.
        head: TransitionHash,
        /// One of the transitions beside the chain.
        beside: TransitionHash,
    },
    /// The latest manifest is not valid for this version.
    #[error("the latest manifest {name} of the history is refused by this version")]
    Manifest {
        /// Its hash.
        name: ManifestHash,
        /// Why.
        source: ManifestError,
    },
    /// The seed shares are damaged.
    #[error("the seed shares stored with the history cannot be read")]
    SeedShares(#[source] SharesError),
    /// The seed shares are others than the latest transition names.
    #[error(
        "the seed shares stored with the history are not those of its latest transition {head}; restore the Coordinator's \
         volume from a copy you trust"
    )]
    OtherSeedShares {
        /// The latest transition.
        head: TransitionHash,
    },
    /// The first transition carries another seed's signature.
    #[error(
        "the seed does not open this history; use the seed share and salt that came with its first manifest"
    )]
    WrongSeed,
    /// The first transition is right, a later one is not.
    #[error(
        "the history was forged: transition {name} is not signed with the key that signed the first; \
         restore the Coordinator's volume from a copy you trust"
    )]
    Forged {
        /// The first transition with a wrong signature.
        name: TransitionHash,
    },
    /// The caller has seen a transition that is not in the history.
    #[error(
        "the history on disk does not contain transition {known}, which you have seen before; its latest is {head}. \
         The host may have put back an old disk; restore the Coordinator's volume"
    )]
    RolledBack {
        /// What the caller has seen.
        known: TransitionHash,
        /// The latest transition on disk.
        head: TransitionHash,
    },
}

/// A thread costs as much as checking a fraction of a signature; fewer links than this are not worth the trouble.
const LINKS_WORTH_A_THREAD: usize = 32;

/// A chain of transitions with everything it names, and the generations of encrypted volumes; never empty. Clones are cheap and share what they have in common.
#[derive(Debug, Clone)]
pub struct History {
    earlier: List<Link>,
    head: Link,
    /// How many transitions come before each.
    positions: Map<TransitionHash, usize>,
    manifests: Map<ManifestHash, Bytes>,
    policies: Map<PolicyHash, Bytes>,
    /// The policies again, each with the position of a transition that came with it or after it, in the order of positions.
    arrivals: List<(usize, PolicyHash)>,
    seed_shares: Arc<SeedSharesDocument>,
    root_certificate: Bytes,
    volumes: Volumes,
}

impl History {
    /// A history of one transition. `root_certificate` is DER. Signatures are not checked: whoever reads it under the seed does that.
    pub fn found(
        first: Transition,
        manifest: &[u8],
        policies: BTreeMap<PolicyHash, Bytes>,
        seed_shares: SeedSharesDocument,
        root_certificate: &[u8],
    ) -> Self {
        let bytes = Bytes::copy_from_slice(manifest);
        let head = Link::from(first);
        Self {
            earlier: List::default(),
            positions: [(head.hash, 0)].into_iter().collect(),
            head,
            manifests: [(ManifestHash::of(manifest), bytes)].into_iter().collect(),
            arrivals: policies.keys().map(|name| (0, *name)).collect(),
            policies: policies.into_iter().collect(),
            seed_shares: Arc::new(seed_shares),
            root_certificate: Bytes::copy_from_slice(root_certificate),
            volumes: Volumes::default(),
        }
    }

    /// This history and one transition more.
    #[cfg(test)]
    pub(crate) fn extended(
        &self,
        next: Transition,
        manifest: &[u8],
        policies: &BTreeMap<PolicyHash, Bytes>,
    ) -> Self {
        let mut history = self.clone();
        history.extend(next, manifest, policies);
        history
    }

    /// Adds a transition, which must follow the head, and the manifest that it names. Neither is checked here.
    pub fn extend(
        &mut self,
        next: Transition,
        manifest: &[u8],
        policies: &BTreeMap<PolicyHash, Bytes>,
    ) {
        let position = self.generation();
        let before = std::mem::replace(&mut self.head, next.into());
        self.earlier.push(before);
        self.positions.insert_with(self.head.hash, || position);
        self.manifests.insert_with(ManifestHash::of(manifest), || {
            Bytes::copy_from_slice(manifest)
        });
        for (name, document) in policies {
            if self.policies.insert_with(*name, || document.clone()) {
                self.arrivals.push((position, *name));
            }
        }
    }

    /// Replaces what was written with the first transition: the seed was shared anew, or a recovery found it damaged.
    pub(crate) fn replace_founding(
        &mut self,
        seed_shares: SeedSharesDocument,
        root_certificate: Bytes,
    ) {
        self.seed_shares = Arc::new(seed_shares);
        self.root_certificate = root_certificate;
    }

    /// Checks the records of a store and puts them in order. Signatures are not checked: that takes the seed.
    ///
    /// # Errors
    /// When a record is missing, damaged or superfluous, or this version refuses the latest manifest.
    pub(crate) fn read(records: Records) -> Result<Self, HistoryError> {
        let history = Self::read_links(records)?;
        history.latest_manifest()?;
        Ok(history)
    }

    /// The manifest of the latest transition.
    ///
    /// # Errors
    /// When this version refuses it, or one of its policies is missing.
    pub(crate) fn latest_manifest(&self) -> Result<Manifest, HistoryError> {
        let name = self.head.transition.manifest_hash;
        let manifest = Manifest::parse(&self.latest_manifest_bytes())
            .map_err(|source| HistoryError::Manifest { name, source })?;
        if let Some(name) = manifest
            .policies()
            .keys()
            .find(|hash| !self.policies.contains(hash))
        {
            return Err(HistoryError::Missing {
                kind: "policy",
                name: name.to_string(),
            });
        }
        Ok(manifest)
    }

    /// Whether `latest`, the manifest of the latest transition, denies certificates to a key to which the one before did not. Where nobody
    /// can tell, it does.
    pub(crate) fn denies_more_than_before(&self, latest: &Manifest) -> bool {
        let denied = latest.denied_certificate_keys();
        let before = self.links().rev().nth(1);
        let Some(before) = before.filter(|_| !denied.is_empty()) else {
            return false;
        };
        let before = self.manifest(before.transition.manifest_hash);
        let before = before.and_then(|bytes| Manifest::parse(bytes).ok());
        before.is_none_or(|before| !denied.is_subset(before.denied_certificate_keys()))
    }

    /// Exact bytes of the latest transition's manifest.
    pub(crate) fn latest_manifest_bytes(&self) -> Bytes {
        let latest = self.manifests.get(&self.head.transition.manifest_hash);
        latest.cloned().unwrap_or_default()
    }

    /// As [`History::read`], but whether this version accepts the latest manifest is not looked at.
    pub(crate) fn read_links(records: Records) -> Result<Self, HistoryError> {
        let Records {
            head,
            transitions,
            manifests,
            policies,
            seed_shares,
            root_certificate,
            volumes,
        } = records;
        let mut chain = read_chain(&transitions, head)?;
        for (name, bytes) in &manifests {
            if ManifestHash::of(bytes) != *name {
                return Err(HistoryError::Corrupt {
                    kind: "manifest",
                    name: name.to_string(),
                });
            }
        }
        for (name, document) in &policies {
            if super::update::policy_hash(document) != *name {
                return Err(HistoryError::Corrupt {
                    kind: "policy",
                    name: name.to_string(),
                });
            }
        }
        for link in &chain {
            let name = link.transition.manifest_hash;
            if !manifests.contains_key(&name) {
                return Err(HistoryError::Missing {
                    kind: "manifest",
                    name: name.to_string(),
                });
            }
        }
        let missing = || HistoryError::Missing {
            kind: "transition",
            name: head.to_string(),
        };
        let head = chain.pop().ok_or_else(missing)?;
        let seed_shares =
            SeedSharesDocument::from_json(&seed_shares).map_err(HistoryError::SeedShares)?;
        let digest = seed_shares.digest().map_err(HistoryError::SeedShares)?;
        if digest != head.transition.seed_shares {
            return Err(HistoryError::OtherSeedShares { head: head.hash });
        }
        let last = chain.len();
        let names = chain.iter().chain([&head]).map(|link| link.hash);
        Ok(Self {
            positions: names.enumerate().map(|(at, name)| (name, at)).collect(),
            earlier: chain.into_iter().collect(),
            head,
            manifests: manifests.into_iter().collect(),
            // Records do not say which transition a policy came with; none came after the last.
            arrivals: policies.keys().map(|name| (last, *name)).collect(),
            policies: policies.into_iter().collect(),
            seed_shares: Arc::new(seed_shares),
            root_certificate,
            volumes: match volumes {
                FoundVolumes::Open(volumes) => volumes,
                // Whoever has the seed opens them: see `Sealed::open_volumes`.
                FoundVolumes::Sealed(_) => Volumes::default(),
            },
        })
    }

    /// Checks every signature under the transition key `spki` (SubjectPublicKeyInfo DER), those of a long history on all
    /// processors.
    ///
    /// Hashes alone do not do: the head's signature covers all transitions before it, but not their signatures, and whoever
    /// gets the history from here checks each of them.
    pub(crate) fn verify(&self, spki: &[u8]) -> Result<(), HistoryError> {
        let links: Vec<&Link> = self.links().collect();
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let share = links.len().div_ceil(processors).max(LINKS_WORTH_A_THREAD);
        let first_wrong = |links: &[&Link]| {
            let is_wrong = |link: &&&Link| link.transition.verify(spki).is_err();
            links.iter().find(is_wrong).map(|link| link.hash)
        };
        let mut shares = links.chunks(share);
        let own = shares.next().unwrap_or_default();
        let wrong = thread::scope(|scope| {
            let begun: Vec<_> = shares
                .map(|links| {
                    let thread = thread::Builder::new().name("verify-history".to_owned());
                    let thread = thread.spawn_scoped(scope, move || first_wrong(links));
                    (links, thread.ok())
                })
                .collect();
            begun
                .into_iter()
                .fold(first_wrong(own), |wrong, (links, thread)| {
                    let found = thread.and_then(|thread| thread.join().ok());
                    // Work that no thread finished is not done.
                    let found = found.unwrap_or_else(|| first_wrong(links));
                    wrong.or(found)
                })
        });
        match wrong {
            None => Ok(()),
            Some(name) if self.position(name) == Some(0) => Err(HistoryError::WrongSeed),
            Some(name) => Err(HistoryError::Forged { name }),
        }
    }

    /// Refuses a history that lacks a transition which the caller has seen before.
    pub(crate) fn check_contains(&self, known: TransitionHash) -> Result<(), HistoryError> {
        match self.positions.contains(&known) {
            true => Ok(()),
            false => Err(HistoryError::RolledBack {
                known,
                head: self.head.hash,
            }),
        }
    }

    /// How many transitions come before the one of that name; `None` when it is not in the history.
    pub(crate) fn position(&self, name: TransitionHash) -> Option<usize> {
        self.positions.get(&name).copied()
    }

    /// The transitions that follow the first `count`, oldest first.
    pub(crate) fn links_from(&self, count: usize) -> Vec<&Link> {
        let wanted = self.generation().saturating_sub(count);
        let mut links: Vec<&Link> = self.links().rev().take(wanted).collect();
        links.reverse();
        links
    }

    /// The bytes of a manifest that a transition of this history names.
    pub(crate) fn manifest(&self, name: ManifestHash) -> Option<&Bytes> {
        self.manifests.get(&name)
    }

    /// At least the policies that the first `count` transitions do not have, in no particular order.
    pub(crate) fn policies_from(&self, count: usize) -> impl Iterator<Item = (PolicyHash, &Bytes)> {
        let late = self.arrivals.iter().rev();
        let late = late.take_while(move |(position, _)| *position >= count);
        late.filter_map(|(_, name)| self.policies.get(name).map(|document| (*name, document)))
    }

    /// All transitions, oldest first.
    pub fn links(&self) -> impl DoubleEndedIterator<Item = &Link> {
        self.earlier.iter().chain([&self.head])
    }

    /// The latest transition.
    pub fn head(&self) -> &Link {
        &self.head
    }

    /// How many transitions there are, at least 1.
    pub fn generation(&self) -> usize {
        self.earlier.len().saturating_add(1)
    }

    /// Every distinct manifest, in order of first use.
    pub fn manifests(&self) -> Vec<Bytes> {
        let mut seen = BTreeSet::new();
        self.links()
            .map(|link| link.transition.manifest_hash)
            .filter(|hash| seen.insert(*hash))
            .filter_map(|hash| self.manifests.get(&hash).cloned())
            .collect()
    }

    /// Every distinct policy document, in the order of hashes.
    pub fn policies(&self) -> Vec<Bytes> {
        let sorted = self.policies.sorted().into_iter();
        sorted.map(|(_, document)| document.clone()).collect()
    }

    /// The encrypted seed shares.
    pub fn seed_shares(&self) -> &SeedSharesDocument {
        &self.seed_shares
    }

    /// The generations of encrypted volumes.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Replaces the generations of encrypted volumes.
    pub(crate) fn set_volumes(&mut self, volumes: Volumes) {
        self.volumes = volumes;
    }

    /// This history with other generations of encrypted volumes.
    pub(crate) fn with_volumes(mut self, volumes: Volumes) -> Self {
        self.volumes = volumes;
        self
    }

    /// The root CA's certificate, DER.
    pub fn root_certificate(&self) -> &[u8] {
        &self.root_certificate
    }
}

/// Follows the chain from its head to its start; returns it oldest first.
fn read_chain(
    transitions: &BTreeMap<TransitionHash, Vec<u8>>,
    head: TransitionHash,
) -> Result<Vec<Link>, HistoryError> {
    let mut chain: Vec<Link> = Vec::new();
    let mut name = head;
    // A cycle would need a SHA-256 collision; each step checks that content and name agree.
    while name != TransitionHash::NONE {
        let bytes = transitions
            .get(&name)
            .ok_or_else(|| HistoryError::Missing {
                kind: "transition",
                name: name.to_string(),
            })?;
        let transition =
            Transition::decode(bytes).map_err(|source| HistoryError::Format { name, source })?;
        let link = Link::from(transition);
        if link.hash != name {
            return Err(HistoryError::Corrupt {
                kind: "transition",
                name: name.to_string(),
            });
        }
        name = link.transition.previous;
        chain.push(link);
    }
    if chain.len() != transitions.len() {
        let on_chain: BTreeSet<TransitionHash> = chain.iter().map(|link| link.hash).collect();
        if let Some(beside) = transitions.keys().find(|name| !on_chain.contains(*name)) {
            return Err(HistoryError::Fork {
                head,
                beside: *beside,
            });
        }
    }
    chain.reverse();
    Ok(chain)
}
