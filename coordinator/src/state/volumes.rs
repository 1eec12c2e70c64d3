//! The highest generation that was ever reported of each encrypted volume.
//!
//! A volume's header, which is on a disk of the host, counts how often the volume was opened and closed. Whoever opens it compares
//! that generation with the one here, and so notices that the host put back an older disk.

use std::{collections::BTreeMap, fmt, sync::Arc};

use aws_lc_rs::hmac;
use contrast_pki::VolumeRecordKey;

use super::TransitionHash;
use crate::cluster::codec;

/// Volumes of one workload secret id, and of a deployment. Every replica has to come to the same result, whatever its version: these
/// numbers never change.
pub const VOLUMES_PER_SECRET_ID_MAX: usize = 4096;
/// As above.
pub const VOLUMES_MAX: usize = 32_768;

/// Longest workload secret id, in bytes: manifests have no longer ones.
pub const VOLUME_SECRET_ID_BYTES_MAX: usize = 1024;

/// Begins what the MAC covers: separates it from other uses and from later formats.
const LABEL: &[u8] = b"contrast volume generations v1";
/// Bytes of a MAC.
const MAC_BYTES: usize = 32;

/// UUID of a volume, as its header has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub [u8; 16]);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeId({self})")
    }
}

/// A generation, and who reported it: the digest of the key that the pod attested. A pod that lost the answer to its report may
/// repeat it; nobody else may report the same generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// The number, at least 1.
    pub number: u64,
    /// SHA-256 of the pod's key.
    pub reporter: [u8; 32],
}

/// What a pod reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// Workload secret id of the pod's policy entry. Not empty.
    pub secret_id: Arc<str>,
    /// The volume.
    pub volume: VolumeId,
    /// The generation that its header has now.
    pub generation: Generation,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advanced {
    /// It is recorded.
    Accepted,
    /// Nothing changed: as high a generation was reported before.
    Behind {
        /// The generation that is recorded.
        recorded: u64,
    },
    /// Nothing changed: there are too many volumes.
    Full,
}

type OfOneId = BTreeMap<VolumeId, Generation>;

/// Generations by workload secret id and volume. Clones share what they have in common.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Volumes(Arc<BTreeMap<Arc<str>, Arc<OfOneId>>>);

/// What a store says about generations cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VolumesError {
    /// There is no record.
    #[error("there is no record of the generations of encrypted volumes")]
    Missing,
    /// It is of another seed or another transition, or was changed.
    #[error(
        "the record of the generations of encrypted volumes was not written with this history by a Coordinator of this deployment"
    )]
    Forged,
    /// Authentic, and unreadable.
    #[error(
        "the record of the generations of encrypted volumes is of another version: {0}; use the version that wrote it"
    )]
    Malformed(&'static str),
}

impl Volumes {
    /// The generation of a volume.
    pub fn get(&self, secret_id: &str, volume: VolumeId) -> Option<Generation> {
        self.0.get(secret_id)?.get(&volume).copied()
    }

