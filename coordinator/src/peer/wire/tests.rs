use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use bytes::Bytes;
use contrast_manifest::ManifestHash;
use contrast_pki::{Salt, Seed};
use contrast_proto::peer as proto;
use openraft::{EntryPayload, vote::RaftLeaderId};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;
use tonic::Status;
use zeroize::Zeroizing;

use super::*;
use crate::{
    cluster::{
        Change, FoundingDocuments, LogEntry, LoggedMembers, Members, Node, SignedChain,
        SnapshotInfo,
    },
    replica::{
        message::{
            AppendReply, Ballot, BootId, Member, MemberReport, MeshCaKey, RaftMessage, RaftReply,
            Reply, Request, Secrets, SetReceipt, Standing, Welcome,
        },
        peers::{OwnerFailure, PeerFailure},
    },
    state::{Advance, Advanced, Approval, Generation, Transition, UpdateRequest, VolumeId},
};

/// What the other side reads.
fn over_the_wire<M: Message + Default>(message: &M) -> M {
    M::decode(message.encode_to_vec().as_slice()).expect("own encoding")
}

/// Values without `PartialEq`, all of whose content is in their `Debug`.
fn assert_same(found: &impl Debug, expected: &impl Debug) {
    assert_eq!(format!("{found:?}"), format!("{expected:?}"));
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn a_cluster() -> impl Strategy<Value = ClusterId> {
    any::<[u8; 32]>().prop_map(ClusterId)
}

fn a_transition() -> impl Strategy<Value = TransitionHash> {
    any::<[u8; 32]>().prop_map(TransitionHash)
}

fn a_place() -> impl Strategy<Value = Place> {
    "[a-z0-9.-]{1,40}:[1-9][0-9]{0,3}".prop_map(|text| Place::new(&text))
}

fn an_entry_id() -> impl Strategy<Value = EntryId> {
    any::<(u64, u64, u64)>()
        .prop_map(|(term, node, index)| EntryId::new(Leader::new(term, node), index))
}

fn a_vote() -> impl Strategy<Value = NodeVote> {
    any::<(u64, u64, bool)>().prop_map(|(term, node, committed)| NodeVote {
        leader_id: Leader::new(term, node),
        committed,
    })
}

fn a_route() -> impl Strategy<Value = Route> {
    (a_cluster(), any::<u64>(), any::<u64>()).prop_map(|(cluster, from, to)| Route {
        cluster,
        from,
        to,
    })
}

fn a_key() -> impl Strategy<Value = MeshCaKey> {
    vec(any::<u8>(), 1..KEY_BYTES_MAX).prop_map(|key| MeshCaKey {
        pkcs8: Arc::new(Zeroizing::new(key)),
    })
}

fn some_members() -> impl Strategy<Value = Members> {
    let nodes = proptest::collection::btree_map(any::<u64>(), a_place(), 0..6);
    (nodes, any::<usize>()).prop_map(|(nodes, voters)| {
        let nodes: BTreeMap<_, _> = nodes
            .into_iter()
            .map(|(id, place)| (id, Node::new(place)))
            .collect();
        if nodes.is_empty() {
            return Members::default();
        }
        let count = 1 + voters % nodes.len();
        let voters = nodes.keys().copied().take(count).collect();
        Members::new(vec![voters, nodes.keys().copied().collect()], nodes).expect("consistent")
    })
}

fn a_change() -> impl Strategy<Value = Change> {
    let documents = (bytes(), vec(bytes(), 0..3), option::of((bytes(), bytes())));
    let hashes = (any::<[u8; 32]>(), a_transition(), any::<[u8; 32]>());
    (hashes, (bytes(), bytes(), bytes()), documents).prop_map(|(hashes, keys, documents)| {
        let (hash, previous, seed_shares) = hashes;
        let (mesh_ca_public_key, signing_public_key, signature) = keys;
        let (manifest, policies, founding) = documents;
        Change {
            transition: Transition {
                manifest_hash: ManifestHash(hash),
                previous,
                mesh_ca_public_key,
                seed_shares,
                signing_public_key,
                signature,
            },
            manifest,
            policies,
            founding: founding.map(|(seed_shares, root_certificate)| FoundingDocuments {
                seed_shares,
                root_certificate,
            }),
        }
    })
}

fn an_advance() -> impl Strategy<Value = Advance> {
    let id = "[a-z/0-9]{1,40}";
    (id, any::<[u8; 16]>(), any::<u64>(), any::<[u8; 32]>()).prop_map(
        |(id, volume, number, reporter)| Advance {
            secret_id: id.into(),
            volume: VolumeId(volume),
            generation: Generation { number, reporter },
        },
    )
}

fn an_entry() -> impl Strategy<Value = LogEntry> {
    let payload = prop_oneof![
        Just(EntryPayload::Blank),
        a_change().prop_map(|change| EntryPayload::Normal(change.into())),
        an_advance().prop_map(|advance| EntryPayload::Normal(advance.into())),
        some_members().prop_map(EntryPayload::Membership),
    ];
    (an_entry_id(), payload).prop_map(|(log_id, payload)| LogEntry { log_id, payload })
}

fn entries_of(request: Request) -> Vec<LogEntry> {
    let Request::Raft(call) = request else {
        panic!("{request:?}")
    };
    let RaftMessage::Append { entries, .. } = call.message else {
        panic!("{call:?}")
    };
    entries
}

proptest! {
    #[test]
    fn questions_arrive_as_they_were_sent(
        boot in any::<u64>(), head in option::of(a_transition()), id in a_cluster(), node in any::<u64>(),
        place in a_place(), public_key in bytes(), key in a_key(), advance in an_advance(),
    ) {
        let read = hello(over_the_wire(&put_hello(BootId(boot), head))).expect("reads");
        assert_same(&read, &Request::Hello { boot: BootId(boot), head });
        let read = join(over_the_wire(&put_join(id, node, &place))).expect("reads");
        assert_same(&read, &Request::Join { cluster: id, node, place });
        let read = confirm(over_the_wire(&put_confirm(id, node))).expect("reads");
        assert_same(&read, &Request::Confirm { cluster: id, node });
        let read = leave(over_the_wire(&put_leave(id, node))).expect("reads");
        assert_same(&read, &Request::Leave { cluster: id, node });
        let read = super::advance(over_the_wire(&put_advance(id, &advance))).expect("reads");
        assert_same(&read, &Request::AdvanceVolume { cluster: id, advance });
        let outcomes = [Advanced::Accepted, Advanced::Behind { recorded: boot }, Advanced::Full];
        for outcome in outcomes {
            let reply = put_advanced(Reply::Volume(outcome)).expect("fits");
            assert_same(&advanced(over_the_wire(&reply)).expect("reads"), &Reply::Volume(outcome));
        }
        let read = fetch_key(over_the_wire(&put_fetch_key(id, public_key.clone()))).expect("reads");
        assert_same(&read, &Request::FetchKey { cluster: id, public_key });
        let Request::OfferKey { cluster, key: found } =
            offer_key(over_the_wire(&put_offer_key(id, &key))).expect("reads") else { panic!() };
        prop_assert_eq!((cluster, &*found.pkcs8), (id, &*key.pkcs8));
    }

    #[test]
    fn proposals_arrive_as_they_were_sent(
        id in option::of(a_cluster()), manifest in bytes(), policies in vec(bytes(), 0..4), base in a_transition(),
        approvals in vec((bytes(), bytes()), 0..4),
    ) {
        let approvals = approvals.into_iter();
        let update = UpdateRequest {
            manifest, policies, base,
            approvals: approvals.map(|(public_key, signature)| Approval { public_key, signature }).collect(),
        };
        let read = propose(over_the_wire(&put_propose(id, update.clone()))).expect("reads");
        assert_same(&read, &Request::Propose { cluster: id, update });
    }

    #[test]
    fn raft_questions_arrive_as_they_were_sent(
        route in a_route(), leader in a_vote(), last in option::of(an_entry_id()),
        committed in option::of(an_entry_id()), entries in vec(an_entry(), 0..5), transfer_flag in any::<bool>(), to in any::<u64>(),
    ) {
        let (message, cut) = put_append(route, &leader, last.as_ref(), &entries, committed, usize::MAX);
        prop_assert_eq!(cut, None);
        let expected = route.carries(RaftMessage::Append { vote: leader, previous: last, entries, committed });
        assert_same(&append(over_the_wire(&message)).expect("reads"), &expected);
        let ballot = Ballot { vote: leader, last, transfer: transfer_flag };
        let message = over_the_wire(&put_ballot(route, &ballot));
        assert_same(&vote_request(message.clone()).expect("reads"), &route.carries(RaftMessage::Vote(ballot.clone())));
        assert_same(&pre_vote_request(message).expect("reads"), &route.carries(RaftMessage::PreVote(ballot)));
        let message = put_transfer(route, &leader, to, last.as_ref());
        let expected = route.carries(RaftMessage::Transfer { vote: leader, to, last });
        assert_same(&transfer(over_the_wire(&message)).expect("reads"), &expected);
    }

    #[test]
    fn answers_arrive_as_they_were_sent(
        boot in any::<u64>(), id in a_cluster(), node in any::<u64>(), members in vec((any::<u64>(), a_place(), any::<bool>()), 0..5),
        leader in option::of(a_place()), flags in any::<[bool; 2]>(), manifest in bytes(), head in a_transition(),
        index in any::<u64>(), shares in option::of(".{0,9}"), a in a_vote(), last in option::of(an_entry_id()),
    ) {
        let members = members.into_iter().map(|(node, place, voter)| Member { node, place, voter }).collect();
        let report = MemberReport {
            cluster: id, node, members, leader, confirmed: flags[0], manifest, head, applied: index, contains_head: flags[1],
        };
        for standing in [Standing::Empty, Standing::Founding, Standing::Waiting, Standing::Member(report)] {
            let reply = Reply::Welcome(Welcome { boot: BootId(boot), standing });
            let message = put_welcome(reply.clone()).expect("fits");
            assert_same(&welcome(over_the_wire(&message)).expect("reads"), &reply);
        }
        let reply = Reply::ReadIndex { index, settled: flags[0] };
        assert_same(&read_index(over_the_wire(&put_read_index(reply.clone()).expect("fits"))).expect("reads"), &reply);
        let reply = Reply::Set(SetReceipt { root_ca: "r".into(), mesh_ca: "m".into(), transition: head, seed_shares: shares });
        assert_same(&receipt(over_the_wire(&put_receipt(reply.clone()).expect("fits"))).expect("reads"), &reply);
        for outcome in [AppendReply::Success, AppendReply::Partial(last), AppendReply::Conflict, AppendReply::HigherVote(a)] {
            let reply = Reply::Raft(RaftReply::Append(outcome));
            let message = over_the_wire(&put_append_reply(reply.clone()).expect("fits"));
            assert_same(&append_reply(message, None).expect("reads"), &reply);
        }
        let reply = Reply::Raft(RaftReply::Vote { vote: a, granted: flags[0], last });
        assert_same(&vote_reply(over_the_wire(&put_vote_reply(reply.clone()).expect("fits"))).expect("reads"), &reply);
        let reply = Reply::Raft(RaftReply::Snapshot { vote: a });
        assert_same(&snapshot_reply(over_the_wire(&put_snapshot_reply(reply.clone()).expect("fits"))).expect("reads"), &reply);
        let reply = Reply::Raft(RaftReply::Transfer { accepted: flags[1] });
        assert_same(&transfer_reply(over_the_wire(&put_transfer_reply(reply.clone()).expect("fits"))).expect("reads"), &reply);
    }

    #[test]
    fn secrets_arrive_as_they_were_sent(
        id in a_cluster(), seed in vec(any::<u8>(), 64), salt in any::<[u8; 32]>(), keys in vec(a_key(), 0..4),
        manifest in any::<[u8; 32]>(),
    ) {
        let sent = Secrets {
            cluster: id,
            seed: Arc::new(Seed::from_slice(&seed).expect("64 bytes")),
            salt: Arc::new(Salt::from_slice(&salt).expect("32 bytes")),
            mesh_ca_keys: keys.clone(),
            manifest: ManifestHash(manifest),
        };
        let message = put_secrets(Reply::Secrets(sent)).expect("fits");
        let Reply::Secrets(found) = secrets(over_the_wire(&message)).expect("reads") else { panic!() };
        prop_assert_eq!(found.cluster, id);
        prop_assert_eq!(found.seed.expose(), &seed[..]);
        prop_assert_eq!(found.salt.as_bytes(), &salt);
        prop_assert_eq!(found.manifest.0, manifest);
        prop_assert_eq!(found.mesh_ca_keys.len(), keys.len());
        for (found, key) in found.mesh_ca_keys.iter().zip(&keys) {
            prop_assert_eq!(&*found.pkcs8, &*key.pkcs8);
        }
        for key in [None, keys.first().cloned()] {
            let message = put_found_key(Reply::Key(key.clone())).expect("fits");
            let Reply::Key(found) = found_key(over_the_wire(&message)).expect("reads") else { panic!() };
            prop_assert_eq!(found.map(|key| key.pkcs8.to_vec()), key.map(|key| key.pkcs8.to_vec()));
        }
    }

    #[test]
    fn hostile_bytes_are_read_or_refused(
        noise in vec(any::<u8>(), 0..200), entries in vec(an_entry(), 1..3), position in any::<usize>(), flip in 1_u8..,
        route in a_route(), leader in a_vote(), members in some_members(),
    ) {
        read_everything(&noise);
        let (message, _) = put_append(route, &leader, None, &entries, None, usize::MAX);
        let info = SnapshotInfo { last_log_id: None, last_membership: LoggedMembers::new(None, members) };
        let header = put_snapshot(route, &leader, &info, SignedChain(Bytes::new())).next().expect("header");
        for mut damaged in [message.encode_to_vec(), header.encode_to_vec()] {
            let position = position % damaged.len();
            damaged[position] ^= flip;
            read_everything(&damaged);
            read_everything(&damaged[..position]);
        }
    }
}

proptest! {
    // Of several MiB each.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn snapshots_arrive_as_they_were_sent(
        route in a_route(), leader in a_vote(), last in option::of(an_entry_id()), entry in option::of(an_entry_id()),
        members in some_members(), length in 0_usize..3 * CHUNK_BYTES_MAX,
    ) {
        let info = SnapshotInfo { last_log_id: last, last_membership: LoggedMembers::new(entry, members) };
        let chain: Bytes = (0..length).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
        let mut parts = put_snapshot(route, &leader, &info, SignedChain(chain.clone()));
        let header = snapshot_header(over_the_wire(&parts.next().expect("header"))).expect("reads");
        let mut arrived = Vec::new();
        for part in parts {
            arrived.extend(snapshot_chunk(over_the_wire(&part)).expect("reads"));
        }
        prop_assert_eq!(header.length, length);
        prop_assert!(arrived == chain);
        let expected = route.carries(RaftMessage::Snapshot { vote: leader, info, chain: SignedChain(chain) });
        assert_same(&header.with(SignedChain(arrived.into())), &expected);
    }
}

