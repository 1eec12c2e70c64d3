//! What arrives, and what happens when the other side or the network fails.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use contrast_atls::{Dialer, TcpDialer};
use contrast_coordinator::{
    cluster::{
        Change, ClusterId, EntryId, Leader, LogEntry, LoggedMembers, Members, Node, NodeVote,
        SignedChain, SnapshotInfo,
    },
    peer::Timing,
    replica::{
        message::{AppendReply, Place, RaftCall, RaftMessage, RaftReply, Reply, Request},
        peers::{CallError, OwnerFailure, PeerFailure, Peers},
    },
    state::{Transition, TransitionHash},
};
use contrast_manifest::ManifestHash;
use openraft::{EntryPayload, vote::RaftLeaderId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    net::TcpListener,
    runtime::Runtime,
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tonic::{Code, transport::Uri};

use crate::{
    replicas::{
        CLUSTER, Counting, PATIENCE, Replica, ask, assert_confirms, client_over, confirm,
        coordinator, local, of, trusting,
    },
    support::Deployment,
};

const LEADER: u64 = 1;
const FOLLOWER: u64 = 2;

fn raft(message: RaftMessage) -> Request {
    Request::Raft(RaftCall {
        cluster: CLUSTER,
        from: LEADER,
        to: FOLLOWER,
        message,
    })
}

fn vote() -> NodeVote {
    NodeVote::new_committed(5, LEADER)
}

fn entry_id(index: u64) -> EntryId {
    EntryId::new(Leader::new(5, LEADER), index)
}

fn unreachable(outcome: &Result<Reply, CallError>) -> String {
    match outcome {
        Err(CallError::Unreachable { reason, .. }) => reason.clone(),
        other => panic!("expected Unreachable, found {other:?}"),
    }
}

#[tokio::test]
async fn snapshot_of_several_chunks_arrives_whole() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let client = Replica::start(coordinator(), Some(&trusted)).await.client();
    let chain: Bytes = (0..(5 << 20) + 3)
        .map(|i: u32| (i % 253) as u8)
        .collect::<Vec<_>>()
        .into();
    let nodes = [(LEADER, Node::new("a:1")), (FOLLOWER, Node::new("b:1"))];
    let members = Members::new(
        vec![[LEADER].into()],
        std::collections::BTreeMap::from(nodes),
    );
    let info = SnapshotInfo {
        last_log_id: Some(entry_id(9)),
        last_membership: LoggedMembers::new(Some(entry_id(3)), members.expect("consistent")),
    };
    let received = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&received);
    server.fake.answers(move |request| {
        *keep.lock().expect("not poisoned") = Some(request);
        Ok(Reply::Raft(RaftReply::Snapshot { vote: vote() }))
    });
    let snapshot = RaftMessage::Snapshot {
        vote: vote(),
        info: info.clone(),
        chain: SignedChain(chain.clone()),
    };
    let reply = ask(&client, &server, raft(snapshot), of(&trusted)).await;
    assert!(
        matches!(reply, Ok(Reply::Raft(RaftReply::Snapshot { vote: found })) if found == vote()),
        "{reply:?}"
    );
    let received = received.lock().expect("not poisoned").take();
    let Some(Request::Raft(RaftCall {
        cluster: ClusterId([3, ..]),
        from: LEADER,
        to: FOLLOWER,
        message:
            RaftMessage::Snapshot {
                vote: found_vote,
                info: found_info,
                chain: found_chain,
            },
    })) = received
    else {
        panic!("{received:?}")
    };
    assert_eq!((found_vote, found_info), (vote(), info));
    assert!(found_chain.0 == chain);
}

#[tokio::test]
async fn entries_too_large_for_one_message_are_stored_in_part() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let client = Replica::start(coordinator(), Some(&trusted)).await.client();
    let received = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&received);
    server.fake.answers(move |request| {
        let Request::Raft(RaftCall {
            message: RaftMessage::Append { entries, .. },
            ..
        }) = request
        else {
            panic!("{request:?}")
        };
        *keep.lock().expect("not poisoned") = entries;
        Ok(Reply::Raft(RaftReply::Append(AppendReply::Success)))
    });
    let large = |index, bytes| LogEntry {
        log_id: entry_id(index),
        payload: EntryPayload::Normal(
            Change {
                transition: Transition {
                    manifest_hash: ManifestHash([1; 32]),
                    previous: TransitionHash::NONE,
                    mesh_ca_public_key: Bytes::new(),
                    seed_shares: [0; 32],
                    signing_public_key: Bytes::new(),
                    signature: Bytes::new(),
                },
                manifest: vec![7; bytes].into(),
                policies: Vec::new(),
                founding: None,
            }
            .into(),
        ),
    };
    // The largest that an owner can propose, then one that does not fit beside it.
    let entries = vec![large(1, 33 << 20), large(2, 1 << 20)];
    let append = RaftMessage::Append {
        vote: vote(),
        previous: None,
        entries: entries.clone(),
        committed: None,
    };
    let reply = ask(&client, &server, raft(append), of(&trusted)).await;
    let Ok(Reply::Raft(RaftReply::Append(AppendReply::Partial(last)))) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(last, Some(entry_id(1)));
    assert!(*received.lock().expect("not poisoned") == entries[..1]);
}

