//! A cluster of one: openraft itself on the store.

use std::{collections::BTreeMap, future::Future, io, sync::Arc};

use openraft::{
    Config, Raft, RaftNetworkFactory, RaftNetworkV2,
    async_runtime::WatchReceiver,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};

use super::fixture::{NODE, change, derivation, key, transition_key};
use crate::{
    cluster::{
        Answer, LogStore, Node, NodeId, NodeVote, Refusal, SignedChain, StateMachine, TypeConfig,
    },
    state::{TransitionHash, tests::fixture::Disk},
};

type C = TypeConfig;

/// There is nobody else.
struct Nobody;

fn unreachable() -> Unreachable<C> {
    Unreachable::new(&io::Error::other("there is nobody else"))
}

impl RaftNetworkFactory<C> for Nobody {
    type Network = Self;

    async fn new_client(&mut self, _: NodeId, _: &Node) -> Self {
        Self
    }
}

impl RaftNetworkV2<C> for Nobody {
    type SnapshotData = SignedChain;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<C>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        Err(unreachable().into())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<C>,
        _: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        Err(unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _: NodeVote,
        _: openraft::type_config::alias::SnapshotOf<C, SignedChain>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        Err(unreachable().into())
    }
}

async fn start(log: LogStore) -> (Raft<C, StateMachine>, StateMachine) {
    let machine = StateMachine::new(&log, transition_key(1).public_key_spki());
    let config = Config {
        election_timeout_min: 50,
        election_timeout_max: 100,
        heartbeat_interval: 20,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("valid"));
    let raft = Raft::new(NODE, config, Nobody, log, machine.clone())
        .await
        .expect("starts");
    (raft, machine)
}

async fn leads(raft: &Raft<C, StateMachine>) {
    let wait = raft.wait(Some(std::time::Duration::from_secs(10)));
    wait.current_leader(NODE, "leads")
        .await
        .expect("a cluster of one elects itself");
}

#[tokio::test]
async fn acknowledged_transitions_survive_restart_snapshot_and_purge_and_nothing_secret_is_written()
{
    let disk = Disk::default();
    let first = change(TransitionHash::NONE, "a");
    let second = change(first.transition.hash(), "b");
    let third = change(second.transition.hash(), "c");

    let (raft, _) = start(LogStore::create(&disk, key()).expect("creates")).await;
    raft.initialize(BTreeMap::from([(NODE, Node::new("a:7778"))]))
        .await
        .expect("initialises");
    leads(&raft).await;
    for change in [&first, &second] {
        let answer = raft
            .client_write(change.clone().into())
            .await
            .expect("commits")
            .data;
        assert_eq!(answer, Answer::Applied(change.transition.hash()));
    }
    let rival = change(first.transition.hash(), "rival");
    let answer = raft.client_write(rival.into()).await.expect("commits").data;
    let expected = Refusal::NotNext {
        head: second.transition.hash(),
        found: first.transition.hash(),
    };
    assert_eq!(answer, Answer::Refused(expected));
    let applied = raft
        .metrics()
        .borrow_watched()
        .last_applied
        .expect("applied");
    raft.trigger().snapshot().await.expect("snapshot");
    let wait = raft.wait(Some(std::time::Duration::from_secs(10)));
    wait.snapshot(applied, "snapshot").await.expect("is built");
    raft.trigger()
        .purge_log(applied.index - 1)
        .await
        .expect("purges");
    let wait = raft.wait(Some(std::time::Duration::from_secs(10)));
    wait.metrics(|metrics| metrics.purged.is_some(), "purged")
        .await
        .expect("is purged");
    raft.shutdown().await.expect("stops");
    drop(raft);

    let (raft, machine) = start(LogStore::open(&disk, key()).expect("opens")).await;
    leads(&raft).await;
    let view = machine.view();
    assert_eq!(
        view.history.as_ref().expect("a history").head().hash,
        second.transition.hash()
    );
    let answer = raft
        .client_write(third.clone().into())
        .await
        .expect("commits")
        .data;
    assert_eq!(answer, Answer::Applied(third.transition.hash()));
    raft.shutdown().await.expect("stops");

    let bytes = disk.bytes();
    let contains = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
    assert!(
        contains(b"mesh CA key for"),
        "the public key is on the disk, so the search works"
    );
    assert!(!contains(&[1; 64]), "the seed is on the disk");
    let record_key = derivation(1).store_record_key().expect("derives");
    assert!(
        !contains(&record_key.expose()[..16]),
        "the record key is on the disk"
    );
}
