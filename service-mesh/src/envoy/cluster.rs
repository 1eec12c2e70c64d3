//! `envoy.config.cluster.v3.Cluster`: the application behind an ingress port, the remote of an egress entry.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use contrast_firewall::EGRESS_MARK;

use super::{
    EGRESS, INGRESS, Paths,
    pb::{address, any, cares, cluster, core, dns, endpoint, host, number, seconds, upstream_http},
    tls,
};
use crate::{
    annotation::{Host, Protocol},
    model::{EgressRoute, IngressPort},
};

/// Envoy's default, written down because operators ask for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Level of the option, `SOL_SOCKET` of Linux.
const SOL_SOCKET: i64 = 1;
/// The option, `SO_MARK` of Linux.
const SO_MARK: i64 = 36;
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The application behind an ingress port of the explicit mode, in plain text over loopback.
pub(crate) fn application(port: &IngressPort, application: SocketAddr) -> cluster::Cluster {
    let name = format!("{INGRESS}/{}", port.name);
    cluster::Cluster {
        cluster_discovery_type: Some(fixed()),
        load_assignment: Some(single(&name, address(application))),
        ..with_protocol(name, port.protocol)
    }
}

/// The application where a redirected connection leads to, in plain text.
pub(crate) fn original_destination(entry: &str, protocol: Protocol) -> cluster::Cluster {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};

    cluster::Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(
            DiscoveryType::OriginalDst.into(),
        )),
        lb_policy: LbPolicy::ClusterProvided.into(),
        ..with_protocol(format!("{INGRESS}/{entry}"), protocol)
    }
}

/// The remote of an egress entry. Names are resolved by the servers in `/etc/resolv.conf` unless `dns_resolver`
/// is given; the answer is not trusted, the remote's certificate decides. With `marked`, the kernel can tell the connections from those
/// of the application.
pub(crate) fn remote(
    route: &EgressRoute,
    dns_resolver: Option<SocketAddr>,
    marked: bool,
    paths: &Paths,
) -> cluster::Cluster {
    let name = format!("{EGRESS}/{}", route.name);
    let (discovery, remote, server_name) = match &route.remote.host {
        Host::Ip(ip) => (fixed(), ip.to_string(), None),
        Host::Dns(name) => (by_dns(dns_resolver), name.clone(), Some(name.as_str())),
    };
    let mark = core::SocketOption {
        level: SOL_SOCKET,
        name: SO_MARK,
        value: Some(core::socket_option::Value::IntValue(EGRESS_MARK.into())),
        state: core::socket_option::SocketState::StatePrebind.into(),
        ..Default::default()
    };
    cluster::Cluster {
        cluster_discovery_type: Some(discovery),
        load_assignment: Some(single(&name, host(remote, route.remote.port))),
        transport_socket: Some(tls::upstream(
            paths,
            &route.peer,
            server_name,
            route.protocol,
        )),
        upstream_bind_config: marked.then(|| core::BindConfig {
            socket_options: vec![mark],
            ..Default::default()
        }),
        ..with_protocol(name, route.protocol)
    }
}

fn with_protocol(name: String, protocol: Protocol) -> cluster::Cluster {
    use cluster::{CircuitBreakers, circuit_breakers::Thresholds};

    cluster::Cluster {
        name,
        connect_timeout: seconds(CONNECT_TIMEOUT),
        // Envoy's defaults of 1024 would be limits that the application does not know of.
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                max_connections: number(u32::MAX),
                max_pending_requests: number(u32::MAX),
                max_requests: number(u32::MAX),
                ..Default::default()
            }],
            ..Default::default()
        }),
        typed_extension_protocol_options: http_options(protocol),
        ..Default::default()
    }
}

fn http_options(protocol: Protocol) -> HashMap<String, super::pb::protobuf::Any> {
    use upstream_http::http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
    };

    let config = match protocol {
        Protocol::Tcp => return HashMap::new(),
        Protocol::Http1 => ProtocolConfig::HttpProtocolOptions(Default::default()),
        Protocol::Http2 | Protocol::Grpc => {
            ProtocolConfig::Http2ProtocolOptions(Default::default())
        }
    };
    let options = upstream_http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(
            ExplicitHttpConfig {
                protocol_config: Some(config),
            },
        )),
        ..Default::default()
    };
    HashMap::from([(HTTP_OPTIONS.to_owned(), any(&options))])
}

/// The endpoint is an address.
fn fixed() -> cluster::cluster::ClusterDiscoveryType {
    cluster::cluster::ClusterDiscoveryType::Type(cluster::cluster::DiscoveryType::Static.into())
}

/// Every address of the answer is an endpoint; IPv6 addresses only when there are no IPv4 ones. A name that does not resolve yet is usually
/// a Service that is about to be created.
fn by_dns(resolver: Option<SocketAddr>) -> cluster::cluster::ClusterDiscoveryType {
    let resolver = resolver.map(|resolver| core::TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(any(&cares::CaresDnsResolverConfig {
            resolvers: vec![address(resolver)],
            ..Default::default()
        })),
    });
    let config = dns::DnsCluster {
        dns_lookup_family: envoy_types::pb::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily::V4Preferred.into(),
        dns_failure_refresh_rate: Some(dns::dns_cluster::RefreshRate {
            base_interval: seconds(Duration::from_millis(500)),
            max_interval: seconds(Duration::from_secs(5)),
        }),
        typed_dns_resolver_config: resolver,
        ..Default::default()
    };
    cluster::cluster::ClusterDiscoveryType::ClusterType(cluster::cluster::CustomClusterType {
        name: "envoy.cluster.dns".to_owned(),
        typed_config: Some(any(&config)),
    })
}

fn single(name: &str, address: core::Address) -> endpoint::ClusterLoadAssignment {
    use endpoint::{Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier};

    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: vec![LbEndpoint {
                host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                    address: Some(address),
                    ..Default::default()
                })),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}