/// Every reader on the same bytes; none may panic.
fn read_everything(bytes: &[u8]) {
    fn with<M: Message + Default, T>(bytes: &[u8], read: impl FnOnce(M) -> Parsed<T>) {
        if let Ok(message) = M::decode(bytes) {
            let _ = read(message);
        }
    }
    with(bytes, hello);
    with(bytes, join);
    with(bytes, confirm);
    with(bytes, offer_key);
    with(bytes, fetch_key);
    with(bytes, propose);
    with(bytes, leave);
    with(bytes, append);
    with(bytes, vote_request);
    with(bytes, transfer);
    with(bytes, snapshot_header);
    with(bytes, snapshot_chunk);
    with(bytes, welcome);
    with(bytes, secrets);
    with(bytes, read_index);
    with(bytes, found_key);
    with(bytes, receipt);
    with(bytes, vote_reply);
    with(bytes, snapshot_reply);
    with(bytes, transfer_reply);
    with(bytes, |message| append_reply(message, None));
}

fn blank(index: u64) -> LogEntry {
    LogEntry {
        log_id: EntryId::new(Leader::new(1, 2), index),
        payload: EntryPayload::Blank,
    }
}

#[test]
fn entries_beyond_the_budget_stay_behind_and_are_not_called_stored() {
    let route = Route {
        cluster: ClusterId([1; 32]),
        from: 1,
        to: 2,
    };
    let vote = NodeVote::new(1, 2);
    let entries: Vec<_> = (5..9).map(blank).collect();
    let id = |index| Some(blank(index).log_id);
    // A blank entry takes one byte. The first always goes.
    for (budget, sent, cut) in [(0, 1, id(5)), (1, 1, id(5)), (3, 3, id(7)), (4, 4, None)] {
        let (message, found) = put_append(route, &vote, None, &entries, id(8), budget);
        assert_eq!((message.entries.len(), found), (sent, cut), "{budget}");
        let committed = message.committed.map(|id| id.index);
        assert_eq!(committed, Some(cut.map_or(8, |id| id.index)));
        assert_eq!(entries_of(append(message).expect("reads")), entries[..sent]);
        let success = put_append_reply(Reply::Raft(RaftReply::Append(AppendReply::Success)));
        let reply = append_reply(success.expect("fits"), found).expect("reads");
        let expected = match cut {
            Some(_) => AppendReply::Partial(cut),
            None => AppendReply::Success,
        };
        assert_same(&reply, &Reply::Raft(RaftReply::Append(expected)));
    }
    let (message, cut) = put_append(route, &vote, None, &[], id(3), 0);
    assert_eq!((message.entries.len(), cut), (0, None));
    assert_eq!(message.committed.map(|id| id.index), Some(3));
}

