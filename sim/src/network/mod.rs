//! Connections between replicas.
//!
//! A question is given to the process at a place, with an [`Identity`] that the other side can ask for proof, as attested TLS
//! would. On the way it may be late, lost, doubled or overtaken, by link and direction. The server runs it as a task of its node.
//!
//! The network is also the adversary's: every question is recorded, can be delivered again to whoever is at its place then
//! ([`Network::replay`]) and can be altered and asked by a stranger ([`Network::forge`]). What TLS rules out is allowed all the same,
//! so that no replica relies on it: a question that is repeated still carries its sender's proof, even to a later process.
//!
//! The network watches for secrets: seed and mesh CA keys may go to genuine Coordinators only.

mod forge;
mod identity;
mod peers;
mod wire;

pub use identity::Identity;
pub use peers::SimPeers;
pub use wire::{Link, Network};

use std::sync::Arc;

use contrast_coordinator::replica::{
    message::{Reply, Request},
    peers::{BoxFuture, PeerFailure},
};

/// What answers at a place.
pub trait Endpoint: Send + Sync + 'static {
    /// Answers a question.
    fn handle(
        self: Arc<Self>,
        caller: Arc<Identity>,
        request: Request,
    ) -> BoxFuture<Result<Reply, PeerFailure>>;
}