    /// How many volumes there are.
    pub fn len(&self) -> usize {
        self.0.values().map(|volumes| volumes.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of secret ids and volumes.
    pub(crate) fn iter(
        &self,
    ) -> impl ExactSizeIterator<Item = (&str, impl ExactSizeIterator<Item = (VolumeId, Generation)>)>
    {
        let ids = self.0.iter();
        ids.map(|(id, volumes)| (&**id, volumes.iter().map(|(volume, at)| (*volume, *at))))
    }

    /// Records what was reported, if it is more than what is known. Depends on nothing else, so that every replica decides alike.
    pub fn advance(&mut self, advance: &Advance) -> Advanced {
        let Advance {
            secret_id,
            volume,
            generation,
        } = advance;
        match self.get(secret_id, *volume) {
            Some(known) if known == *generation => return Advanced::Accepted,
            Some(known) if known.number >= generation.number => {
                let recorded = known.number;
                return Advanced::Behind { recorded };
            }
            Some(_) => {}
            None => {
                let of_id = self.0.get(secret_id).map_or(0, |volumes| volumes.len());
                if of_id >= VOLUMES_PER_SECRET_ID_MAX || self.len() >= VOLUMES_MAX {
                    return Advanced::Full;
                }
            }
        }
        self.put(secret_id, *volume, *generation);
        Advanced::Accepted
    }

    /// The higher generation of each volume. Whatever was reported once counts, also what no quorum had: no header that is older
    /// than a report is the latest.
    pub(crate) fn merged(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        for (id, volumes) in &*other.0 {
            for (volume, generation) in &**volumes {
                let known = merged.get(id, *volume);
                if known.is_none_or(|known| known.number < generation.number) {
                    merged.put(id, *volume, *generation);
                }
            }
        }
        merged
    }

    pub(crate) fn put(&mut self, secret_id: &Arc<str>, volume: VolumeId, generation: Generation) {
        let ids = Arc::make_mut(&mut self.0);
        let volumes = ids.entry(Arc::clone(secret_id)).or_default();
        Arc::make_mut(volumes).insert(volume, generation);
    }

    /// As the history file has them: a MAC, then the list. The MAC covers the latest transition, so that the generations of an
    /// earlier time do not go with a later history.
    pub(crate) fn seal(&self, key: &VolumeRecordKey, head: TransitionHash) -> Vec<u8> {
        let list = codec::encode_volumes(self);
        let mac = hmac::sign(&mac_key(key), &covered(head, &list));
        [mac.as_ref(), &list].concat()
    }

    /// Reads what [`seal`](Self::seal) wrote for the same transition.
    pub(crate) fn open(
        sealed: &[u8],
        key: &VolumeRecordKey,
        head: TransitionHash,
    ) -> Result<Self, VolumesError> {
        let (mac, list) = sealed
            .split_at_checked(MAC_BYTES)
            .ok_or(VolumesError::Forged)?;
        hmac::verify(&mac_key(key), &covered(head, list), mac).map_err(|_| VolumesError::Forged)?;
        codec::decode_volumes(list).map_err(|error| VolumesError::Malformed(error.0))
    }
}

fn mac_key(key: &VolumeRecordKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.expose())
}

fn covered(head: TransitionHash, list: &[u8]) -> Vec<u8> {
    [LABEL, &head.0, list].concat()
}

impl fmt::Debug for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Volumes({})", self.len())
    }
}

/// Generations as they come with the records of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundVolumes {
    /// From another replica or a log whose records are authenticated.
    Open(Volumes),
    /// From a history file: it takes the seed to believe them.
    Sealed(Option<bytes::Bytes>),
}

#[cfg(test)]
mod tests {
    use contrast_pki::{Derivation, Salt, Seed};

    use super::*;

    fn key(seed: u8) -> VolumeRecordKey {
        let seed = Seed::from_slice(&[seed; 64]).expect("seed");
        let salt = Salt::from_slice(&[1; 32]).expect("salt");
        let key = Derivation::new(&seed, &salt).volume_record_key();
        key.expect("derives")
    }

    fn report(id: &str, volume: u8, number: u64, reporter: u8) -> Advance {
        Advance {
            secret_id: id.into(),
            volume: VolumeId([volume; 16]),
            generation: Generation {
                number,
                reporter: [reporter; 32],
            },
        }
    }

    #[test]
    fn only_a_higher_generation_or_the_same_report_again_is_accepted() {
        let mut volumes = Volumes::default();
        assert_eq!(volumes.advance(&report("a", 1, 5, 1)), Advanced::Accepted);
        assert_eq!(volumes.advance(&report("a", 1, 5, 1)), Advanced::Accepted);
        let behind = Advanced::Behind { recorded: 5 };
        assert_eq!(volumes.advance(&report("a", 1, 5, 2)), behind);
        assert_eq!(volumes.advance(&report("a", 1, 4, 1)), behind);
        assert_eq!(volumes.advance(&report("a", 1, 6, 2)), Advanced::Accepted);
        assert_eq!(
            volumes.advance(&report("a", 1, 5, 1)),
            Advanced::Behind { recorded: 6 }
        );
        assert_eq!(volumes.len(), 1);
    }