#[test]
fn fields_out_of_bounds_are_named() {
    fn refused<T: Debug>(result: Parsed<T>, expected: &str) {
        assert_eq!(result.expect_err("refused").to_string(), expected);
    }
    let cluster = Bytes::from_static(&[7; 32]);
    let join_with = |cluster: &Bytes, place: &str| {
        join(proto::JoinRequest {
            cluster: cluster.clone(),
            node: 1,
            place: place.to_owned(),
        })
    };
    refused(
        join_with(&Bytes::from_static(&[7; 31]), "a:1"),
        "cluster: expected 32 bytes, found 31 bytes",
    );
    refused(
        join_with(&cluster, "a:1\n"),
        "place: expected host:port in printable ASCII characters, found `a:1\\n`",
    );
    refused(
        join_with(&cluster, ""),
        "place: expected host:port in printable ASCII characters, found ``",
    );
    refused(
        join_with(&cluster, &"a".repeat(301)),
        "place: expected at most 300 bytes, found 301 bytes",
    );
    let key = |bytes: usize| {
        offer_key(proto::OfferKeyRequest {
            cluster: cluster.clone(),
            key: vec![1; bytes].into(),
        })
    };
    refused(key(0), "key: expected PKCS#8 DER, found nothing");
    refused(
        key(1025),
        "key: expected at most 1024 bytes, found 1025 bytes",
    );
    let part = |part| proto::SnapshotPart { part: Some(part) };
    let header = proto::SnapshotHeader {
        length: CHAIN_BYTES_MAX + 1,
        ..proto::SnapshotHeader::default()
    };
    refused(
        snapshot_header(part(proto::snapshot_part::Part::Header(header))),
        "length: expected at most 1073741824 bytes, found 1073741825 bytes",
    );
    let chunk = |length: usize| part(proto::snapshot_part::Part::Chunk(vec![0; length].into()));
    refused(
        snapshot_chunk(chunk(CHUNK_BYTES_MAX + 1)),
        "chunk: expected at most 1048576 bytes, found 1048577 bytes",
    );
    refused(
        snapshot_chunk(chunk(0)),
        "chunk: expected at least 1 byte, found none",
    );
    refused(
        snapshot_header(chunk(1)),
        "part: expected the header first, found something else",
    );
    refused(
        welcome(proto::Welcome::default()),
        "standing: expected a value, found none",
    );
    let report = proto::MemberReport {
        cluster,
        head: Bytes::from_static(&[1; 32]),
        members: vec![proto::Member::default(); 257],
        ..proto::MemberReport::default()
    };
    refused(
        welcome(proto::Welcome {
            boot: 0,
            standing: Some(proto::welcome::Standing::Member(report)),
        }),
        "members: expected at most 256 members, found 257 members",
    );
}

