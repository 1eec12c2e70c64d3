//! Network filters: what is done with a connection that was accepted.

use std::{collections::HashMap, time::Duration};

use prost::{Message, Name};

use super::{
    access_log::{self, Subject},
    pb::{
        any, core, http, listener, network_rbac, number, protobuf, rbac, regex, route, router,
        seconds, set_filter_state, tcp_proxy, types,
    },
};
use crate::{annotation::Protocol, peer::WorkloadPattern};

/// Bytes that a client may send before the application is connected, per connection.
const EARLY_BYTES_MAX: u32 = 16 * 1024;

/// Filter state that names the address to which a cluster of the original destination connects.
const DESTINATION: &str = "envoy.network.transport_socket.original_dst_address";

/// One way through Envoy, from a listener to the cluster of the same name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route<'a> {
    /// `ingress` or `egress`.
    pub(crate) direction: &'static str,
    /// Name of the entry.
    pub(crate) entry: &'a str,
    /// What is spoken.
    pub(crate) protocol: Protocol,
    /// Whether requests are logged.
    pub(crate) log: bool,
}

impl Route<'_> {
    /// Name of filter chain and cluster, and prefix of statistics.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.direction, self.entry)
    }

    /// The filter that moves bytes or requests to the cluster.
    pub(crate) fn proxy(&self) -> listener::Filter {
        match self.protocol {
            Protocol::Tcp => self.tcp_proxy(),
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => self.http_proxy(),
        }
    }

    fn tcp_proxy(&self) -> listener::Filter {
        let proxy = tcp_proxy::TcpProxy {
            stat_prefix: self.name(),
            cluster_specifier: Some(tcp_proxy::tcp_proxy::ClusterSpecifier::Cluster(self.name())),
            // The application gives up on connections when it wants to; Envoy would after an hour without bytes.
            idle_timeout: seconds(Duration::ZERO),
            // Whoever fails in the handshake must not even be a connection to the application. Without TLS it has no effect.
            upstream_connect_mode: tcp_proxy::UpstreamConnectMode::OnDownstreamTlsHandshake.into(),
            max_early_data_bytes: number(EARLY_BYTES_MAX),
            ..Default::default()
        };
        filter("envoy.filters.network.tcp_proxy", &proxy)
    }

    fn http_proxy(&self) -> listener::Filter {
        use http::http_connection_manager::{
            CodecType, ForwardClientCertDetails, RouteSpecifier, ServerHeaderTransformation,
            SetCurrentClientCertDetails, UpgradeConfig,
        };

        let is_ingress = self.direction == super::INGRESS;
        let (codec, upgrades) = match self.protocol {
            Protocol::Http2 | Protocol::Grpc => (CodecType::Http2, vec![]),
            Protocol::Tcp | Protocol::Http1 => (
                CodecType::Http1,
                vec![UpgradeConfig {
                    upgrade_type: "websocket".to_owned(),
                    ..Default::default()
                }],
            ),
        };
        let (forward, details) = match is_ingress {
            true => (
                ForwardClientCertDetails::SanitizeSet,
                Some(SetCurrentClientCertDetails {
                    uri: true,
                    ..Default::default()
                }),
            ),
            false => (ForwardClientCertDetails::Sanitize, None),
        };
        let log = access_log::json(Subject::Request, self.direction, self.entry);
        let manager = http::HttpConnectionManager {
            stat_prefix: self.name(),
            codec_type: codec.into(),
            route_specifier: Some(RouteSpecifier::RouteConfig(self.routes(!is_ingress))),
            http_filters: vec![http::HttpFilter {
                name: "envoy.filters.http.router".to_owned(),
                config_type: Some(http::http_filter::ConfigType::TypedConfig(any(
                    &router::Router::default(),
                ))),
                ..Default::default()
            }],
            access_log: self.log.then_some(log).into_iter().collect(),
            forward_client_cert_details: forward.into(),
            set_current_client_cert_details: details,
            upgrade_configs: upgrades,
            // What the application sees is what its peer sent, as far as HTTP allows it.
            server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
            generate_request_id: Some(protobuf::BoolValue { value: false }),
            // From outside, headers that Envoy itself would believe are removed.
            use_remote_address: Some(protobuf::BoolValue { value: is_ingress }),
            stream_idle_timeout: seconds(Duration::ZERO),
            common_http_protocol_options: Some(core::HttpProtocolOptions {
                idle_timeout: seconds(Duration::ZERO),
                ..Default::default()
            }),
            ..Default::default()
        };
        filter("envoy.filters.network.http_connection_manager", &manager)
    }

    fn routes(&self, retries: bool) -> route::RouteConfiguration {
        use route::{
            RetryPolicy, RouteAction, VirtualHost, route::Action, route_action::ClusterSpecifier,
            route_match::PathSpecifier,
        };

        // Only where nothing of the request was handled: it never reached the peer, or the peer says so.
        let retry = RetryPolicy {
            retry_on: match self.protocol {
                Protocol::Grpc => "connect-failure,refused-stream,unavailable",
                _ => "connect-failure,refused-stream",
            }
            .to_owned(),
            num_retries: number(2),
            ..Default::default()
        };
        let action = RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(self.name())),
            timeout: seconds(Duration::ZERO),
            retry_policy: retries.then_some(retry),
            ..Default::default()
        };
        route::RouteConfiguration {
            name: self.name(),
            virtual_hosts: vec![VirtualHost {
                name: "all".to_owned(),
                domains: vec!["*".to_owned()],
                routes: vec![route::Route {
                    r#match: Some(route::RouteMatch {
                        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
                        ..Default::default()
                    }),
                    action: Some(Action::Route(action)),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }
    }
}

