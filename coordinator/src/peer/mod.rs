//! The peer API: how replicas reach each other over attested TLS. It carries what [`crate::replica::message`] names, and decides about one
//! thing only: who may ask and who may be asked.
//!
//! | part | what it does |
//! | --- | --- |
//! | `wire` | messages of `proto/contrast/v1/peer.proto` and back, with all their bounds |
//! | `proof` | whether the other side of a connection is a Coordinator of a manifest |
//! | [`server`] | accepts connections and hands questions to a [`Handler`] |
//! | [`client`] | [`PeerClient`]: asks, over connections that are kept |
//! | [`discovery`] | where replicas may be |
//!
//! Invariants:
//! - A question other than `Hello` reaches the handler only if the connection's evidence is that of a Coordinator of the manifest
//!   that the handler trusts at that moment, and leaves the client only if that holds for the server.
//! - A verdict counts for one connection and one manifest, and for at most [`VERDICT_LIFE`]. Refusals are not kept.
//! - Nothing is ever asked twice: after a failure it is unknown whether the question arrived, and the caller decides.

pub mod client;
pub mod discovery;
mod link;

mod options;
mod pool;
mod proof;
pub mod server;
mod wire;

use std::{sync::Arc, time::Duration};

use contrast_atls::{Identity, IdentityError};
use contrast_attestation::Issuer;
use contrast_clock::WallClock;
use contrast_collateral::{Collateral, CompletingIssuer};

pub use client::{PeerClient, Timing};
pub use discovery::{Discovery, Resolver, Source, SystemResolver};
pub use options::{Options, OptionsError, PeerList};
pub use server::{Answer, Handler, serve};

/// How long an accepted connection's evidence is not verified again under the same manifest.
pub const VERDICT_LIFE: Duration = Duration::from_secs(60);

/// What this replica brings to connections with others, as a server and as a client.
#[derive(Debug, Clone)]
pub struct Local {
    identity: Arc<Identity>,
    issuer: Arc<dyn Issuer>,
    collateral: Arc<Collateral>,
    clock: Arc<dyn WallClock>,
}

impl Local {
    /// Draws a TLS key, for this process only. Evidence comes from `issuer`; that of others is judged by its clock and with its
    /// collateral.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(issuer: CompletingIssuer) -> Result<Self, IdentityError> {
        Ok(Self {
            identity: Arc::new(Identity::generate(issuer.clock.now())?),
            collateral: Arc::clone(&issuer.collateral),
            clock: Arc::clone(&issuer.clock),
            issuer: Arc::new(issuer),
        })
    }
}
