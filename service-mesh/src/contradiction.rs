//! What can be wrong with a mesh as a whole.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::{annotation::Name, peer::NamespaceUnknown};

/// The entries and addresses contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the service mesh cannot be configured:{}", Lines(.contradictions))]
pub struct ModelError {
    /// Every contradiction; never empty.
    pub contradictions: Vec<Contradiction>,
}

struct Lines<'a>(&'a [Contradiction]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|contradiction| write!(f, "\n  {contradiction}"))
    }
}

/// One contradiction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Contradiction {
    /// Ingress ports without an address to listen on.
    #[error(
        "ingress ports are declared, but the pod's address is not known; set CONTRAST_POD_IP from the pod's status.podIP"
    )]
    NoPodAddress,
    /// The pod's address cannot be told apart from the application's.
    #[error(
        "expected the pod's own address, found {0}; it must be neither a wildcard nor the address on which the application listens"
    )]
    PodAddress(IpAddr),
    /// The application would be reachable around the mesh.
    #[error(
        "expected a loopback address for the application, found {0}; on any other it could be reached around the mesh"
    )]
    ApplicationAddress(IpAddr),
    /// Two listeners on one address.
    #[error(
        "{first} ({address}) and {second} ({other}) listen on the same place; change one of the ports or addresses"
    )]
    Overlap {
        /// What listens.
        first: String,
        /// Where.
        address: SocketAddr,
        /// What else listens.
        second: String,
        /// Where.
        other: SocketAddr,
    },
    /// An entry that only redirection can serve.
    #[error(
        "{entry} needs redirection, which the ingress mode `explicit` does not have; use CONTRAST_INGRESS_MODE=transparent, or {instead}"
    )]
    NeedsRedirection {
        /// The entry.
        entry: String,
        /// What to write for the explicit mode.
        instead: &'static str,
    },
    /// A port of the sidecar or of Envoy.
    #[error(
        "{what} has port {port}, which the service mesh uses itself ({reserved}); choose another"
    )]
    ReservedPort {
        /// What has it.
        what: String,
        /// The port.
        port: u16,
        /// The ports that are reserved.
        reserved: String,
    },
    /// More transparent entries than there are ports for them.
    #[error(
        "expected at most {max} transparent egress entries, found {found}; give the others loopback addresses"
    )]
    TransparentEntries {
        /// How many are there.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// A workload without a namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceUnknown),
    /// A listener where Envoy looks for the application.
    #[error(
        "{what} listens on {address}, where the service mesh reaches the application: any member could use it; choose another address of 127.0.0.0/8"
    )]
    ApplicationAlias {
        /// What listens.
        what: String,
        /// Where.
        address: SocketAddr,
    },
    /// Ingress traffic would leave through an egress listener.
    #[error(
        "ingress {ingress} forwards to {address}, where egress {egress} listens; change the egress listen address"
    )]
    Loop {
        /// The ingress entry.
        ingress: Name,
        /// The egress entry.
        egress: Name,
        /// The address of both.
        address: SocketAddr,
    },
}
