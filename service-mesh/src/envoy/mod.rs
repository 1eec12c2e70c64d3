//! Envoy's configuration from typed structures, and its admin interface.
//!
//! The structures mirror the part of Envoy's v3 API that the mesh uses, in its canonical JSON form (snake_case names,
//! durations as `"5s"`, extension types under `@type`). They are our own because the generated ones that exist
//! (`envoy-types`) are prost messages without a JSON form and carry the whole API and a gRPC stack. What keeps them
//! honest is Envoy itself: a test has it validate every golden file, and it refuses unknown fields.

use std::{io, path::PathBuf};

use serde::Serialize;

pub mod admin;
pub mod bootstrap;
pub mod cluster;
pub mod listener;
pub mod log;
pub mod tls;

/// Paths that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Directory of the files that the Initializer writes (`<base>/tls-config`).
    pub tls_config: PathBuf,
    /// Private directory of this process: Envoy's configuration and its admin socket.
    pub runtime: PathBuf,
}

impl Paths {
    /// Envoy's bootstrap.
    pub fn bootstrap(&self) -> PathBuf {
        self.runtime.join("bootstrap.json")
    }

    /// Secret discovery file of the workload's certificate and key.
    pub fn certificate_secret(&self) -> PathBuf {
        self.runtime.join("certificate.json")
    }

    /// Secret discovery file of the CA that peers are verified against.
    pub fn peer_ca_secret(&self) -> PathBuf {
        self.runtime.join("peer-ca.json")
    }

    /// Admin socket that serves readiness and draining when no admin port was asked for.
    pub fn admin_socket(&self) -> PathBuf {
        self.runtime.join("admin.sock")
    }
}

/// `envoy.config.core.v3.Address`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// An IP address or DNS name with a TCP port.
    SocketAddress {
        /// Numeric for listeners; a DNS name only in endpoints of DNS clusters.
        address: String,
        /// TCP port.
        port_value: u16,
    },
    /// A Unix domain socket.
    Pipe {
        /// Absolute path, shorter than 108 bytes.
        path: PathBuf,
        /// Permission bits of the socket.
        mode: u32,
    },
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Self::SocketAddress {
            address: address.ip().to_string(),
            port_value: address.port(),
        }
    }
}

/// Text of a configuration file: JSON with two spaces of indentation and a final newline.
///
/// # Errors
/// When a path is not UTF-8.
pub fn to_json(document: &impl Serialize) -> io::Result<String> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(text)
}
