//! Short names for the generated types of Envoy's API, and what every message needs.

use std::{net::SocketAddr, path::Path, time::Duration};

pub(crate) use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3 as accesslog, bootstrap::v3 as bootstrap, cluster::v3 as cluster,
            core::v3 as core, endpoint::v3 as endpoint, listener::v3 as listener,
            overload::v3 as overload, rbac::v3 as rbac, route::v3 as route,
        },
        extensions::{
            access_loggers::stream::v3 as stream_log,
            clusters::dns::v3 as dns,
            filters::{
                http::router::v3 as router,
                listener::{original_dst::v3 as original_dst, original_src::v3 as original_src},
                network::{
                    http_connection_manager::v3 as http, rbac::v3 as network_rbac,
                    set_filter_state::v3 as set_filter_state, tcp_proxy::v3 as tcp_proxy,
                },
            },
            network::dns_resolver::cares::v3 as cares,
            resource_monitors::{
                downstream_connections::v3 as connections_monitor, fixed_heap::v3 as heap_monitor,
            },
            transport_sockets::tls::v3 as tls,
            upstreams::http::v3 as upstream_http,
        },
        r#type::{matcher::v3 as matcher, v3 as types},
    },
    google::protobuf,
};
use prost::{Message, Name};

/// The message as an extension's configuration.
pub(crate) fn any<M: Message + Name>(message: &M) -> protobuf::Any {
    protobuf::Any {
        type_url: format!("type.googleapis.com/{}", M::full_name()),
        value: message.encode_to_vec(),
    }
}

pub(crate) fn yes() -> Option<protobuf::BoolValue> {
    Some(protobuf::BoolValue { value: true })
}

pub(crate) fn number(value: u32) -> Option<protobuf::UInt32Value> {
    Some(protobuf::UInt32Value { value })
}

pub(crate) fn seconds(duration: Duration) -> Option<protobuf::Duration> {
    Some(protobuf::Duration {
        // No duration of ours comes near the limit.
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    })
}

/// An IP address or a name, with a TCP port.
pub(crate) fn host(address: String, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address,
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

pub(crate) fn address(address: SocketAddr) -> core::Address {
    host(address.ip().to_string(), address.port())
}

/// A Unix domain socket.
pub(crate) fn pipe(path: &Path, mode: u32) -> core::Address {
    core::Address {
        address: Some(core::address::Address::Pipe(core::Pipe {
            path: text(path),
            mode,
        })),
    }
}

/// Paths of ours are made from UTF-8 parts; [`super::Paths::check`] has looked at the rest.
pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A network address with the length of its prefix.
pub(crate) fn prefix(address: &str, length: u32) -> core::CidrRange {
    core::CidrRange {
        address_prefix: address.to_owned(),
        prefix_len: number(length),
    }
}

/// The whole text must match the expression (RE2).
pub(crate) fn regex(expression: String) -> matcher::StringMatcher {
    string_matcher(matcher::string_matcher::MatchPattern::SafeRegex(
        matcher::RegexMatcher {
            regex: expression,
            ..Default::default()
        },
    ))
}

pub(crate) fn exact(text: &str) -> matcher::StringMatcher {
    string_matcher(matcher::string_matcher::MatchPattern::Exact(
        text.to_owned(),
    ))
}

fn string_matcher(pattern: matcher::string_matcher::MatchPattern) -> matcher::StringMatcher {
    matcher::StringMatcher {
        match_pattern: Some(pattern),
        ..Default::default()
    }
}
