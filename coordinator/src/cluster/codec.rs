//! Payloads of records and of snapshots as bytes.
//!
//! Numbers are big-endian. `bytes` is a length (4) and as many bytes. `list` is a count (4) and as many elements. `option` is
//! 0, or 1 and the value. A payload ends where its last field ends: anything after that is an error.
//!
//! | what | fields |
//! | --- | --- |
//! | leader | term (8), node id (8) |
//! | entry id | leader (16), index (8) |
//! | vote | leader (16), committed: 0 or 1 (1) |
//! | members | list of (list of voter ids (8)), list of (node id (8), bytes: address in UTF-8) |
//! | log entry | MAC of the entry before or zeros (32), leader (16), tag (1), then by tag: 0 nothing, 1 change, 2 members, 3 advance |
//! | change | bytes: transition, bytes: manifest, list of (bytes: policy), option of founding documents |
//! | advance | bytes: workload secret id in UTF-8, volume id (16), generation |
//! | generation | number (8), SHA-256 of the reporter's key (32) |
//! | volumes | list of (bytes: workload secret id in UTF-8, list of (volume id (16), generation)) |
//! | founding documents | bytes: seed shares JSON, bytes: root certificate DER |
//! | snapshot description | option of entry id, option of entry id (of the members), members, length of the chain (8), its SHA-256 (32) |
//! | chain | version 1 or 2 (1), list of (bytes: transition, oldest first), then, unless that list is empty, list of (bytes: manifest), list of (bytes: policy), founding documents, in version 2 volumes |
//!
//! A transition is encoded as in the history's store. A chain without volumes is written in version 1, which earlier programs read. A new
//! tag or version is read by one release before another one writes it (`docs/decisions/0029-version-skew.md`); tags 0 to 3 and versions 1
//! and 2 are read since 0.1.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use contrast_manifest::ManifestHash;
use openraft::{EntryPayload, Vote, vote::RaftLeaderId};

use super::{
    Change, Command, EntryId, FoundingDocuments, Leader, LogEntry, LoggedMembers, Members, Node,
    NodeVote, Payload, SnapshotInfo,
    record::{MAC_BYTES, Mac},
};
use crate::state::{
    Advance, FoundVolumes, Generation, History, Records, Transition, VolumeId, Volumes, named,
};

/// First byte of a chain without volumes.
const CHAIN_VERSION: u8 = 1;
/// First byte of one with volumes.
const CHAIN_VERSION_VOLUMES: u8 = 2;

/// Bytes are not what they should be; says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

type Parsed<T> = Result<T, Malformed>;

/// Bytes that are being read from the front.
struct Input(Bytes);

impl Input {
    fn take(&mut self, length: usize) -> Parsed<Bytes> {
        match length <= self.0.len() {
            true => Ok(self.0.split_to(length)),
            false => Err(Malformed("it ends within a field")),
        }
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let bytes = self.take(N)?;
        bytes
            .as_ref()
            .try_into()
            .map_err(|_| Malformed("it ends within a field"))
    }

    fn u8(&mut self) -> Parsed<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Parsed<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn bytes(&mut self) -> Parsed<Bytes> {
        let length = self.u32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn flag(&mut self) -> Parsed<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is neither 0 nor 1")),
        }
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<Option<T>> {
        self.flag()?.then(|| read(self)).transpose()
    }

    /// Reserves nothing: a count that lies must not cost memory.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let count = self.u32()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    fn end(self) -> Parsed<()> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Malformed("something follows its last field")),
        }
    }
}

/// Reads all of `bytes`.
fn whole<T>(bytes: &[u8], read: impl FnOnce(&mut Input) -> Parsed<T>) -> Parsed<T> {
    let mut input = Input(Bytes::copy_from_slice(bytes));
    let value = read(&mut input)?;
    input.end()?;
    Ok(value)
}