/// Lets only these workloads pass. The handshake has refused others already; this one also holds for what a handshake did not look at, and
/// counts. It judges at the first byte, so it could not stand alone: by then the application is connected.
pub(crate) fn allow(stat_prefix: String, workloads: &[WorkloadPattern]) -> listener::Filter {
    use rbac::{permission, principal};

    let principal = |workload: &WorkloadPattern| rbac::Principal {
        identifier: Some(principal::Identifier::Authenticated(
            principal::Authenticated {
                principal_name: Some(regex(workload.spiffe_regex())),
            },
        )),
    };
    let policy = rbac::Policy {
        permissions: vec![rbac::Permission {
            rule: Some(permission::Rule::Any(true)),
        }],
        principals: workloads.iter().map(principal).collect(),
        ..Default::default()
    };
    let filter_config = network_rbac::Rbac {
        stat_prefix: format!("{stat_prefix}."),
        rules: Some(rbac::Rbac {
            action: rbac::rbac::Action::Allow.into(),
            policies: HashMap::from([("allow".to_owned(), policy)]),
            ..Default::default()
        }),
        ..Default::default()
    };
    filter("envoy.filters.network.rbac", &filter_config)
}

/// Sends the connection to `ip` (IPv6 in brackets), at the port that the client addressed.
pub(crate) fn destination(ip: &str) -> listener::Filter {
    use core::{
        DataSource, SubstitutionFormatString, data_source::Specifier,
        substitution_format_string::Format,
    };
    use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::{
        FilterStateValue, filter_state_value,
    };

    let format = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(format!(
                "{ip}:%DOWNSTREAM_LOCAL_PORT%"
            ))),
            ..Default::default()
        })),
        ..Default::default()
    };
    let state = set_filter_state::Config {
        on_new_connection: vec![FilterStateValue {
            key: Some(filter_state_value::Key::ObjectKey(DESTINATION.to_owned())),
            value: Some(filter_state_value::Value::FormatString(format)),
            ..Default::default()
        }],
        ..Default::default()
    };
    filter("envoy.filters.network.set_filter_state", &state)
}

fn filter<M: Message + Name>(name: &str, config: &M) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(any(config))),
    }
}

/// Type of the ports in filter chain matches and predicates.
pub(crate) fn port_range(port: u16) -> types::Int32Range {
    types::Int32Range {
        start: port.into(),
        end: i32::from(port) + 1,
    }
}
