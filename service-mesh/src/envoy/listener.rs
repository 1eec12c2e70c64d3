//! `envoy.config.listener.v3.Listener`: where Envoy takes connections, and which way each of them goes.

use std::{net::SocketAddr, time::Duration};

use contrast_firewall::{APPLICATION_V4, APPLICATION_V6, INGRESS_MTLS_PORT, INGRESS_TLS_PORT};

use super::{
    EGRESS, INGRESS, OTHER, Paths,
    access_log::{self, Subject},
    filters::{self, Route},
    pb::{address, any, listener, number, original_dst, original_src, prefix, seconds, yes},
    tls::{self, Clients},
};
use crate::{
    annotation::Protocol,
    model::{EgressRoute, IngressPort, Mesh, Protection, on_loopback},
    peer::WorkloadPattern,
};

/// Longest that a client may take for its TLS handshake; Envoy has no limit of its own.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that Envoy holds for each direction of a connection before it stops reading: enough for a fast network, and few enough that
/// hundreds of slow readers fit into the sidecar's memory.
const BUFFER_BYTES: u32 = 256 * 1024;

/// The listener on the pod's address for one ingress port.
pub(crate) fn explicit(
    port: &IngressPort,
    listen: SocketAddr,
    mesh: &Mesh,
    paths: &Paths,
) -> listener::Listener {
    let route = Route {
        direction: INGRESS,
        entry: port.name.as_str(),
        protocol: port.protocol,
        log: mesh.connection_log(),
    };
    let chain = listener::FilterChain {
        filters: vec![route.proxy()],
        ..chain(&route, &port.protection, paths)
    };
    base(route, &[listen], vec![chain])
}

/// The listener for the application of one egress entry.
pub(crate) fn egress(entry: &EgressRoute, mesh: &Mesh) -> listener::Listener {
    let route = Route {
        direction: EGRESS,
        entry: entry.name.as_str(),
        protocol: entry.protocol,
        log: mesh.connection_log(),
    };
    let chain = listener::FilterChain {
        name: route.name(),
        filters: vec![route.proxy()],
        ..Default::default()
    };
    base(route, &entry.listens, vec![chain])
}

/// The listeners to which the kernel leads incoming connections: one for clients with a certificate, one for the others. Neither is there
/// when no port needs it.
pub(crate) fn transparent(mesh: &Mesh, ipv6: bool, paths: &Paths) -> Vec<listener::Listener> {
    let with_tls = mesh.ingress().iter();
    let (mutual, anonymous): (Vec<&IngressPort>, Vec<&IngressPort>) = with_tls
        .filter(|port| port.protection != Protection::Plain)
        .partition(|port| matches!(port.protection, Protection::MutualTls { .. }));
    let families = Family::all(ipv6);
    let mut listeners = Vec::new();
    for (ports, listen, name, others) in [
        (
            mutual,
            INGRESS_MTLS_PORT,
            "mutual-tls",
            mesh.serves_other_ports(),
        ),
        (anonymous, INGRESS_TLS_PORT, "tls", false),
    ] {
        let mut chains: Vec<listener::FilterChain> = ports
            .iter()
            .flat_map(|port| {
                families
                    .iter()
                    .map(move |family| redirected(port, *family, mesh, paths))
            })
            .collect();
        if others {
            chains.extend(families.iter().map(|family| other(*family, mesh, paths)));
        }
        if chains.is_empty() {
            continue;
        }
        let route = Route {
            direction: INGRESS,
            entry: name,
            protocol: Protocol::Tcp,
            log: mesh.connection_log(),
        };
        let own_address = ports.iter().filter(|port| port.pod_address);
        listeners.push(listener::Listener {
            transparent: yes(),
            listener_filters: vec![
                // Tells the cluster of the original destination that there is one.
                listener_filter(
                    "envoy.filters.listener.original_dst",
                    any(&original_dst::OriginalDst::default()),
                    None,
                ),
                // Envoy connects to the application from the client's address.
                listener_filter(
                    "envoy.filters.listener.original_src",
                    any(&original_src::OriginalSrc::default()),
                    except(own_address.map(|port| port.port)),
                ),
            ],
            ..base(route, &on_loopback(listen, ipv6), chains)
        });
    }
    listeners
}

#[derive(Debug, Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn all(ipv6: bool) -> &'static [Self] {
        match ipv6 {
            true => &[Self::V4, Self::V6],
            false => &[Self::V4],
        }
    }

    fn everything(self) -> super::pb::core::CidrRange {
        match self {
            Self::V4 => prefix("0.0.0.0", 0),
            Self::V6 => prefix("::", 0),
        }
    }

    /// Where the application is reached.
    fn application(self) -> String {
        match self {
            Self::V4 => APPLICATION_V4.to_string(),
            Self::V6 => format!("[{APPLICATION_V6}]"),
        }
    }
}

