//! The format of a record of the Raft store.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | kind, see [`Kind`] |
//! | 2 | 8 | position, big-endian: the log index of an entry, 0 for every other kind |
//! | 10 | 4 | length `n` of the payload in bytes, big-endian |
//! | 14 | `n` | payload |
//! | 14 + `n` | 32 | MAC |
//!
//! The MAC is HMAC-SHA256 (RFC 2104, FIPS 198-1) under [`contrast_pki::StoreRecordKey`] over
//!
//! | bytes | field |
//! | --- | --- |
//! | 23 | `contrast raft record v1` |
//! | 32 | cluster id |
//! | 8 | node id, big-endian |
//! | 14 + `n` | the record up to its MAC |
//!
//! Every field has a fixed length or is preceded by its length, so two different records never have the same input.
//! Cluster and node are not in the record: whoever reads it says whose it has to be. The store names both beside its records, for
//! a reader who looks for what an earlier life left behind.
//!
//! # What a MAC does not show
//!
//! That a record is *old*. An authentic record of yesterday is authentic today. Within one store that is covered elsewhere:
//! the [`Kind::Root`] record names the MAC of every other record, so an old record beside newer ones is noticed. What
//! remains is an old copy of the *whole* store. Nothing on the same disk can show that; only somebody who remembers can,
//! that is, another replica (rejoin), or an owner who knows the latest transition (recovery).

use std::fmt;

use aws_lc_rs::hmac;
use contrast_pki::StoreRecordKey;

use super::{ClusterId, NodeId, codec::Malformed};

/// First field of the MAC's input: separates these MACs from any other use of the key.
const LABEL: &[u8; 23] = b"contrast raft record v1";
/// First byte of a record.
const VERSION: u8 = 1;
/// Bytes before the payload.
const HEADER_BYTES: usize = 14;
/// Bytes after the payload.
pub(crate) const MAC_BYTES: usize = 32;

/// The MAC at the end of a record. It names the record: no other one has it.
pub(crate) type Mac = [u8; MAC_BYTES];

/// What a record is about; the second byte of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// 1: names all other records.
    Root = 1,
    /// 2: the vote.
    Vote = 2,
    /// 3: an entry of the log.
    Entry = 3,
    /// 4: up to where the log is known to be committed.
    Committed = 4,
    /// 5: up to where the log was purged.
    Purged = 5,
    /// 6: what the stored snapshot contains, and its digest.
    Snapshot = 6,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Root,
        Self::Vote,
        Self::Entry,
        Self::Committed,
        Self::Purged,
        Self::Snapshot,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Kind and position of a record; shown as `log entry 7` or `vote`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordName {
    /// Kind.
    pub kind: Kind,
    /// Log index of an entry, else 0.
    pub position: u64,
}

impl RecordName {
    /// The only record of its kind.
    pub(crate) fn single(kind: Kind) -> Self {
        Self { kind, position: 0 }
    }

    /// The log entry with the given index.
    pub(crate) fn entry(index: u64) -> Self {
        Self {
            kind: Kind::Entry,
            position: index,
        }
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Root => f.write_str("root"),
            Kind::Vote => f.write_str("vote"),
            Kind::Entry => write!(f, "log entry {}", self.position),
            Kind::Committed => f.write_str("committed marker"),
            Kind::Purged => f.write_str("purged marker"),
            Kind::Snapshot => f.write_str("snapshot description"),
        }
    }
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// There is none.
    #[error("expected it, found nothing")]
    Missing,
    /// There should be none.
    #[error("expected none, found one")]
    Superfluous,
    /// Shorter than any record.
    #[error("expected at least {expected} bytes, found {found}", expected = HEADER_BYTES + MAC_BYTES)]
    Short {
        /// Bytes found.
        found: usize,
    },
    /// Another version of the format.
    #[error("expected version {VERSION}, found {found}")]
    Version {
        /// Version found.
        found: u8,
    },
    /// Cut off, or something was appended.
    #[error("expected {expected} bytes as its header says, found {found}")]
    Length {
        /// What follows from the header.
        expected: u64,
        /// Bytes found.
        found: usize,
    },
    /// Not written by this node of this cluster under this seed, or changed since.
    #[error("its MAC is wrong: it was changed, or another node, cluster or seed wrote it")]
    Mac,
    /// Authentic, but another record.
    #[error("expected it there, found the authentic {found}")]
    Misplaced {
        /// What the record is.
        found: RecordName,
    },
    /// Authentic, but not the latest one.
    #[error(
        "it is authentic, but not the one that the store wrote last at that place: it was put back"
    )]
    Stale,
    /// Authentic, and this version cannot read it.
    #[error(
        "it is authentic, and this version does not understand it ({0}): a later version wrote it"
    )]
    Later(&'static str),
    /// Authentic, and it contradicts what is beside it, or cannot be written.
    #[error("its payload is of no use: {0}")]
    Payload(&'static str),
}

impl RecordFault {
    /// Of an authentic record whose payload was not understood. Who has the key writes nothing malformed.
    pub(crate) fn of_payload(malformed: Malformed) -> Self {
        Self::Later(malformed.0)
    }

    fn what_to_do(&self) -> &'static str {
        match self {
            Self::Later(_) => {
                "It was not modified. Start that version again; or, if other replicas serve, move the files `raft.redb` and `raft.earlier.redb` away, and \
                 this replica joins them as a new one"
            }
            _ => {
                "The disk was damaged or tampered with: do not resume from it, let this replica rejoin under a fresh identity with a new \
                 store"
            }
        }
    }
}

