//! Messages of `proto/contrast/v1/peer.proto` to what replicas ask of each other, and back. Everything that arrives is hostile until it
//! is read here: lengths, counts and texts are bounded as the file says.

mod failure;
mod question;
mod raft;
mod reply;
mod secret;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use contrast_proto::peer as proto;
use openraft::vote::RaftLeaderId;

pub(crate) use failure::{failure, panicked, status, status_of_malformed};
pub(crate) use question::*;
pub(crate) use raft::*;
pub(crate) use reply::*;

use crate::{
    cluster::{ClusterId, EntryId, Leader, NodeVote},
    replica::message::Place,
    state::TransitionHash,
};

/// Largest snapshot chain, in bytes.
pub(crate) const CHAIN_BYTES_MAX: u64 = 1 << 30;
/// Largest chunk of a snapshot, in bytes.
pub(crate) const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Payloads of the entries in one message, in bytes; exceeded by a single larger entry only.
pub(crate) const APPEND_BYTES: usize = 8 << 20;
/// Largest private or public key, in bytes.
const KEY_BYTES_MAX: usize = 1 << 10;
/// Most mesh CA keys in one answer.
const KEYS_MAX: usize = 64;
/// Most members of a cluster that a message may name.
const MEMBERS_MAX: usize = 256;
/// Most sets of voters in a membership.
const CONFIGS_MAX: usize = 8;
/// Longest place, in bytes: a DNS name has at most 253.
const PLACE_BYTES_MAX: usize = 300;

/// A field of a message is not what `peer.proto` says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub(crate) struct Malformed {
    field: &'static str,
    expected: String,
    found: String,
}

impl Malformed {
    pub(crate) fn new(
        field: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            field,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

type Parsed<T> = Result<T, Malformed>;

fn present<T>(field: &'static str, value: Option<T>) -> Parsed<T> {
    value.ok_or_else(|| Malformed::new(field, "a value", "none"))
}

fn at_most(field: &'static str, found: usize, max: usize, unit: &str) -> Parsed<()> {
    match found <= max {
        true => Ok(()),
        false => Err(Malformed::new(
            field,
            format!("at most {max} {unit}"),
            format!("{found} {unit}"),
        )),
    }
}

fn hash(field: &'static str, bytes: &[u8]) -> Parsed<[u8; 32]> {
    bytes
        .try_into()
        .map_err(|_| Malformed::new(field, "32 bytes", format!("{} bytes", bytes.len())))
}

fn cluster(bytes: &[u8]) -> Parsed<ClusterId> {
    hash("cluster", bytes).map(ClusterId)
}

fn put_cluster(cluster: ClusterId) -> Bytes {
    Bytes::copy_from_slice(&cluster.0)
}

fn transition(field: &'static str, bytes: &[u8]) -> Parsed<TransitionHash> {
    hash(field, bytes).map(TransitionHash)
}

fn put_transition(transition: TransitionHash) -> Bytes {
    Bytes::copy_from_slice(&transition.0)
}

/// Places are dialled and printed, so that nothing but plain characters may be in one.
fn place(field: &'static str, text: &str) -> Parsed<Place> {
    at_most(field, text.len(), PLACE_BYTES_MAX, "bytes")?;
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Place::new(text)),
        false => Err(Malformed::new(
            field,
            "host:port in printable ASCII characters",
            format!("`{}`", text.escape_default()),
        )),
    }
}

/// Empty means none.
fn optional_place(field: &'static str, text: &str) -> Parsed<Option<Place>> {
    (!text.is_empty()).then(|| place(field, text)).transpose()
}

fn put_optional_place(place: Option<&Place>) -> String {
    place.map_or_else(String::new, Place::to_string)
}

fn entry_id(id: proto::EntryId) -> EntryId {
    EntryId::new(Leader::new(id.term, id.leader), id.index)
}

fn put_entry_id(id: &EntryId) -> proto::EntryId {
    proto::EntryId {
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        index: id.index,
    }
}

fn vote(vote: Option<proto::NodeVote>) -> Parsed<NodeVote> {
    let vote = present("vote", vote)?;
    Ok(NodeVote {
        leader_id: Leader::new(vote.term, vote.node),
        committed: vote.committed,
    })
}

fn put_vote(vote: &NodeVote) -> proto::NodeVote {
    proto::NodeVote {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    }
}
