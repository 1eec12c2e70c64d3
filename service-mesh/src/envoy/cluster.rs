//! `envoy.config.cluster.v3.Cluster`: the application behind an ingress port, the remote of an egress entry.

use std::net::SocketAddr;

use serde::Serialize;

use super::{Address, Paths, tls::UpstreamTls};
use crate::{
    annotation::Host,
    model::{EgressRoute, IngressPort},
};

/// Envoy's default, written down because operators ask for it.
const CONNECT_TIMEOUT: &str = "5s";

/// The endpoint is an address.
const STATIC: Discovery = Discovery::Type("STATIC");

/// A cluster. Its name is that of the listener that leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cluster {
    name: String,
    #[serde(flatten)]
    discovery: Discovery,
    connect_timeout: &'static str,
    load_assignment: LoadAssignment,
    circuit_breakers: CircuitBreakers,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport_socket: Option<UpstreamTls>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Discovery {
    /// One of Envoy's built-in ways.
    Type(&'static str),
    /// An extension.
    ClusterType(ClusterExtension),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ClusterExtension {
    name: &'static str,
    typed_config: ClusterExtensionConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "@type")]
enum ClusterExtensionConfig {
    /// Successor of the deprecated type `STRICT_DNS`: every address of the answer is an endpoint.
    #[serde(rename = "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster")]
    Dns {
        dns_lookup_family: &'static str,
        all_addresses_in_single_endpoint: bool,
        dns_failure_refresh_rate: FailureRefreshRate,
        #[serde(skip_serializing_if = "Option::is_none")]
        typed_dns_resolver_config: Option<DnsResolver>,
    },
}

/// A name that does not resolve yet is usually a Service that is about to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct FailureRefreshRate {
    base_interval: &'static str,
    max_interval: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct DnsResolver {
    name: &'static str,
    typed_config: DnsResolverConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "@type")]
enum DnsResolverConfig {
    #[serde(
        rename = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
    )]
    Cares { resolvers: [Address; 1] },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct LoadAssignment {
    cluster_name: String,
    endpoints: [LocalityEndpoints; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct LocalityEndpoints {
    lb_endpoints: [LbEndpoint; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct LbEndpoint {
    endpoint: Endpoint,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Endpoint {
    address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct CircuitBreakers {
    thresholds: [Thresholds; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Thresholds {
    max_connections: u32,
    max_pending_requests: u32,
}

impl Cluster {
    /// The application behind an ingress port, in plain text over loopback.
    pub fn ingress(port: &IngressPort) -> Self {
        Self::single(
            format!("ingress/{}", port.name),
            STATIC,
            port.application.into(),
            None,
        )
    }

    /// The remote of an egress entry. Names are resolved by the servers in `/etc/resolv.conf` unless `dns_resolver`
    /// is given; the answer is not trusted, the remote's certificate decides.
    pub fn egress(route: &EgressRoute, dns_resolver: Option<SocketAddr>, paths: &Paths) -> Self {
        let port_value = route.remote.port;
        let (discovery, address, sni) = match &route.remote.host {
            Host::Ip(ip) => (STATIC, ip.to_string(), None),
            Host::Dns(name) => (
                Discovery::strict_dns(dns_resolver),
                name.clone(),
                Some(name.clone()),
            ),
        };
        Self::single(
            format!("egress/{}", route.name),
            discovery,
            Address::SocketAddress {
                address,
                port_value,
            },
            Some(UpstreamTls::mutual(sni, paths)),
        )
    }

    fn single(
        name: String,
        discovery: Discovery,
        address: Address,
        transport_socket: Option<UpstreamTls>,
    ) -> Self {
        Self {
            load_assignment: LoadAssignment {
                cluster_name: name.clone(),
                endpoints: [LocalityEndpoints {
                    lb_endpoints: [LbEndpoint {
                        endpoint: Endpoint { address },
                    }],
                }],
            },
            name,
            discovery,
            connect_timeout: CONNECT_TIMEOUT,
            // Envoy's default of 1024 connections would be a limit that the application does not know of.
            circuit_breakers: CircuitBreakers {
                thresholds: [Thresholds {
                    max_connections: u32::MAX,
                    max_pending_requests: u32::MAX,
                }],
            },
            transport_socket,
        }
    }
}

impl Discovery {
    /// IPv6 addresses only when there are no IPv4 ones.
    fn strict_dns(resolver: Option<SocketAddr>) -> Self {
        let dns = ClusterExtensionConfig::Dns {
            dns_lookup_family: "V4_PREFERRED",
            all_addresses_in_single_endpoint: false,
            dns_failure_refresh_rate: FailureRefreshRate {
                base_interval: "0.5s",
                max_interval: "5s",
            },
            typed_dns_resolver_config: resolver.map(|resolver| DnsResolver {
                name: "envoy.network.dns_resolver.cares",
                typed_config: DnsResolverConfig::Cares {
                    resolvers: [resolver.into()],
                },
            }),
        };
        Self::ClusterType(ClusterExtension {
            name: "envoy.cluster.dns",
            typed_config: dns,
        })
    }
}