#[tokio::test]
async fn failures_of_a_handler_arrive_as_they_were() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let client = Replica::start(coordinator(), Some(&trusted)).await.client();
    let owner = OwnerFailure {
        code: Code::PermissionDenied as i32,
        message: format!("needs 2 signatures\n{}", "ü".repeat(4000)),
        details: vec![9; 10_000].into(),
    };
    let failures = [
        PeerFailure::NotCoordinator("no longer".to_owned()),
        PeerFailure::OtherIdentity,
        PeerFailure::NotLeader { leader: None },
        PeerFailure::NotLeader {
            leader: Some(Place::new("b:7778")),
        },
        PeerFailure::Unavailable("no quorum".to_owned()),
        PeerFailure::Owner(owner),
    ];
    for expected in failures {
        let answer = expected.clone();
        server.fake.answers(move |_| Err(answer.clone()));
        match ask(&client, &server, confirm(1), of(&trusted)).await {
            Err(CallError::Failed { failure, place }) => {
                assert_eq!(format!("{failure:?}"), format!("{expected:?}"));
                assert_eq!(place, server.place);
            }
            other => panic!("expected {expected:?}, found {other:?}"),
        }
    }
}

#[tokio::test]
async fn panic_in_a_handler_is_an_answer_and_the_connection_goes_on() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let dialer = Counting::default();
    let own = local(Deployment::new().tee(), coordinator());
    let client = client_over(&own, dialer.clone(), Timing::default());
    server.fake.answers(|request| match request {
        Request::Leave { .. } => Ok(Reply::Done),
        Request::Confirm { node: 1, .. } => panic!("on purpose"),
        // An answer to another question.
        _ => Ok(Reply::Key(None)),
    });
    for node in [1, 2] {
        let outcome = ask(&client, &server, confirm(node), of(&trusted)).await;
        let text = outcome.expect_err("no answer").to_string();
        assert!(text.contains("internal error there"), "{text}");
    }
    let leave = Request::Leave {
        cluster: CLUSTER,
        node: 1,
    };
    // The script was locked when it panicked.
    server.fake.script.clear_poison();
    let reply = ask(&client, &server, leave, of(&trusted)).await;
    assert!(matches!(reply, Ok(Reply::Done)), "{reply:?}");
    assert_eq!(dialer.dials(), 1);
}

#[tokio::test]
async fn call_ends_when_its_time_is_over_and_the_connection_stays() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let dialer = Counting::default();
    let own = local(Deployment::new().tee(), coordinator());
    let client = client_over(&own, dialer.clone(), Timing::default());
    assert_confirms(&client, &server, &trusted).await;
    *server.fake.delay.lock().expect("not poisoned") = Duration::from_secs(60);
    let start = Instant::now();
    let within = Duration::from_millis(300);
    let outcome = client.call(server.place.clone(), confirm(1), of(&trusted), within);
    unreachable(&outcome.await);
    let took = start.elapsed();
    assert!(took >= within && took < Duration::from_secs(5), "{took:?}");
    *server.fake.delay.lock().expect("not poisoned") = Duration::ZERO;
    assert_confirms(&client, &server, &trusted).await;
    assert_eq!(dialer.dials(), 1);
}

#[tokio::test]
async fn slow_handshake_is_not_begun_again_by_callers_with_little_time() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let dialer = Counting {
        delay: Duration::from_millis(700),
        ..Counting::default()
    };
    let own = local(Deployment::new().tee(), coordinator());
    let client = client_over(&own, dialer.clone(), Timing::default());
    let short = || {
        let within = Duration::from_millis(100);
        client.call(server.place.clone(), confirm(7), of(&trusted), within)
    };
    let reason = unreachable(&short().await);
    assert!(reason.contains("no connection within 100ms"), "{reason}");
    let deadline = Instant::now() + PATIENCE;
    while short().await.is_err() {
        assert!(Instant::now() < deadline, "the dial never ends");
    }
    assert_eq!(dialer.dials(), 1);
}