fn owner(code: i32, message: &str, details: usize) -> PeerFailure {
    PeerFailure::Owner(OwnerFailure {
        code,
        message: message.to_owned(),
        details: vec![7; details].into(),
    })
}

#[test]
fn failures_arrive_as_the_variant_that_they_were() {
    let failures = [
        PeerFailure::NotCoordinator("role: expected coordinator\nfound ü".to_owned()),
        PeerFailure::OtherIdentity,
        PeerFailure::NotLeader { leader: None },
        PeerFailure::NotLeader {
            leader: Some(Place::new("a:1")),
        },
        PeerFailure::Unavailable(String::new()),
        PeerFailure::Unreadable("entries: expected a log entry".to_owned()),
        owner(7, "PERMISSION: ü\n", 300),
        owner(0, "no error", 0),
        owner(4711, "of a later version", 16 << 10),
    ];
    for expected in failures {
        let found = failure(&status(&expected)).expect("a peer's failure");
        assert_same(&found, &expected);
    }
    let PeerFailure::Owner(cut) =
        failure(&status(&owner(7, &"ü".repeat(9000), 17 << 10))).expect("a peer's failure")
    else {
        panic!("an owner's failure")
    };
    assert_eq!((cut.message.len(), cut.details.len()), (8 << 10, 0));
}

