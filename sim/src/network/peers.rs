use std::{fmt, sync::Arc, time::Duration};

use contrast_coordinator::replica::{
    message::{Place, Reply, Request},
    peers::{BoxFuture, CallError, EvidenceSummary, Peers, Trust},
};
use openraft::AsyncRuntime;

use super::{Identity, Network};
use crate::runtime::{Node, NodeRuntime};

/// The other replicas as one process reaches them.
pub struct SimPeers {
    network: Network,
    node: Node,
    identity: Arc<Identity>,
}

impl SimPeers {
    /// The network as `node`, who can prove `identity`, has it.
    pub fn new(network: &Network, node: &Node, identity: Arc<Identity>) -> Self {
        Self {
            network: network.clone(),
            node: node.clone(),
            identity,
        }
    }
}

impl fmt::Debug for SimPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimPeers({})", self.identity.name)
    }
}

impl Peers for SimPeers {
    fn own_place(&self) -> Place {
        self.identity.place.clone()
    }

    fn places(&self) -> BoxFuture<Vec<Place>> {
        Box::pin(std::future::ready(self.network.discover()))
    }

    fn call(
        &self,
        place: Place,
        request: Request,
        trust: Trust,
        within: Duration,
    ) -> BoxFuture<Result<Reply, CallError>> {
        let unreachable = CallError::Unreachable {
            place: place.clone(),
            reason: format!("no answer within {within:?}"),
        };
        if !self.node.is_alive() {
            return Box::pin(std::future::ready(Err(unreachable)));
        }
        let answer = self.network.ask(&self.identity, place, request, trust);
        Box::pin(async move {
            match NodeRuntime::timeout(within, answer).await {
                Ok(Ok(answer)) => answer,
                // Nobody will answer any more; a connection without news is given up at its end.
                Ok(Err(_)) => {
                    NodeRuntime::sleep(within).await;
                    Err(unreachable)
                }
                Err(_) => Err(unreachable),
            }
        })
    }

    fn evidence(&self, place: &Place) -> Option<EvidenceSummary> {
        self.network.evidence(&self.identity.place, place)
    }
}
