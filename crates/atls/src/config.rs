use std::sync::Arc;

use contrast_attestation::{EvidenceVerifier, Issuer};
use contrast_clock::WallClock;

use crate::{Identity, Limits};

/// How a client connects.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// TLS key to present when the server asks for one.
    pub identity: Arc<Identity>,
    /// TEE to ask for evidence when the server requires some. `None`: connections to such a server fail.
    pub issuer: Option<Arc<dyn Issuer>>,
    /// Judge of the server's evidence. `None` leaves the server anonymous; only for peers who need no trust in it.
    pub verifier: Option<Arc<dyn EvidenceVerifier>>,
    /// Time at which evidence is judged.
    pub clock: Arc<dyn WallClock>,
    /// Bounds of the handshake; [`Limits::client`] unless there is a reason.
    pub limits: Limits,
}

/// How a server accepts.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// TLS key to present.
    pub identity: Arc<Identity>,
    /// TEE to ask for evidence when a client requires some. `None`: connections of such clients fail.
    pub issuer: Option<Arc<dyn Issuer>>,
    /// Judge of the clients' evidence; it is asked once for each connection, so it may decide by state that changes.
    /// `None` lets clients stay anonymous, `Some` also makes a client certificate mandatory.
    pub verifier: Option<Arc<dyn EvidenceVerifier>>,
    /// Time at which evidence is judged.
    pub clock: Arc<dyn WallClock>,
    /// Bounds of one handshake; [`Limits::server`] unless there is a reason.
    pub limits: Limits,
}
