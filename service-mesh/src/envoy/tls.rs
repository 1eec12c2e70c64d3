//! TLS of the mesh: version 1.3 only. Servers always present a certificate, clients of ours too; both verify against the mesh CA.
//!
//! Certificates come through file-based secret discovery, whose `watched_directory` makes Envoy read the files again when
//! one is moved into the directory. So a renewal by rename needs no restart. While a renewal is half done, key and
//! certificate do not match; Envoy refuses that pair, keeps the old one, and takes the new one at the next rename.
//!
//! Session resumption is off: a resumed session would carry a peer verification from before a change of the mesh CA.
//! Names in certificates are not compared: the identity is membership in the manifest generation.

use std::path::PathBuf;

use serde::Serialize;

use super::Paths;

/// File of the workload's certificate and its intermediate, PEM, in the `tls-config` directory.
pub const CERTIFICATE_FILE: &str = "certChain.pem";
/// File of the workload's private key, PKCS#8 PEM.
pub const KEY_FILE: &str = "key.pem";
/// File of the mesh CA certificate, PEM.
pub const PEER_CA_FILE: &str = "mesh-ca.pem";

const CERTIFICATE_SECRET: &str = "mesh_certificate";
const PEER_CA_SECRET: &str = "mesh_ca";

/// Key exchange groups in order of preference: hybrid post-quantum first.
const GROUPS: [&str; 3] = ["X25519MLKEM768", "X25519", "P-256"];

/// Transport socket of an ingress listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DownstreamTls {
    name: &'static str,
    typed_config: DownstreamConfig,
}

/// Transport socket of an egress cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamTls {
    name: &'static str,
    typed_config: UpstreamConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "@type")]
enum DownstreamConfig {
    #[serde(
        rename = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    )]
    Context {
        common_tls_context: CommonTls,
        require_client_certificate: bool,
        disable_stateless_session_resumption: bool,
        disable_stateful_session_resumption: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "@type")]
enum UpstreamConfig {
    #[serde(
        rename = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    )]
    Context {
        common_tls_context: CommonTls,
        #[serde(skip_serializing_if = "Option::is_none")]
        sni: Option<String>,
        max_session_keys: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct CommonTls {
    tls_params: TlsParameters,
    tls_certificate_sds_secret_configs: [SecretConfig; 1],
    validation_context_sds_secret_config: SecretConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct TlsParameters {
    tls_minimum_protocol_version: &'static str,
    tls_maximum_protocol_version: &'static str,
    ecdh_curves: [&'static str; 3],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct SecretConfig {
    name: &'static str,
    sds_config: ConfigSource,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ConfigSource {
    path_config_source: PathConfigSource,
    resource_api_version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PathConfigSource {
    path: PathBuf,
}

const TRANSPORT_SOCKET: &str = "envoy.transport_sockets.tls";

impl DownstreamTls {
    /// Verifies a client certificate under the mesh CA; whether there must be one is `require_client_certificate`.
    pub fn new(paths: &Paths, require_client_certificate: bool) -> Self {
        Self {
            name: TRANSPORT_SOCKET,
            typed_config: DownstreamConfig::Context {
                common_tls_context: CommonTls::new(paths),
                require_client_certificate,
                disable_stateless_session_resumption: true,
                disable_stateful_session_resumption: true,
            },
        }
    }
}

impl UpstreamTls {
    /// Presents the workload's certificate; `sni` is the server name to ask for, none for addresses.
    pub fn mutual(sni: Option<String>, paths: &Paths) -> Self {
        Self {
            name: TRANSPORT_SOCKET,
            typed_config: UpstreamConfig::Context {
                common_tls_context: CommonTls::new(paths),
                sni,
                max_session_keys: 0,
            },
        }
    }
}

impl CommonTls {
    fn new(paths: &Paths) -> Self {
        let secret = |name, path| SecretConfig {
            name,
            sds_config: ConfigSource {
                path_config_source: PathConfigSource { path },
                resource_api_version: "V3",
            },
        };
        Self {
            tls_params: TlsParameters {
                tls_minimum_protocol_version: "TLSv1_3",
                tls_maximum_protocol_version: "TLSv1_3",
                ecdh_curves: GROUPS,
            },
            tls_certificate_sds_secret_configs: [secret(
                CERTIFICATE_SECRET,
                paths.certificate_secret(),
            )],
            validation_context_sds_secret_config: secret(PEER_CA_SECRET, paths.peer_ca_secret()),
        }
    }
}

/// A secret discovery file: `envoy.service.discovery.v3.DiscoveryResponse` with one secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretFile {
    resources: [Secret; 1],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "@type")]
enum Secret {
    #[serde(rename = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret")]
    Secret {
        name: &'static str,
        #[serde(flatten)]
        content: SecretContent,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum SecretContent {
    TlsCertificate {
        certificate_chain: FileSource,
        private_key: FileSource,
        watched_directory: WatchedDirectory,
    },
    ValidationContext {
        trusted_ca: FileSource,
        watched_directory: WatchedDirectory,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct FileSource {
    filename: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct WatchedDirectory {
    path: PathBuf,
}

impl SecretFile {
    /// The workload's certificate and key.
    pub fn certificate(paths: &Paths) -> Self {
        let content = SecretContent::TlsCertificate {
            certificate_chain: file(paths, CERTIFICATE_FILE),
            private_key: file(paths, KEY_FILE),
            watched_directory: WatchedDirectory {
                path: paths.tls_config.clone(),
            },
        };
        Self {
            resources: [Secret::Secret {
                name: CERTIFICATE_SECRET,
                content,
            }],
        }
    }

    /// The CA that peers are verified against.
    pub fn peer_ca(paths: &Paths) -> Self {
        let content = SecretContent::ValidationContext {
            trusted_ca: file(paths, PEER_CA_FILE),
            watched_directory: WatchedDirectory {
                path: paths.tls_config.clone(),
            },
        };
        Self {
            resources: [Secret::Secret {
                name: PEER_CA_SECRET,
                content,
            }],
        }
    }
}

fn file(paths: &Paths, name: &str) -> FileSource {
    FileSource {
        filename: paths.tls_config.join(name),
    }
}
