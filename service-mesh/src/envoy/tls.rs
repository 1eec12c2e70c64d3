//! TLS of the mesh: version 1.3 only. Servers always present a certificate, clients of ours too; both verify against the mesh CA.
//!
//! Certificates come through file-based secret discovery, whose `watched_directory` makes Envoy read the files again when
//! one is moved into the directory. So a renewal by rename needs no restart. While a renewal is half done, key and
//! certificate do not match; Envoy refuses that pair, keeps the old one, and takes the new one at the next rename.
//!
//! Session resumption is off: a resumed session would carry a peer verification from before a change of the mesh CA.
//! Who the peer is gets compared in the handshake, so that a peer with the wrong name reaches nothing behind it.

use std::path::Path;

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use prost::Message;

use super::{
    Paths,
    pb::{any, core, exact, matcher, number, protobuf, regex, text, tls},
};
use crate::{
    annotation::Protocol,
    peer::{Peer, WorkloadPattern},
};

/// File of the workload's certificate and its intermediate, PEM, in the `tls-config` directory.
pub const CERTIFICATE_FILE: &str = "certChain.pem";
/// File of the workload's private key, PKCS#8 PEM.
pub const KEY_FILE: &str = "key.pem";
/// File of the mesh CA certificates, PEM: the current one, and the one before while it is still trusted.
pub const PEER_CA_FILE: &str = "mesh-ca.pem";

const CERTIFICATE_SECRET: &str = "mesh_certificate";
const PEER_CA_SECRET: &str = "mesh_ca";
const TRANSPORT_SOCKET: &str = "envoy.transport_sockets.tls";

/// Key exchange groups in order of preference: hybrid post-quantum first.
const GROUPS: [&str; 3] = ["X25519MLKEM768", "X25519", "P-256"];

/// Whether a client of an ingress listener must present a certificate, and whose.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clients<'a> {
    /// It may; then it must be of the mesh.
    Any,
    /// A member of the mesh; one of these workloads, unless there are none.
    Members(&'a [WorkloadPattern]),
}

/// Transport socket of an ingress listener.
pub(crate) fn downstream(
    paths: &Paths,
    clients: Clients<'_>,
    protocol: Protocol,
) -> core::TransportSocket {
    use tls::downstream_tls_context::SessionTicketKeysType::DisableStatelessSessionResumption;

    let names = match clients {
        Clients::Any => vec![],
        Clients::Members(allowed) => uris(allowed),
    };
    socket(&tls::DownstreamTlsContext {
        common_tls_context: Some(common(paths, names, protocol)),
        require_client_certificate: Some(protobuf::BoolValue {
            value: matches!(clients, Clients::Members(_)),
        }),
        disable_stateful_session_resumption: true,
        session_ticket_keys_type: Some(DisableStatelessSessionResumption(true)),
        ..Default::default()
    })
}

/// Transport socket of an egress cluster. `server_name` is what the client asks for; none for addresses.
pub(crate) fn upstream(
    paths: &Paths,
    peer: &Peer,
    server_name: Option<&str>,
    protocol: Protocol,
) -> core::TransportSocket {
    use tls::subject_alt_name_matcher::SanType;

    let names = match peer {
        Peer::AnyMember => vec![],
        Peer::Dns(name) => vec![name_matcher(SanType::Dns, exact(name))],
        Peer::Ip(ip) => vec![name_matcher(SanType::IpAddress, exact(&ip.to_string()))],
        Peer::Workloads(workloads) => uris(workloads),
    };
    socket(&tls::UpstreamTlsContext {
        common_tls_context: Some(common(paths, names, protocol)),
        sni: server_name.unwrap_or_default().to_owned(),
        max_session_keys: number(0),
        ..Default::default()
    })
}

fn uris(workloads: &[WorkloadPattern]) -> Vec<tls::SubjectAltNameMatcher> {
    let uri = tls::subject_alt_name_matcher::SanType::Uri;
    let matcher = |workload: &WorkloadPattern| name_matcher(uri, regex(workload.spiffe_regex()));
    workloads.iter().map(matcher).collect()
}

