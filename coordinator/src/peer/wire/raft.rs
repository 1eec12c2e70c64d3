//! Raft's questions and answers.

use std::collections::{BTreeMap, BTreeSet};

use contrast_proto::peer::{self as proto, append_entries_reply::Outcome, snapshot_part::Part};

use super::{
    CHAIN_BYTES_MAX, CHUNK_BYTES_MAX, CONFIGS_MAX, MEMBERS_MAX, Malformed, Parsed, at_most,
    cluster, entry_id, place, present, put_cluster, put_entry_id, put_vote, vote,
};
use crate::{
    cluster::{
        EntryId, LogEntry, LoggedMembers, Members, Node, NodeId, NodeVote, SignedChain,
        SnapshotInfo, codec,
    },
    replica::message::{AppendReply, Ballot, RaftCall, RaftMessage, RaftReply, Reply, Request},
};

/// Between whom a Raft message goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) cluster: crate::cluster::ClusterId,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
}

impl Route {
    fn read(route: Option<proto::Route>) -> Parsed<Self> {
        let route = present("route", route)?;
        Ok(Self {
            cluster: cluster(&route.cluster)?,
            from: route.from,
            to: route.to,
        })
    }

    fn put(self) -> Option<proto::Route> {
        Some(proto::Route {
            cluster: put_cluster(self.cluster),
            from: self.from,
            to: self.to,
        })
    }

    fn carries(self, message: RaftMessage) -> Request {
        Request::Raft(RaftCall {
            cluster: self.cluster,
            from: self.from,
            to: self.to,
            message,
        })
    }
}

pub(crate) fn append(message: proto::AppendEntriesRequest) -> Parsed<Request> {
    let entries = message.entries.into_iter().map(|entry| {
        let payload = codec::decode_payload(&entry.payload)
            .map_err(|error| Malformed::new("entries.payload", "a log entry", error.0))?;
        Ok(LogEntry {
            log_id: entry_id(present("entries.id", entry.id)?),
            payload,
        })
    });
    let append = RaftMessage::Append {
        vote: vote(message.vote)?,
        previous: message.previous.map(entry_id),
        entries: entries.collect::<Parsed<_>>()?,
        committed: message.committed.map(entry_id),
    };
    Ok(Route::read(message.route)?.carries(append))
}

/// Also returns the last entry that the message has, if it does not have all. Then a success is a partial one.
pub(crate) fn put_append(
    route: Route,
    leader: &NodeVote,
    previous: Option<&EntryId>,
    entries: &[LogEntry],
    committed: Option<EntryId>,
    budget: usize,
) -> (proto::AppendEntriesRequest, Option<EntryId>) {
    let mut sent = Vec::new();
    let mut bytes = 0_usize;
    for entry in entries {
        let payload = codec::encode_payload(&entry.payload);
        bytes = bytes.saturating_add(payload.len());
        if bytes > budget && !sent.is_empty() {
            break;
        }
        sent.push(proto::LogEntry {
            id: Some(put_entry_id(&entry.log_id)),
            payload: payload.into(),
        });
    }
    let cut = match sent.len() < entries.len() {
        true => entries.get(sent.len().saturating_sub(1)),
        false => None,
    };
    let cut = cut.map(|entry| entry.log_id);
    // What the leader has committed beyond the message is not in the follower's log yet.
    let committed = committed.map(|committed| match cut {
        Some(last) if last.index < committed.index => last,
        _ => committed,
    });
    let message = proto::AppendEntriesRequest {
        route: route.put(),
        vote: Some(put_vote(leader)),
        previous: previous.map(put_entry_id),
        entries: sent,
        committed: committed.as_ref().map(put_entry_id),
    };
    (message, cut)
}

pub(crate) fn put_append_reply(reply: Reply) -> Option<proto::AppendEntriesReply> {
    let Reply::Raft(RaftReply::Append(reply)) = reply else {
        return None;
    };
    let outcome = match reply {
        AppendReply::Success => Outcome::Success(proto::Nothing {}),
        AppendReply::Partial(last) => Outcome::Partial(proto::Stored {
            last: last.as_ref().map(put_entry_id),
        }),
        AppendReply::Conflict => Outcome::Conflict(proto::Nothing {}),
        AppendReply::HigherVote(vote) => Outcome::HigherVote(put_vote(&vote)),
    };
    Some(proto::AppendEntriesReply {
        outcome: Some(outcome),
    })
}

