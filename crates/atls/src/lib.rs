//! Attested TLS: TLS 1.3 whose peers prove what they run.
//!
//! After the TLS handshake and before any application byte, each side that its peer requires to prove itself sends
//! evidence whose report data binds this very connection, its role and its TLS key. The protocol, byte for byte, with
//! its threat table, is in `docs/protocol.md`.
//!
//! | I want to | use |
//! | --- | --- |
//! | have a TLS key | [`Identity`] |
//! | connect or accept on any byte stream | [`connect`], [`accept`] |
//! | dial a tonic service | [`Connector`] with `tonic::transport::Endpoint::connect_with_connector` |
//! | serve a tonic service | [`Incoming`] with tonic's `serve_with_incoming` |
//! | know who is on the other side | [`AtlsStream::peer`]; in a gRPC handler `request.extensions().get::<Peer>()` |
//!
//! An [`AtlsStream`] exists only after every proof that either side required was given and accepted; there is no way to
//! make one otherwise. So application code that holds one needs no further check of *whether* the peer was attested, only
//! of *what* it is ([`Peer::attested`]).
//!
//! What this crate never does: trust a certificate (all are self-signed; the evidence vouches for the key), resume a
//! session, send early data, speak TLS 1.2, decide about roles or names, or log a secret.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod acceptor;
mod binding;
mod config;
mod connector;
mod driver;
mod frame;
mod handshake;
mod identity;
mod limits;
mod stream;
mod tls;

pub use acceptor::{ConfigSource, FailureObserver, Incoming};
pub use config::{ClientConfig, ServerConfig};
pub use connector::{Connector, Dialer, TcpDialer};
pub use driver::{accept, connect};
pub use handshake::error::{AtlsError, Causes, Incompatibility, Misbehaviour, Phase};
pub use identity::{Identity, IdentityError};
pub use limits::{AcceptLimits, Limits};
pub use stream::{AtlsStream, AttestedPeer, Peer};

/// ALPN protocol name that both sides offer and demand, so that a wrong port is named as such.
pub const ALPN: &[u8] = b"contrast-atls/1";

/// Protocol version in `Hello`; the only one.
pub const VERSION: u32 = 1;