#[tokio::test]
async fn many_questions_at_once_need_one_connection() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let dialer = Counting::default();
    let own = local(Deployment::new().tee(), coordinator());
    let client = client_over(&own, dialer.clone(), Timing::default());
    let asked = (0..50).map(|node| ask(&client, &server, confirm(node), of(&trusted)));
    for (node, reply) in (0_u64..).zip(futures::future::join_all(asked).await) {
        assert!(
            matches!(reply, Ok(Reply::ReadIndex { index, .. }) if index == node),
            "{reply:?}"
        );
    }
    assert_eq!(dialer.dials(), 1);
}

#[tokio::test]
async fn replica_that_died_is_unreachable_and_dialled_anew_when_it_is_back() {
    after_a_death(true).await;
}

#[tokio::test]
async fn connection_that_ended_unused_costs_no_question() {
    after_a_death(false).await;
}

async fn after_a_death(asked_meanwhile: bool) {
    let trusted = trusting(&[coordinator()]);
    let client = Replica::start(coordinator(), Some(&trusted)).await.client();
    // With a runtime of its own, whose end is that of all its connections.
    let runtime = Runtime::new().expect("runtime");
    let trust = Arc::clone(&trusted);
    let start = async move { Replica::start(coordinator(), Some(&trust)).await };
    let server = runtime.spawn(start).await.expect("starts");
    assert_confirms(&client, &server, &trusted).await;
    let (address, own) = (server.address, server.local.clone());
    runtime.shutdown_background();
    let place = Place::new(&address.to_string());
    if asked_meanwhile {
        let gone = client.call(place.clone(), confirm(1), of(&trusted), PATIENCE);
        unreachable(&gone.await);
    }
    let deadline = Instant::now() + PATIENCE;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let server = Replica::start_on(listener, own, Some(&trusted));
    // Long enough to notice the end of the old connection.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_confirms(&client, &server, &trusted).await;
}

#[tokio::test]
async fn question_under_way_is_answered_before_a_graceful_stop() {
    let trusted = trusting(&[coordinator()]);
    let mut server = Replica::start(coordinator(), Some(&trusted)).await;
    let client = Replica::start(coordinator(), Some(&trusted)).await.client();
    assert_confirms(&client, &server, &trusted).await;
    *server.fake.delay.lock().expect("not poisoned") = Duration::from_millis(500);
    let stop = async {
        while server.fake.asked().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.drain.drain();
    };
    tokio::join!(assert_confirms(&client, &server, &trusted), stop);
    let ended = timeout(PATIENCE, server.tasks.join_next()).await;
    ended
        .expect("in time")
        .expect("one task")
        .expect("no panic");
    unreachable(&ask(&client, &server, confirm(1), of(&trusted)).await);
}

/// A network that can be cut: bytes vanish, connections stay open.
#[derive(Clone)]
struct Network {
    cut: watch::Receiver<bool>,
    forwarders: Arc<Mutex<JoinSet<()>>>,
}

impl Dialer for Network {
    type Io = DuplexStream;

    async fn dial(&self, uri: Uri) -> io::Result<DuplexStream> {
        let tcp = TcpDialer.dial(uri).await?;
        let (near, far) = duplex(64 << 10);
        let (tcp_read, tcp_write) = tcp.into_split();
        let (far_read, far_write) = split(far);
        let mut forwarders = self.forwarders.lock().expect("not poisoned");
        forwarders.spawn(forward(tcp_read, far_write, self.cut.clone()));
        forwarders.spawn(forward(far_read, tcp_write, self.cut.clone()));
        Ok(near)
    }
}

async fn forward(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    cut: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if *cut.borrow() {
            // For ever: what was lost does not come back.
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn half_dead_connection_is_noticed_by_its_pings_and_replaced() {
    let trusted = trusting(&[coordinator()]);
    let server = Replica::start(coordinator(), Some(&trusted)).await;
    let (cut, receiver) = watch::channel(false);
    let network = Network {
        cut: receiver,
        forwarders: Arc::default(),
    };
    let own = local(Deployment::new().tee(), coordinator());
    let timing = Timing {
        keepalive: Duration::from_millis(300),
        ..Timing::default()
    };
    let client = client_over(&own, network, timing);
    assert_confirms(&client, &server, &trusted).await;

    cut.send(true).expect("the client listens");
    let start = Instant::now();
    // Waits for long, but the pings end it.
    let outcome = ask(&client, &server, confirm(1), of(&trusted)).await;
    unreachable(&outcome);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    cut.send(false).expect("the client listens");
    assert_confirms(&client, &server, &trusted).await;
}

#[tokio::test]
async fn nobody_at_a_place_is_unreachable() {
    let trusted = trusting(&[coordinator()]);
    let client = Replica::start(coordinator(), Some(&trusted)).await.client();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    for place in [address.to_string(), "no place".to_owned(), "a".to_owned()] {
        let place = Place::new(&place);
        let outcome = client.call(place, confirm(1), of(&trusted), PATIENCE).await;
        unreachable(&outcome);
    }
}