pub(crate) fn append_reply(
    message: proto::AppendEntriesReply,
    cut: Option<EntryId>,
) -> Parsed<Reply> {
    let reply = match present("outcome", message.outcome)? {
        Outcome::Success(_) => match cut {
            Some(last) => AppendReply::Partial(Some(last)),
            None => AppendReply::Success,
        },
        Outcome::Partial(stored) => AppendReply::Partial(stored.last.map(entry_id)),
        Outcome::Conflict(_) => AppendReply::Conflict,
        Outcome::HigherVote(higher) => AppendReply::HigherVote(vote(Some(higher))?),
    };
    Ok(Reply::Raft(RaftReply::Append(reply)))
}

fn ballot(message: proto::Ballot) -> Parsed<(Route, Ballot)> {
    let ballot = Ballot {
        vote: vote(message.vote)?,
        last: message.last.map(entry_id),
        transfer: message.transfer,
    };
    Ok((Route::read(message.route)?, ballot))
}

pub(crate) fn vote_request(message: proto::Ballot) -> Parsed<Request> {
    let (route, ballot) = ballot(message)?;
    Ok(route.carries(RaftMessage::Vote(ballot)))
}

pub(crate) fn pre_vote_request(message: proto::Ballot) -> Parsed<Request> {
    let (route, ballot) = ballot(message)?;
    Ok(route.carries(RaftMessage::PreVote(ballot)))
}

pub(crate) fn put_ballot(route: Route, ballot: &Ballot) -> proto::Ballot {
    proto::Ballot {
        route: route.put(),
        vote: Some(put_vote(&ballot.vote)),
        last: ballot.last.as_ref().map(put_entry_id),
        transfer: ballot.transfer,
    }
}

pub(crate) fn put_vote_reply(reply: Reply) -> Option<proto::VoteReply> {
    match reply {
        Reply::Raft(RaftReply::Vote {
            vote,
            granted,
            last,
        }) => Some(proto::VoteReply {
            vote: Some(put_vote(&vote)),
            granted,
            last: last.as_ref().map(put_entry_id),
        }),
        _ => None,
    }
}

pub(crate) fn vote_reply(message: proto::VoteReply) -> Parsed<Reply> {
    Ok(Reply::Raft(RaftReply::Vote {
        vote: vote(message.vote)?,
        granted: message.granted,
        last: message.last.map(entry_id),
    }))
}

/// What comes before the chunks of a snapshot.
#[derive(Debug)]
pub(crate) struct SnapshotHeader {
    route: Route,
    vote: NodeVote,
    info: SnapshotInfo,
    /// Length of the chain in bytes, at most [`CHAIN_BYTES_MAX`].
    pub(crate) length: usize,
}

impl SnapshotHeader {
    pub(crate) fn with(self, chain: SignedChain) -> Request {
        self.route.carries(RaftMessage::Snapshot {
            vote: self.vote,
            info: self.info,
            chain,
        })
    }
}

pub(crate) fn snapshot_header(part: proto::SnapshotPart) -> Parsed<SnapshotHeader> {
    let Some(Part::Header(header)) = part.part else {
        return Err(Malformed::new("part", "the header first", "something else"));
    };
    if header.length > CHAIN_BYTES_MAX {
        return Err(Malformed::new(
            "length",
            format!("at most {CHAIN_BYTES_MAX} bytes"),
            format!("{} bytes", header.length),
        ));
    }
    Ok(SnapshotHeader {
        route: Route::read(header.route)?,
        vote: vote(header.vote)?,
        info: SnapshotInfo {
            last_log_id: header.last.map(entry_id),
            last_membership: members(present("members", header.members)?)?,
        },
        length: usize::try_from(header.length).unwrap_or(usize::MAX),
    })
}

pub(crate) fn snapshot_chunk(part: proto::SnapshotPart) -> Parsed<bytes::Bytes> {
    match part.part {
        Some(Part::Chunk(chunk)) if chunk.is_empty() => {
            Err(Malformed::new("chunk", "at least 1 byte", "none"))
        }
        Some(Part::Chunk(chunk)) => {
            at_most("chunk", chunk.len(), CHUNK_BYTES_MAX, "bytes")?;
            Ok(chunk)
        }
        _ => Err(Malformed::new("part", "a chunk", "something else")),
    }
}