/// A count or length. Nothing that long fits into a record, whose length is limited to the same number and checked.
fn length(out: &mut Vec<u8>, length: usize) {
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    length(out, bytes.len());
    out.extend(bytes);
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_leader(out: &mut Vec<u8>, leader: &Leader) {
    out.extend(leader.term.to_be_bytes());
    out.extend(leader.node_id.to_be_bytes());
}

fn leader(input: &mut Input) -> Parsed<Leader> {
    Ok(Leader::new(input.u64()?, input.u64()?))
}

fn put_entry_id(out: &mut Vec<u8>, id: &EntryId) {
    put_leader(out, &id.leader_id);
    out.extend(id.index.to_be_bytes());
}

fn entry_id(input: &mut Input) -> Parsed<EntryId> {
    Ok(EntryId::new(leader(input)?, input.u64()?))
}

pub(crate) fn encode_entry_id(id: &EntryId) -> Vec<u8> {
    let mut out = Vec::new();
    put_entry_id(&mut out, id);
    out
}

pub(crate) fn decode_entry_id(bytes: &[u8]) -> Parsed<EntryId> {
    whole(bytes, entry_id)
}

pub(crate) fn encode_vote(vote: &NodeVote) -> Vec<u8> {
    let mut out = Vec::new();
    put_leader(&mut out, &vote.leader_id);
    out.push(u8::from(vote.committed));
    out
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Parsed<NodeVote> {
    whole(bytes, |input| {
        Ok(Vote {
            leader_id: leader(input)?,
            committed: input.flag()?,
        })
    })
}

fn put_members(out: &mut Vec<u8>, members: &Members) {
    length(out, members.get_joint_config().len());
    for voters in members.get_joint_config() {
        length(out, voters.len());
        voters.iter().for_each(|id| out.extend(id.to_be_bytes()));
    }
    length(out, members.nodes().count());
    for (id, node) in members.nodes() {
        out.extend(id.to_be_bytes());
        put_bytes(out, node.addr.as_bytes());
    }
}

fn members(input: &mut Input) -> Parsed<Members> {
    let configs = input.list(|input| {
        let voters = input.list(Input::u64)?;
        Ok(voters.into_iter().collect::<BTreeSet<_>>())
    })?;
    let nodes = input.list(|input| {
        let id = input.u64()?;
        let address = String::from_utf8(input.bytes()?.to_vec());
        let addr = address.map_err(|_| Malformed("an address is no UTF-8"))?;
        Ok((id, Node { addr }))
    })?;
    let nodes: BTreeMap<_, _> = nodes.into_iter().collect();
    match configs.is_empty() && nodes.is_empty() {
        true => Ok(Members::default()),
        false => {
            Members::new(configs, nodes).map_err(|_| Malformed("the members contradict themselves"))
        }
    }
}

fn put_founding(out: &mut Vec<u8>, founding: &FoundingDocuments) {
    put_bytes(out, &founding.seed_shares);
    put_bytes(out, &founding.root_certificate);
}

fn founding(input: &mut Input) -> Parsed<FoundingDocuments> {
    Ok(FoundingDocuments {
        seed_shares: input.bytes()?,
        root_certificate: input.bytes()?,
    })
}

fn transition(input: &mut Input) -> Parsed<Transition> {
    Transition::decode(&input.bytes()?).map_err(|_| Malformed("a transition cannot be read"))
}

fn put_change(out: &mut Vec<u8>, change: &Change) {
    put_bytes(out, &change.transition.encode());
    put_bytes(out, &change.manifest);
    length(out, change.policies.len());
    for policy in &change.policies {
        put_bytes(out, policy);
    }
    put_option(out, change.founding.as_ref(), put_founding);
}

fn change(input: &mut Input) -> Parsed<Change> {
    Ok(Change {
        transition: transition(input)?,
        manifest: input.bytes()?,
        policies: input.list(Input::bytes)?,
        founding: input.option(founding)?,
    })
}

fn put_volume(out: &mut Vec<u8>, volume: VolumeId, generation: Generation) {
    out.extend(volume.0);
    out.extend(generation.number.to_be_bytes());
    out.extend(generation.reporter);
}

fn volume(input: &mut Input) -> Parsed<(VolumeId, Generation)> {
    let volume = VolumeId(input.array()?);
    let generation = Generation {
        number: input.u64()?,
        reporter: input.array()?,
    };
    Ok((volume, generation))
}

fn secret_id(input: &mut Input) -> Parsed<Arc<str>> {
    let id = String::from_utf8(input.bytes()?.to_vec());
    let id = id.map_err(|_| Malformed("a workload secret id is no UTF-8"))?;
    Ok(id.into())
}

fn advance(input: &mut Input) -> Parsed<Advance> {
    let secret_id = secret_id(input)?;
    let (volume, generation) = volume(input)?;
    Ok(Advance {
        secret_id,
        volume,
        generation,
    })
}

fn put_volumes(out: &mut Vec<u8>, volumes: &Volumes) {
    let ids = volumes.iter();
    length(out, ids.len());
    for (id, volumes) in ids {
        put_bytes(out, id.as_bytes());
        length(out, volumes.len());
        volumes.for_each(|(volume, generation)| put_volume(out, volume, generation));
    }
}

fn volumes(input: &mut Input) -> Parsed<Volumes> {
    let mut all = Volumes::default();
    for _ in 0..input.u32()? {
        let id = secret_id(input)?;
        for _ in 0..input.u32()? {
            let (volume, generation) = volume(input)?;
            all.put(&id, volume, generation);
        }
    }
    Ok(all)
}

/// The generations of all volumes, as the history file has them.
pub(crate) fn encode_volumes(volumes: &Volumes) -> Vec<u8> {
    let mut out = Vec::new();
    put_volumes(&mut out, volumes);
    out
}

pub(crate) fn decode_volumes(bytes: &[u8]) -> Parsed<Volumes> {
    whole(bytes, volumes)
}

const BLANK: u8 = 0;
const CHANGE: u8 = 1;
const MEMBERS: u8 = 2;
const ADVANCE: u8 = 3;

fn put_payload(out: &mut Vec<u8>, payload: &Payload) {
    match payload {
        EntryPayload::Blank => out.push(BLANK),
        EntryPayload::Normal(Command::Change(change)) => {
            out.push(CHANGE);
            put_change(out, change);
        }
        EntryPayload::Normal(Command::Advance(advance)) => {
            out.push(ADVANCE);
            put_bytes(out, advance.secret_id.as_bytes());
            put_volume(out, advance.volume, advance.generation);
        }
        EntryPayload::Membership(members) => {
            out.push(MEMBERS);
            put_members(out, members);
        }
    }
}

fn payload(input: &mut Input) -> Parsed<Payload> {
    match input.u8()? {
        BLANK => Ok(EntryPayload::Blank),
        CHANGE => Ok(EntryPayload::Normal(Command::Change(change(input)?))),
        ADVANCE => Ok(EntryPayload::Normal(Command::Advance(advance(input)?))),
        MEMBERS => Ok(EntryPayload::Membership(members(input)?)),
        _ => Err(Malformed("an entry of another kind")),
    }
}

/// What an entry is for, as other replicas get it: its record from the tag on.
pub(crate) fn encode_payload(payload: &Payload) -> Vec<u8> {
    let mut out = Vec::new();
    put_payload(&mut out, payload);
    out
}

pub(crate) fn decode_payload(bytes: &[u8]) -> Parsed<Payload> {
    whole(bytes, payload)
}

/// The payload of an entry's record; `previous` is the MAC of the entry before.
pub(crate) fn encode_entry(previous: &Mac, entry: &LogEntry) -> Vec<u8> {
    let mut out = previous.to_vec();
    put_leader(&mut out, &entry.log_id.leader_id);
    put_payload(&mut out, &entry.payload);
    out
}

/// MAC of the entry before, and the entry with the given index.
pub(crate) fn decode_entry(index: u64, bytes: &[u8]) -> Parsed<(Mac, LogEntry)> {
    whole(bytes, |input| {
        let previous = input.array::<MAC_BYTES>()?;
        let log_id = EntryId::new(leader(input)?, index);
        let payload = payload(input)?;
        Ok((previous, LogEntry { log_id, payload }))
    })
}

/// What is stored about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotDescription {
    pub(crate) info: SnapshotInfo,
    /// Length of the chain in bytes.
    pub(crate) length: u64,
    /// SHA-256 of the chain.
    pub(crate) digest: [u8; 32],
}

impl SnapshotDescription {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_option(&mut out, self.info.last_log_id.as_ref(), put_entry_id);
        let members = &self.info.last_membership;
        put_option(&mut out, members.log_id().as_ref(), put_entry_id);
        put_members(&mut out, members.membership());
        out.extend(self.length.to_be_bytes());
        out.extend(self.digest);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Parsed<Self> {
        whole(bytes, |input| {
            let last_log_id = input.option(entry_id)?;
            let last_membership = LoggedMembers::new(input.option(entry_id)?, members(input)?);
            Ok(Self {
                info: SnapshotInfo {
                    last_log_id,
                    last_membership,
                },
                length: input.u64()?,
                digest: input.array()?,
            })
        })
    }
}

/// The chain of a history; `None` is the chain before the first transition.
pub(crate) fn encode_chain(history: Option<&History>) -> Result<Bytes, Malformed> {
    let volumes = history.map(History::volumes);
    let volumes = volumes.filter(|volumes| !volumes.is_empty());
    let mut out = match volumes {
        None => vec![CHAIN_VERSION],
        Some(_) => vec![CHAIN_VERSION_VOLUMES],
    };
    let Some(history) = history else {
        length(&mut out, 0);
        return Ok(out.into());
    };
    length(&mut out, history.generation());
    for link in history.links() {
        put_bytes(&mut out, &link.transition.encode());
    }
    for documents in [history.manifests(), history.policies()] {
        length(&mut out, documents.len());
        documents
            .iter()
            .for_each(|document| put_bytes(&mut out, document));
    }
    let seed_shares = history.seed_shares().to_json();
    put_founding(
        &mut out,
        &FoundingDocuments {
            seed_shares: seed_shares
                .map_err(|_| Malformed("the seed shares cannot be written"))?
                .into(),
            root_certificate: Bytes::copy_from_slice(history.root_certificate()),
        },
    );
    if let Some(volumes) = volumes {
        put_volumes(&mut out, volumes);
    }
    Ok(out.into())
}

/// The records of a chain; `None` when it has no transition. Nothing is verified yet, but all names are right, because they
/// are computed from the content.
pub(crate) fn decode_chain(bytes: &[u8]) -> Parsed<Option<Records>> {
    whole(bytes, |input| {
        let has_volumes = match input.u8()? {
            CHAIN_VERSION => false,
            CHAIN_VERSION_VOLUMES => true,
            _ => return Err(Malformed("a chain of another version")),
        };
        let transitions = input.list(transition)?;
        let Some(head) = transitions.last().map(Transition::hash) else {
            return Ok(None);
        };
        let manifests = input.list(Input::bytes)?;
        let policies = input.list(Input::bytes)?;
        let FoundingDocuments {
            seed_shares,
            root_certificate,
        } = founding(input)?;
        let volumes = match has_volumes {
            true => volumes(input)?,
            false => Volumes::default(),
        };
        Ok(Some(Records {
            head,
            transitions: transitions.iter().map(|t| (t.hash(), t.encode())).collect(),
            manifests: manifests
                .into_iter()
                .map(|m| (ManifestHash::of(&m), m))
                .collect(),
            policies: named(policies),
            seed_shares,
            root_certificate,
            volumes: FoundVolumes::Open(volumes),
        }))
    })
}
