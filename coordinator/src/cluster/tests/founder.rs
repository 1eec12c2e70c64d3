//! A cluster that begins with a history: openraft on stores that were made with a snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    Config, Raft, RaftNetworkFactory, RaftNetworkV2,
    async_runtime::WatchReceiver,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::SnapshotOf,
};

use super::fixture::{NODE, change, history, key, key_of, transition_key};
use crate::{
    cluster::{
        Answer, LogStore, Members, Node, NodeId, NodeVote, SignedChain, StateMachine, TypeConfig,
    },
    state::{History, tests::fixture::Disk},
};

type C = TypeConfig;
type Replica = Raft<C, StateMachine>;

const OTHER: NodeId = 43;

/// Calls other nodes of the same process.
#[derive(Clone, Default)]
struct Switch(Arc<Mutex<BTreeMap<NodeId, Replica>>>);

impl Switch {
    fn connect(&self, id: NodeId, replica: Replica) {
        let mut replicas = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        replicas.insert(id, replica);
    }
}

struct Line(Switch, NodeId);

impl Line {
    fn replica(&self) -> Result<Replica, Unreachable<C>> {
        let replicas = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        replicas
            .get(&self.1)
            .cloned()
            .ok_or_else(|| unreachable("nobody there"))
    }
}

fn unreachable(reason: impl ToString) -> Unreachable<C> {
    Unreachable::new(&io::Error::other(reason.to_string()))
}

impl RaftNetworkFactory<C> for Switch {
    type Network = Line;

    async fn new_client(&mut self, target: NodeId, _: &Node) -> Line {
        Line(self.clone(), target)
    }
}

impl RaftNetworkV2<C> for Line {
    type SnapshotData = SignedChain;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<C>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let answer = self.replica()?.append_entries(request).await;
        answer.map_err(|error| unreachable(error).into())
    }

    async fn vote(
        &mut self,
        request: VoteRequest<C>,
        _: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let answer = self.replica()?.vote(request).await;
        answer.map_err(|error| unreachable(error).into())
    }

    async fn full_snapshot(
        &mut self,
        vote: NodeVote,
        snapshot: SnapshotOf<C, SignedChain>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let answer = self.replica()?.install_full_snapshot(vote, snapshot).await;
        answer.map_err(|error| unreachable(error).into())
    }
}

async fn start(id: NodeId, log: LogStore, switch: &Switch) -> (Replica, StateMachine) {
    let machine = StateMachine::new(&log, transition_key(1).public_key_spki());
    let config = Config {
        election_timeout_min: 100,
        election_timeout_max: 200,
        heartbeat_interval: 30,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("valid"));
    let replica = Raft::new(id, config, switch.clone(), log, machine.clone())
        .await
        .expect("starts");
    switch.connect(id, replica.clone());
    (replica, machine)
}

fn alone() -> Members {
    let nodes = BTreeMap::from([(NODE, Node::new("a:7778"))]);
    Members::new(vec![BTreeSet::from([NODE])], nodes).expect("consistent")
}

fn founder(disk: &Disk, history: &History) -> LogStore {
    LogStore::create_with_snapshot(disk, key(), alone(), history).expect("creates")
}

async fn leads(replica: &Replica) {
    let wait = replica.wait(Some(Duration::from_secs(10)));
    wait.current_leader(NODE, "leads")
        .await
        .expect("a cluster of one elects itself");
}

#[tokio::test]
async fn founder_leads_with_its_history_and_a_learner_receives_all_of_it() {
    let (switch, begun) = (Switch::default(), history(&["a", "b", "c"]));
    let (first, machine) = start(NODE, founder(&Disk::default(), &begun), &switch).await;
    leads(&first).await;
    assert!(first.is_initialized().await.expect("runs"));
    let view = machine.view();
    let found = view.history.as_ref().expect("a history");
    assert!(found.links().eq(begun.links()));
    assert_eq!(view.members.membership(), &alone());

    let next = change(begun.head().hash, "d");
    let answer = first
        .client_write(next.clone().into())
        .await
        .expect("commits")
        .data;
    assert_eq!(answer, Answer::Applied(next.transition.hash()));

    let log = LogStore::create(&Disk::default(), key_of(1, 1, OTHER)).expect("creates");
    let (second, copy) = start(OTHER, log, &switch).await;
    first
        .add_learner(OTHER, Node::new("b:7778"), true)
        .await
        .expect("is admitted");
    let applied = first.metrics().borrow_watched().last_applied;
    let wait = second.wait(Some(Duration::from_secs(10)));
    wait.applied_index_at_least(applied.map(|id| id.index), "applied")
        .await
        .expect("catches up");
    let metrics = second.metrics().borrow_watched().clone();
    assert_eq!(
        metrics.snapshot.map(|id| id.index),
        Some(0),
        "entry 0 exists in no log"
    );
    let (ours, theirs) = (machine.view(), copy.view());
    let (ours, theirs) = (
        ours.history.as_ref().expect("one"),
        theirs.history.as_ref().expect("one"),
    );
    assert_eq!(theirs.generation(), 4);
    assert!(ours.links().eq(theirs.links()));
    assert_eq!(ours.policies(), theirs.policies());

    first
        .change_membership([NODE, OTHER], false)
        .await
        .expect("two voters");
    let last = change(next.transition.hash(), "e");
    let answer = first
        .client_write(last.clone().into())
        .await
        .expect("both acknowledge")
        .data;
    assert_eq!(answer, Answer::Applied(last.transition.hash()));
    for replica in [first, second] {
        replica.shutdown().await.expect("stops");
    }
}

#[tokio::test]
async fn store_of_a_founder_can_be_opened_again() {
    let (disk, begun) = (Disk::default(), history(&["a", "b"]));
    drop(founder(&disk, &begun));
    let log = LogStore::open(&disk, key()).expect("every record is right");
    let (replica, machine) = start(NODE, log, &Switch::default()).await;
    leads(&replica).await;
    let next = change(begun.head().hash, "c");
    replica
        .client_write(next.clone().into())
        .await
        .expect("commits");
    replica.shutdown().await.expect("stops");
    drop((replica, machine));

    let log = LogStore::open(&disk, key()).expect("opens");
    let (replica, machine) = start(NODE, log, &Switch::default()).await;
    leads(&replica).await;
    let view = machine.view();
    let head = view.history.as_ref().expect("a history").head().hash;
    assert_eq!(head, next.transition.hash());
    replica.shutdown().await.expect("stops");
}
