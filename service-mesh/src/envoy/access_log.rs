//! A line of JSON for each connection or request, on standard output, with the identity of the peer.

use super::pb::{accesslog, any, core, protobuf, stream_log};

/// What a line is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject {
    /// A connection, at its end; also one that was refused in its handshake.
    Connection,
    /// An HTTP request, at its end.
    Request,
}

/// Field of the line and Envoy's word for its value (Envoy documentation, "Command operators").
const COMMON: [(&str, &str); 15] = [
    ("time", "%START_TIME%"),
    ("client", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("local", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("client_identity", "%DOWNSTREAM_PEER_URI_SAN%"),
    ("server", "%UPSTREAM_HOST%"),
    ("server_identity", "%UPSTREAM_PEER_URI_SAN%"),
    ("tls", "%DOWNSTREAM_TLS_VERSION%"),
    ("server_tls", "%UPSTREAM_TLS_VERSION%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration_ms", "%DURATION%"),
    ("flags", "%RESPONSE_FLAGS%"),
    ("refused", "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("server_refused", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("details", "%CONNECTION_TERMINATION_DETAILS%"),
];

const REQUEST: [(&str, &str); 4] = [
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(:PATH)%"),
    ("status", "%RESPONSE_CODE%"),
    ("grpc_status", "%GRPC_STATUS%"),
];

/// The log of `direction` (`ingress` or `egress`).
pub(crate) fn json(subject: Subject, direction: &str, entry: &str) -> accesslog::AccessLog {
    let kind = match subject {
        Subject::Connection => "connection",
        Subject::Request => "request",
    };
    let further: &[(&str, &str)] = match subject {
        Subject::Connection => &[],
        Subject::Request => &REQUEST,
    };
    let fixed = [("log", kind), ("direction", direction), ("entry", entry)];
    let fields = fixed.iter().chain(&COMMON).chain(further);
    let text = |value: &str| protobuf::Value {
        kind: Some(protobuf::value::Kind::StringValue(value.to_owned())),
    };
    let format = core::SubstitutionFormatString {
        format: Some(core::substitution_format_string::Format::JsonFormat(
            protobuf::Struct {
                fields: fields
                    .map(|&(name, value)| (name.to_owned(), text(value)))
                    .collect(),
            },
        )),
        omit_empty_values: true,
        ..Default::default()
    };
    let log = stream_log::StdoutAccessLog {
        access_log_format: Some(stream_log::stdout_access_log::AccessLogFormat::LogFormat(
            format,
        )),
    };
    accesslog::AccessLog {
        name: "envoy.access_loggers.stdout".to_owned(),
        config_type: Some(accesslog::access_log::ConfigType::TypedConfig(any(&log))),
        ..Default::default()
    }
}
