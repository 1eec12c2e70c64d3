//! Envoy's configuration from typed structures, and its admin interface.
//!
//! The structures are those of Envoy's v3 API as `envoy-types` generates them, and are written as binary protobuf, which Envoy reads from files
//! that end with `.pb`. For people there is Envoy itself: `/config_dump` of its admin interface shows what it loaded, and the golden files of
//! the tests are made of that.

use std::path::PathBuf;

mod access_log;
pub mod admin;
mod bootstrap;
mod cluster;
mod filters;
mod listener;
pub mod log;
mod pb;
pub mod tls;

pub use bootstrap::bootstrap;
pub(crate) use tls::{certificate_file, peer_ca_file};

/// Direction of connections to the pod, and first part of names and statistics.
pub const INGRESS: &str = "ingress";
/// Direction of connections from the pod.
pub const EGRESS: &str = "egress";
/// Stands for all ports that no entry names.
pub const OTHER: &str = "other";

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
        self.runtime.join("bootstrap.pb")
    }

    /// Secret discovery file of the workload's certificate and key.
    pub fn certificate_secret(&self) -> PathBuf {
        self.runtime.join("certificate.pb")
    }

    /// Secret discovery file of the CA that peers are verified against.
    pub fn peer_ca_secret(&self) -> PathBuf {
        self.runtime.join("peer-ca.pb")
    }

    /// Admin socket that serves readiness and draining when no admin port was asked for.
    pub fn admin_socket(&self) -> PathBuf {
        self.runtime.join("admin.sock")
    }
}
