//! Answers to questions that are not Raft's. Writing one gives `None` when it does not fit the question.

use bytes::Bytes;
use contrast_manifest::{MAX_MANIFEST_BYTES, ManifestHash};
use contrast_proto::peer::{self as proto, welcome};

use super::{
    KEYS_MAX, MEMBERS_MAX, Parsed, at_most, cluster, hash, optional_place, place, present,
    put_cluster, put_optional_place, put_transition, secret, transition,
};
use crate::{
    replica::message::{
        BootId, Member, MemberReport, Reply, Secrets, SetReceipt, Standing, Welcome,
    },
    state::Advanced,
};

pub(crate) fn put_welcome(reply: Reply) -> Option<proto::Welcome> {
    let Reply::Welcome(Welcome { boot, standing }) = reply else {
        return None;
    };
    let standing = match standing {
        Standing::Empty => welcome::Standing::Empty(proto::Nothing {}),
        Standing::Founding => welcome::Standing::Founding(proto::Nothing {}),
        Standing::Waiting => welcome::Standing::Waiting(proto::Nothing {}),
        Standing::Member(report) => welcome::Standing::Member(put_report(report)),
    };
    Some(proto::Welcome {
        boot: boot.0,
        standing: Some(standing),
    })
}

pub(crate) fn welcome(message: proto::Welcome) -> Parsed<Reply> {
    let standing = match present("standing", message.standing)? {
        welcome::Standing::Empty(_) => Standing::Empty,
        welcome::Standing::Founding(_) => Standing::Founding,
        welcome::Standing::Waiting(_) => Standing::Waiting,
        welcome::Standing::Member(report) => Standing::Member(read_report(report)?),
    };
    Ok(Reply::Welcome(Welcome {
        boot: BootId(message.boot),
        standing,
    }))
}

fn put_report(report: MemberReport) -> proto::MemberReport {
    let members = report.members.iter().map(|member| proto::Member {
        node: member.node,
        place: member.place.to_string(),
        voter: member.voter,
    });
    proto::MemberReport {
        cluster: put_cluster(report.cluster),
        node: report.node,
        members: members.collect(),
        leader: put_optional_place(report.leader.as_ref()),
        confirmed: report.confirmed,
        manifest: report.manifest,
        head: put_transition(report.head),
        applied: report.applied,
        contains_head: report.contains_head,
    }
}

fn read_report(report: proto::MemberReport) -> Parsed<MemberReport> {
    at_most("members", report.members.len(), MEMBERS_MAX, "members")?;
    let bytes = report.manifest.len();
    at_most("manifest", bytes, MAX_MANIFEST_BYTES, "bytes")?;
    let members = report.members.into_iter().map(|member| {
        Ok(Member {
            node: member.node,
            place: place("members", &member.place)?,
            voter: member.voter,
        })
    });
    Ok(MemberReport {
        cluster: cluster(&report.cluster)?,
        node: report.node,
        members: members.collect::<Parsed<_>>()?,
        leader: optional_place("leader", &report.leader)?,
        confirmed: report.confirmed,
        // A copy of its own: it may be kept, and must not keep the whole message alive.
        manifest: Bytes::copy_from_slice(&report.manifest),
        head: transition("head", &report.head)?,
        applied: report.applied,
        contains_head: report.contains_head,
    })
}

pub(crate) fn put_secrets(reply: Reply) -> Option<proto::Secrets> {
    let Reply::Secrets(secrets) = reply else {
        return None;
    };
    let keys = secrets.mesh_ca_keys.iter();
    Some(proto::Secrets {
        cluster: put_cluster(secrets.cluster),
        seed: secret::put_seed(&secrets.seed),
        salt: Bytes::copy_from_slice(secrets.salt.as_bytes()),
        mesh_ca_keys: keys.map(secret::put_key).collect(),
        manifest: Bytes::copy_from_slice(&secrets.manifest.0),
    })
}

pub(crate) fn secrets(message: proto::Secrets) -> Parsed<Reply> {
    let keys = message.mesh_ca_keys;
    at_most("mesh_ca_keys", keys.len(), KEYS_MAX, "keys")?;
    let keys = keys.into_iter().map(|key| secret::key("mesh_ca_keys", key));
    Ok(Reply::Secrets(Secrets {
        cluster: cluster(&message.cluster)?,
        seed: secret::seed(message.seed)?,
        salt: secret::salt(&message.salt)?,
        mesh_ca_keys: keys.collect::<Parsed<_>>()?,
        manifest: ManifestHash(hash("manifest", &message.manifest)?),
    }))
}

pub(crate) fn put_read_index(reply: Reply) -> Option<proto::ReadIndex> {
    match reply {
        Reply::ReadIndex { index, settled } => Some(proto::ReadIndex { index, settled }),
        _ => None,
    }
}

pub(crate) fn read_index(message: proto::ReadIndex) -> Parsed<Reply> {
    Ok(Reply::ReadIndex {
        index: message.index,
        settled: message.settled,
    })
}

pub(crate) fn put_found_key(reply: Reply) -> Option<proto::FetchKeyReply> {
    match reply {
        Reply::Key(key) => Some(proto::FetchKeyReply {
            key: key.as_ref().map(secret::put_key).unwrap_or_default(),
        }),
        _ => None,
    }
}

pub(crate) fn found_key(message: proto::FetchKeyReply) -> Parsed<Reply> {
    let key = match message.key.is_empty() {
        true => None,
        false => Some(secret::key("key", message.key)?),
    };
    Ok(Reply::Key(key))
}

pub(crate) fn put_receipt(reply: Reply) -> Option<proto::Receipt> {
    match reply {
        Reply::Set(receipt) => Some(proto::Receipt {
            root_ca: receipt.root_ca,
            mesh_ca: receipt.mesh_ca,
            transition: put_transition(receipt.transition),
            seed_shares: receipt.seed_shares,
        }),
        _ => None,
    }
}

pub(crate) fn receipt(message: proto::Receipt) -> Parsed<Reply> {
    Ok(Reply::Set(SetReceipt {
        root_ca: message.root_ca,
        mesh_ca: message.mesh_ca,
        transition: transition("transition", &message.transition)?,
        seed_shares: message.seed_shares,
    }))
}

pub(crate) fn put_advanced(reply: Reply) -> Option<proto::AdvanceVolumeReply> {
    use proto::advance_volume_reply::Outcome;
    let outcome = match reply {
        Reply::Volume(Advanced::Accepted) => Outcome::Accepted(proto::Nothing {}),
        Reply::Volume(Advanced::Behind { recorded }) => Outcome::Behind(recorded),
        Reply::Volume(Advanced::Full) => Outcome::Full(proto::Nothing {}),
        _ => return None,
    };
    Some(proto::AdvanceVolumeReply {
        outcome: Some(outcome),
    })
}

pub(crate) fn advanced(message: proto::AdvanceVolumeReply) -> Parsed<Reply> {
    use proto::advance_volume_reply::Outcome;
    Ok(Reply::Volume(match present("outcome", message.outcome)? {
        Outcome::Accepted(_) => Advanced::Accepted,
        Outcome::Behind(recorded) => Advanced::Behind { recorded },
        Outcome::Full(_) => Advanced::Full,
    }))
}

pub(crate) fn put_done(reply: Reply) -> Option<proto::Done> {
    matches!(reply, Reply::Done).then_some(proto::Done {})
}

pub(crate) fn done(_: proto::Done) -> Parsed<Reply> {
    Ok(Reply::Done)
}
