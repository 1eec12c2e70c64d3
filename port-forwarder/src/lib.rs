//! Forwards TCP connections to another address, byte for byte.
//!
//! `kubectl port-forward` cannot reach into a confidential VM: the node's network namespace of such a pod has no listener. A pod of an
//! ordinary runtime class that runs this program stands in for it, in front of a Service of the Coordinator. It listens on loopback, where
//! `kubectl port-forward` arrives, so that no other pod goes through it.
//!
//! The program is trusted with nothing: what flows through is attested TLS, from the owner's machine to the inside of the VM. It sees
//! addresses, lengths and times, as every router on the way does.

pub mod config;
mod forward;

pub use config::{Config, Route, RouteError};
pub use forward::{ForwardError, Forwarder};