    #[test]
    fn ids_and_volumes_are_apart() {
        let mut volumes = Volumes::default();
        assert_eq!(volumes.advance(&report("a", 1, 5, 1)), Advanced::Accepted);
        assert_eq!(volumes.get("b", VolumeId([1; 16])), None);
        assert_eq!(volumes.get("a", VolumeId([2; 16])), None);
        assert_eq!(volumes.advance(&report("b", 1, 1, 1)), Advanced::Accepted);
        assert_eq!(volumes.advance(&report("a", 2, 1, 1)), Advanced::Accepted);
        let number = |id, volume| volumes.get(id, VolumeId([volume; 16])).map(|at| at.number);
        assert_eq!(
            (number("a", 1), number("b", 1), number("a", 2)),
            (Some(5), Some(1), Some(1))
        );
    }

    #[test]
    fn number_of_volumes_is_bounded_and_known_ones_go_on() {
        let mut volumes = Volumes::default();
        let numbered = |id: &str, number: usize| {
            let mut report = report(id, 0, 1, 1);
            report.volume.0[..8].copy_from_slice(&number.to_be_bytes());
            report
        };
        for number in 0..VOLUMES_PER_SECRET_ID_MAX {
            assert_eq!(volumes.advance(&numbered("a", number)), Advanced::Accepted);
        }
        let one_more = numbered("a", VOLUMES_PER_SECRET_ID_MAX);
        assert_eq!(volumes.advance(&one_more), Advanced::Full);
        let mut known = numbered("a", 7);
        known.generation.number = 2;
        assert_eq!(volumes.advance(&known), Advanced::Accepted);
        for id in 0..VOLUMES_MAX / VOLUMES_PER_SECRET_ID_MAX - 1 {
            for number in 0..VOLUMES_PER_SECRET_ID_MAX {
                let report = numbered(&format!("other {id}"), number);
                assert_eq!(volumes.advance(&report), Advanced::Accepted);
            }
        }
        assert_eq!(volumes.len(), VOLUMES_MAX);
        assert_eq!(volumes.advance(&numbered("last", 0)), Advanced::Full);
    }

    #[test]
    fn merging_takes_the_higher_generation_of_each() {
        let (mut a, mut b) = (Volumes::default(), Volumes::default());
        for (volumes, reports) in [
            (&mut a, [report("x", 1, 5, 1), report("x", 2, 1, 1)]),
            (&mut b, [report("x", 1, 4, 2), report("y", 1, 9, 2)]),
        ] {
            for report in reports {
                volumes.advance(&report);
            }
        }
        let merged = a.merged(&b);
        assert_eq!(merged, b.merged(&a));
        let number = |id, volume| merged.get(id, VolumeId([volume; 16])).map(|at| at.number);
        assert_eq!(
            (number("x", 1), number("x", 2), number("y", 1)),
            (Some(5), Some(1), Some(9))
        );
    }

    #[test]
    fn every_bit_the_seed_and_the_transition_count() {
        let mut volumes = Volumes::default();
        volumes.advance(&report("a", 1, 5, 1));
        volumes.advance(&report("b", 1, 7, 1));
        let head = TransitionHash([3; 32]);
        let sealed = volumes.seal(&key(1), head);
        assert_eq!(Volumes::open(&sealed, &key(1), head), Ok(volumes));
        let forged = Err(VolumesError::Forged);
        assert_eq!(Volumes::open(&sealed, &key(2), head), forged);
        let other = TransitionHash([4; 32]);
        assert_eq!(Volumes::open(&sealed, &key(1), other), forged);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(Volumes::open(&changed, &key(1), head), forged, "byte {at}");
            assert_eq!(Volumes::open(&sealed[..at], &key(1), head), forged);
        }
    }
}