/// A record of the Raft store cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {record} of the Raft store is not usable: {fault}. {}", fault.what_to_do())]
pub struct RecordError {
    /// Which record.
    pub record: RecordName,
    /// What is wrong with it.
    pub fault: RecordFault,
}

impl RecordError {
    pub(crate) fn new(record: RecordName, fault: RecordFault) -> Self {
        Self { record, fault }
    }
}

/// Writes and reads the records of one node of one cluster. The key is wiped by the cryptographic library when this is dropped.
#[derive(Clone)]
pub struct RecordKey {
    key: hmac::Key,
    cluster: ClusterId,
    node: NodeId,
}

impl RecordKey {
    /// Records of `node` in `cluster`. The key follows from the deployment's seed.
    pub fn new(key: &StoreRecordKey, cluster: ClusterId, node: NodeId) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose());
        Self::with_mac_key(key, cluster, node)
    }

    pub(crate) fn with_mac_key(key: hmac::Key, cluster: ClusterId, node: NodeId) -> Self {
        Self { key, cluster, node }
    }

    /// The cluster whose records these are.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The node whose records these are.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The record with the given payload, and its MAC.
    pub(crate) fn seal(
        &self,
        name: RecordName,
        payload: &[u8],
    ) -> Result<(Vec<u8>, Mac), RecordError> {
        let too_long = |_| RecordError::new(name, RecordFault::Payload("longer than 4 GiB"));
        let length = u32::try_from(payload.len()).map_err(too_long)?;
        let mut record = Vec::with_capacity(HEADER_BYTES + payload.len() + MAC_BYTES);
        record.push(VERSION);
        record.push(name.kind as u8);
        record.extend(name.position.to_be_bytes());
        record.extend(length.to_be_bytes());
        record.extend(payload);
        let mut context = self.context();
        context.update(&record);
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(context.sign().as_ref());
        record.extend(mac);
        Ok((record, mac))
    }

    /// Payload and MAC of the record that was found where `name` belongs.
    pub(crate) fn open<'a>(
        &self,
        name: RecordName,
        record: &'a [u8],
    ) -> Result<(&'a [u8], Mac), RecordError> {
        self.read(name, record)
            .map_err(|fault| RecordError::new(name, fault))
    }

    fn read<'a>(&self, name: RecordName, record: &'a [u8]) -> Result<(&'a [u8], Mac), RecordFault> {
        let short = RecordFault::Short {
            found: record.len(),
        };
        let Some((covered, mac)) = record.split_last_chunk::<MAC_BYTES>() else {
            return Err(short);
        };
        let Some(([version, kind, position_length @ ..], payload)) =
            covered.split_first_chunk::<HEADER_BYTES>()
        else {
            return Err(short);
        };
        if *version != VERSION {
            return Err(RecordFault::Version { found: *version });
        }
        let (position, length) = split_numbers(*position_length);
        if usize::try_from(length) != Ok(payload.len()) {
            return Err(RecordFault::Length {
                expected: u64::from(length) + (HEADER_BYTES + MAC_BYTES) as u64,
                found: record.len(),
            });
        }
        let mut context = self.context();
        context.update(covered);
        // In constant time, so that nobody can find a MAC byte by byte.
        aws_lc_rs::constant_time::verify_slices_are_equal(context.sign().as_ref(), mac)
            .map_err(|_| RecordFault::Mac)?;
        let kind = Kind::from_byte(*kind).ok_or(RecordFault::Later("an unknown kind of record"))?;
        let found = RecordName { kind, position };
        match found == name {
            true => Ok((payload, *mac)),
            false => Err(RecordFault::Misplaced { found }),
        }
    }

    fn context(&self) -> hmac::Context {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(LABEL);
        context.update(&self.cluster.0);
        context.update(&self.node.to_be_bytes());
        context
    }
}

fn split_numbers(bytes: [u8; HEADER_BYTES - 2]) -> (u64, u32) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    (
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u32::from_be_bytes(rest),
    )
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordKey")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}