fn name_matcher(
    kind: tls::subject_alt_name_matcher::SanType,
    matcher: matcher::StringMatcher,
) -> tls::SubjectAltNameMatcher {
    tls::SubjectAltNameMatcher {
        san_type: kind.into(),
        matcher: Some(matcher),
        ..Default::default()
    }
}

fn socket<M: Message + prost::Name>(context: &M) -> core::TransportSocket {
    core::TransportSocket {
        name: TRANSPORT_SOCKET.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(
            context,
        ))),
    }
}

/// `names`: one of them must be in the peer's certificate, unless there are none.
fn common(
    paths: &Paths,
    names: Vec<tls::SubjectAltNameMatcher>,
    protocol: Protocol,
) -> tls::CommonTlsContext {
    use tls::{
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        tls_parameters::TlsProtocol,
    };

    let alpn: &[&str] = match protocol {
        Protocol::Tcp => &[],
        Protocol::Http1 => &["http/1.1"],
        Protocol::Http2 | Protocol::Grpc => &["h2"],
    };
    let peers = tls::CertificateValidationContext {
        match_typed_subject_alt_names: names,
        ..Default::default()
    };
    tls::CommonTlsContext {
        tls_params: Some(tls::TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ecdh_curves: GROUPS.map(str::to_owned).to_vec(),
            ..Default::default()
        }),
        tls_certificate_sds_secret_configs: vec![secret(
            CERTIFICATE_SECRET,
            &paths.certificate_secret(),
        )],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(peers),
                validation_context_sds_secret_config: Some(secret(
                    PEER_CA_SECRET,
                    &paths.peer_ca_secret(),
                )),
                ..Default::default()
            },
        )),
        alpn_protocols: alpn.iter().map(|&protocol| protocol.to_owned()).collect(),
        ..Default::default()
    }
}

fn secret(name: &str, path: &Path) -> tls::SdsSecretConfig {
    use core::config_source::ConfigSourceSpecifier;

    let source = core::PathConfigSource {
        path: text(path),
        ..Default::default()
    };
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            config_source_specifier: Some(ConfigSourceSpecifier::PathConfigSource(source)),
            resource_api_version: core::ApiVersion::V3.into(),
            ..Default::default()
        }),
    }
}

/// Secret discovery file with the workload's certificate and key.
pub(crate) fn certificate_file(paths: &Paths) -> DiscoveryResponse {
    let certificate = tls::TlsCertificate {
        certificate_chain: Some(file(paths, CERTIFICATE_FILE)),
        private_key: Some(file(paths, KEY_FILE)),
        watched_directory: Some(watched(paths)),
        ..Default::default()
    };
    let secret = tls::secret::Type::TlsCertificate(certificate);
    discovered(CERTIFICATE_SECRET, secret)
}

/// Secret discovery file with the CAs that peers are verified against.
pub(crate) fn peer_ca_file(paths: &Paths) -> DiscoveryResponse {
    let context = tls::CertificateValidationContext {
        trusted_ca: Some(file(paths, PEER_CA_FILE)),
        watched_directory: Some(watched(paths)),
        ..Default::default()
    };
    discovered(
        PEER_CA_SECRET,
        tls::secret::Type::ValidationContext(context),
    )
}

fn discovered(name: &str, secret: tls::secret::Type) -> DiscoveryResponse {
    let secret = tls::Secret {
        name: name.to_owned(),
        r#type: Some(secret),
    };
    DiscoveryResponse {
        resources: vec![any(&secret)],
        ..Default::default()
    }
}

fn file(paths: &Paths, name: &str) -> core::DataSource {
    let path = paths.tls_config.join(name);
    core::DataSource {
        specifier: Some(core::data_source::Specifier::Filename(text(&path))),
        ..Default::default()
    }
}

fn watched(paths: &Paths) -> core::WatchedDirectory {
    core::WatchedDirectory {
        path: text(&paths.tls_config),
        ..Default::default()
    }
}
