//! A process of the Coordinator in the simulated world.

use std::{fmt, sync::Arc};

use contrast_clock::SeededEntropy;
use contrast_coordinator::{
    replica::{
        Ended, Parts, Replica, Timing,
        message::{Place, Reply, Request},
        peers::{BoxFuture, PeerFailure},
    },
    state::{Observer, StateError},
};

use crate::{
    SimTypes,
    clock::SimWallClock,
    disk::Disk,
    network::{Endpoint, Identity, Network, SimPeers},
    runtime::{Node, NodeJoinHandle},
};

/// What a process is started on.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where it is.
    pub place: Place,
    /// Its disk.
    pub disk: Disk,
    /// Its wall clock.
    pub clock: Arc<SimWallClock>,
    /// Its network.
    pub network: Network,
}

/// A running process.
pub struct Process {
    /// Its tasks.
    pub node: Node,
    /// What it can prove.
    pub identity: Arc<Identity>,
    /// The replica.
    pub replica: Arc<Replica<SimTypes>>,
    run: NodeJoinHandle<Ended>,
}

impl Process {
    /// Starts a process on `machine`. `entropy` must never have been given to another one.
    ///
    /// # Errors
    /// When its disk cannot be used; `None` when it ended before it knew.
    pub async fn boot(
        machine: &Machine,
        node: Node,
        identity: Identity,
        timing: Timing,
        entropy: u64,
    ) -> Result<Option<Self>, StateError> {
        let identity = Arc::new(identity);
        let peers = SimPeers::new(&machine.network, &node, Arc::clone(&identity));
        let parts = Parts {
            may_join: true,
            peers: Arc::new(peers),
            history: Box::new(machine.disk.drive(&node)),
            log: Box::new(machine.disk.drive(&node)),
            clock: Arc::clone(&machine.clock) as _,
            entropy: Arc::new(SeededEntropy::new(entropy)),
            observer: Observer::default(),
            timing,
        };
        // Within the node, so that it can end there.
        let Ok(opened) = node.spawn(async move { Replica::open(parts) }).await else {
            return Ok(None);
        };
        let replica = opened?;
        let endpoint = Arc::new(Served(Arc::clone(&replica)));
        machine
            .network
            .attach(&node, Arc::clone(&identity), endpoint);
        let run = node.spawn(Arc::clone(&replica).run());
        Ok(Some(Self {
            node,
            identity,
            replica,
            run,
        }))
    }

    /// Waits until its identity is over; `None` when it was killed.
    pub async fn ended(self) -> Option<Ended> {
        self.run.await.ok()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({})", self.identity.name)
    }
}

struct Served(Arc<Replica<SimTypes>>);

impl Endpoint for Served {
    fn handle(
        self: Arc<Self>,
        caller: Arc<Identity>,
        request: Request,
    ) -> BoxFuture<Result<Reply, PeerFailure>> {
        Box::pin(async move { self.0.handle(&*caller, request).await })
    }
}