/// The messages of a snapshot, in order.
pub(crate) fn put_snapshot(
    route: Route,
    leader: &NodeVote,
    info: &SnapshotInfo,
    chain: SignedChain,
) -> impl Iterator<Item = proto::SnapshotPart> + Send + use<> {
    let SignedChain(mut rest) = chain;
    let header = proto::SnapshotHeader {
        route: route.put(),
        vote: Some(put_vote(leader)),
        last: info.last_log_id.as_ref().map(put_entry_id),
        members: Some(put_members(&info.last_membership)),
        length: rest.len() as u64,
    };
    let chunks = std::iter::from_fn(move || {
        let length = rest.len().min(CHUNK_BYTES_MAX);
        (length > 0).then(|| Part::Chunk(rest.split_to(length)))
    });
    std::iter::once(Part::Header(header))
        .chain(chunks)
        .map(|part| proto::SnapshotPart { part: Some(part) })
}

fn members(message: proto::Membership) -> Parsed<LoggedMembers> {
    at_most("voters", message.voters.len(), CONFIGS_MAX, "sets")?;
    at_most("nodes", message.nodes.len(), MEMBERS_MAX, "nodes")?;
    let configs = message.voters.into_iter().map(|voters| {
        at_most("voters.nodes", voters.nodes.len(), MEMBERS_MAX, "voters")?;
        Ok(voters.nodes.into_iter().collect::<BTreeSet<_>>())
    });
    let configs: Vec<_> = configs.collect::<Parsed<_>>()?;
    let nodes = message.nodes.into_iter().map(|address| {
        let place = place("nodes.place", &address.place)?;
        Ok((address.node, Node::new(place)))
    });
    let nodes: BTreeMap<_, _> = nodes.collect::<Parsed<_>>()?;
    let members = match configs.is_empty() && nodes.is_empty() {
        true => Members::default(),
        false => Members::new(configs, nodes).map_err(|error| {
            Malformed::new("members", "voters that are nodes", error.to_string())
        })?,
    };
    Ok(LoggedMembers::new(message.entry.map(entry_id), members))
}

fn put_members(members: &LoggedMembers) -> proto::Membership {
    let configs = members.membership().get_joint_config().iter();
    let nodes = members.membership().nodes();
    proto::Membership {
        entry: members.log_id().as_ref().map(put_entry_id),
        voters: configs
            .map(|voters| proto::Voters {
                nodes: voters.iter().copied().collect(),
            })
            .collect(),
        nodes: nodes
            .map(|(node, address)| proto::Address {
                node: *node,
                place: address.addr.clone(),
            })
            .collect(),
    }
}

pub(crate) fn put_snapshot_reply(reply: Reply) -> Option<proto::SnapshotReply> {
    match reply {
        Reply::Raft(RaftReply::Snapshot { vote }) => Some(proto::SnapshotReply {
            vote: Some(put_vote(&vote)),
        }),
        _ => None,
    }
}

pub(crate) fn snapshot_reply(message: proto::SnapshotReply) -> Parsed<Reply> {
    let vote = vote(message.vote)?;
    Ok(Reply::Raft(RaftReply::Snapshot { vote }))
}

pub(crate) fn transfer(message: proto::TransferRequest) -> Parsed<Request> {
    let transfer = RaftMessage::Transfer {
        vote: vote(message.vote)?,
        to: message.to,
        last: message.last.map(entry_id),
    };
    Ok(Route::read(message.route)?.carries(transfer))
}

pub(crate) fn put_transfer(
    route: Route,
    leader: &NodeVote,
    to: NodeId,
    last: Option<&EntryId>,
) -> proto::TransferRequest {
    proto::TransferRequest {
        route: route.put(),
        vote: Some(put_vote(leader)),
        to,
        last: last.map(put_entry_id),
    }
}

pub(crate) fn put_transfer_reply(reply: Reply) -> Option<proto::TransferReply> {
    match reply {
        Reply::Raft(RaftReply::Transfer { accepted }) => Some(proto::TransferReply { accepted }),
        _ => None,
    }
}

pub(crate) fn transfer_reply(message: proto::TransferReply) -> Parsed<Reply> {
    let accepted = message.accepted;
    Ok(Reply::Raft(RaftReply::Transfer { accepted }))
}