fn redirected(
    port: &IngressPort,
    family: Family,
    mesh: &Mesh,
    paths: &Paths,
) -> listener::FilterChain {
    let route = Route {
        direction: INGRESS,
        entry: port.name.as_str(),
        protocol: port.protocol,
        log: mesh.connection_log(),
    };
    let mut filters = Vec::new();
    if let Protection::MutualTls { allow } = &port.protection
        && !allow.is_empty()
    {
        filters.push(filters::allow(route.name(), allow));
    }
    if !port.pod_address {
        filters.push(filters::destination(&family.application()));
    }
    filters.push(route.proxy());
    listener::FilterChain {
        filter_chain_match: Some(listener::FilterChainMatch {
            destination_port: number(port.port.into()),
            prefix_ranges: vec![family.everything()],
            ..Default::default()
        }),
        filters,
        ..chain(&route, &port.protection, paths)
    }
}

/// Ports that no entry names.
fn other(family: Family, mesh: &Mesh, paths: &Paths) -> listener::FilterChain {
    let route = Route {
        direction: INGRESS,
        entry: OTHER,
        protocol: Protocol::Tcp,
        log: mesh.connection_log(),
    };
    listener::FilterChain {
        filter_chain_match: Some(listener::FilterChainMatch {
            prefix_ranges: vec![family.everything()],
            ..Default::default()
        }),
        filters: vec![filters::destination(&family.application()), route.proxy()],
        ..chain(&route, &Protection::MutualTls { allow: vec![] }, paths)
    }
}

/// Name and TLS of an ingress filter chain.
fn chain(route: &Route<'_>, protection: &Protection, paths: &Paths) -> listener::FilterChain {
    let members =
        |allow: &[WorkloadPattern]| tls::downstream(paths, Clients::Members(allow), route.protocol);
    let transport_socket = match protection {
        Protection::MutualTls { allow } => Some(members(allow)),
        Protection::Tls => Some(tls::downstream(paths, Clients::Any, route.protocol)),
        Protection::Plain => None,
    };
    listener::FilterChain {
        name: route.name(),
        transport_socket_connect_timeout: transport_socket
            .is_some()
            .then(|| seconds(HANDSHAKE_TIMEOUT))
            .flatten(),
        transport_socket,
        ..Default::default()
    }
}

/// A listener named after `route`.
fn base(
    route: Route<'_>,
    listens: &[SocketAddr],
    filter_chains: Vec<listener::FilterChain>,
) -> listener::Listener {
    let (first, further) = match listens.split_first() {
        Some((first, further)) => (Some(address(*first)), further),
        None => (None, [].as_slice()),
    };
    let additional = |listen: &SocketAddr| listener::AdditionalAddress {
        address: Some(address(*listen)),
        ..Default::default()
    };
    // The chain's name is the entry's; it is known also for a handshake that fails.
    let log = access_log::json(Subject::Connection, route.direction, "%FILTER_CHAIN_NAME%");
    listener::Listener {
        stat_prefix: route.name(),
        name: route.name(),
        address: first,
        additional_addresses: further.iter().map(additional).collect(),
        filter_chains,
        per_connection_buffer_limit_bytes: number(BUFFER_BYTES),
        access_log: route.log.then_some(log).into_iter().collect(),
        ..Default::default()
    }
}

fn listener_filter(
    name: &str,
    config: super::pb::protobuf::Any,
    filter_disabled: Option<listener::ListenerFilterChainMatchPredicate>,
) -> listener::ListenerFilter {
    listener::ListenerFilter {
        name: name.to_owned(),
        filter_disabled,
        config_type: Some(listener::listener_filter::ConfigType::TypedConfig(config)),
    }
}

/// Not for connections to these ports.
fn except(ports: impl Iterator<Item = u16>) -> Option<listener::ListenerFilterChainMatchPredicate> {
    use listener::{
        ListenerFilterChainMatchPredicate as Predicate,
        listener_filter_chain_match_predicate::{MatchSet, Rule},
    };

    let rules = ports.map(|port| Predicate {
        rule: Some(Rule::DestinationPortRange(filters::port_range(port))),
    });
    let rules: Vec<Predicate> = rules.collect();
    match rules.len() {
        0 | 1 => rules.into_iter().next(),
        // Envoy refuses a set of fewer than two.
        _ => Some(Predicate {
            rule: Some(Rule::OrMatch(MatchSet { rules })),
        }),
    }
}
