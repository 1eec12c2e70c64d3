//! `envoy.config.bootstrap.v3.Bootstrap`: static resources only, no discovery service, no statistics sink.

use serde::Serialize;

use super::{Address, Paths, cluster::Cluster, listener::Listener};
use crate::model::Mesh;

/// Envoy's bootstrap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bootstrap {
    node: Node,
    admin: Admin,
    static_resources: StaticResources,
}

/// Secret discovery needs a node, also from files. Nobody reads these names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Node {
    id: &'static str,
    cluster: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Admin {
    address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct StaticResources {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listeners: Vec<Listener>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clusters: Vec<Cluster>,
}

impl Bootstrap {
    /// The bootstrap that does what `mesh` says.
    ///
    /// Without an admin port the admin interface is a socket in the private directory, because readiness and draining
    /// go through it; it is then not reachable for anyone else.
    pub fn new(mesh: &Mesh, paths: &Paths) -> Self {
        let admin = mesh.admin().map_or_else(
            || Address::Pipe {
                path: paths.admin_socket(),
                mode: 0o600,
            },
            Address::from,
        );
        let ingress = mesh.ingress().iter();
        let egress = mesh.egress().iter();
        Self {
            node: Node {
                id: "contrast-service-mesh",
                cluster: "contrast",
            },
            admin: Admin { address: admin },
            static_resources: StaticResources {
                listeners: ingress
                    .clone()
                    .map(|port| Listener::ingress(port, paths))
                    .chain(egress.clone().map(Listener::egress))
                    .collect(),
                clusters: ingress
                    .map(Cluster::ingress)
                    .chain(egress.map(|route| Cluster::egress(route, mesh.dns_resolver(), paths)))
                    .collect(),
            },
        }
    }
}