#[test]
fn entry_of_a_later_version_is_refused_and_not_left_out() {
    let entry = |payload: &'static [u8]| proto::LogEntry {
        id: Some(proto::EntryId {
            term: 1,
            leader: 1,
            index: 4,
        }),
        payload: Bytes::from_static(payload),
    };
    let message = |entries| proto::AppendEntriesRequest {
        route: Some(proto::Route {
            cluster: vec![1; 32].into(),
            from: 1,
            to: 2,
        }),
        vote: Some(proto::NodeVote::default()),
        entries,
        ..Default::default()
    };
    append(message(vec![entry(&[0])])).expect("a blank entry");
    let error = append(message(vec![entry(&[0]), entry(&[200])]));
    let error = error.expect_err("nobody knows this kind");
    assert_eq!(
        error.to_string(),
        "entries.payload: expected a log entry, found an entry of another kind"
    );
}

#[test]
fn statuses_of_other_origin_are_no_failures_of_a_peer() {
    assert!(failure(&Status::unavailable("the network")).is_none());
    let malformed = Malformed::new("a", "b", "c");
    let unreadable = failure(&status_of_malformed(&malformed)).expect("a peer's failure");
    let text = "it does not understand the question (a: expected b, found c): update the older one of both replicas";
    assert_eq!(unreadable.to_string(), text);
    let escape = PeerFailure::Unavailable("\u{1b}[2J".to_owned());
    let found = failure(&status(&escape)).expect("a peer's failure");
    assert_eq!(found.to_string(), "not now: \u{fffd}[2J");
}
