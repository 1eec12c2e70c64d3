//! `envoy.config.listener.v3.Listener`: one per ingress port and egress entry, each a plain TCP proxy.

use serde::Serialize;

use super::{Address, Paths, tls::DownstreamTls};
use crate::model::{EgressRoute, IngressPort, Protection};

/// Longest that a client may take for its TLS handshake; Envoy has no limit of its own.
const HANDSHAKE_TIMEOUT: &str = "10s";

/// A listener. Its name is that of the cluster it proxies to and the prefix of its statistics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    name: String,
    stat_prefix: String,
    address: Address,
    filter_chains: [FilterChain; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct FilterChain {
    #[serde(skip_serializing_if = "Option::is_none")]
    transport_socket: Option<DownstreamTls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport_socket_connect_timeout: Option<&'static str>,
    filters: [Filter; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Filter {
    name: &'static str,
    typed_config: FilterConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "@type")]
enum FilterConfig {
    #[serde(rename = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy")]
    TcpProxy {
        stat_prefix: String,
        cluster: String,
    },
}

impl Listener {
    /// The listener on the pod's address for one ingress port.
    pub fn ingress(port: &IngressPort, paths: &Paths) -> Self {
        let transport_socket = match port.protection {
            Protection::MutualTls => Some(DownstreamTls::new(paths, true)),
            Protection::Tls => Some(DownstreamTls::new(paths, false)),
            Protection::Plain => None,
        };
        Self::tcp_proxy(
            format!("ingress/{}", port.name),
            port.listen.into(),
            transport_socket,
        )
    }

    /// The listener on a loopback alias for one egress entry.
    pub fn egress(route: &EgressRoute) -> Self {
        Self::tcp_proxy(format!("egress/{}", route.name), route.listen.into(), None)
    }

    fn tcp_proxy(name: String, address: Address, transport_socket: Option<DownstreamTls>) -> Self {
        let proxy = FilterConfig::TcpProxy {
            stat_prefix: name.clone(),
            cluster: name.clone(),
        };
        Self {
            stat_prefix: name.clone(),
            name,
            address,
            filter_chains: [FilterChain {
                transport_socket_connect_timeout: transport_socket
                    .is_some()
                    .then_some(HANDSHAKE_TIMEOUT),
                transport_socket,
                filters: [Filter {
                    name: "envoy.filters.network.tcp_proxy",
                    typed_config: proxy,
                }],
            }],
        }
    }
}
