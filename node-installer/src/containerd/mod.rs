//! The configuration of the host's containerd: where it is, what is added to it, and what containerd makes of it.

mod block;
mod edit;
mod effective;
mod locate;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use edit::{install, uninstall};
pub use effective::{EffectiveError, judge, judge_without};
pub(crate) use effective::{address, not_running};
pub(crate) use locate::{QUICK, as_text, is_template};
pub use locate::{Target, locate};

use crate::{
    config::{Config, Runtime},
    host::HostError,
    path::{HostPath, NotPlain},
    tree::TreeError,
};

/// Whose containerd a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// One of its own.
    Containerd,
    /// That of k3s.
    K3s,
    /// That of RKE2.
    Rke2,
}

impl Dialect {
    /// Where k3s and RKE2 have their configuration.
    const fn directory(self) -> &'static str {
        match self {
            Self::Containerd => "/etc/containerd",
            Self::K3s => "/var/lib/rancher/k3s/agent/etc/containerd",
            Self::Rke2 => "/var/lib/rancher/rke2/agent/etc/containerd",
        }
    }

    /// The units that run it, of which a node has one.
    pub const fn units(self) -> &'static [&'static str] {
        match self {
            Self::Containerd => &["containerd.service"],
            Self::K3s => &["k3s.service", "k3s-agent.service"],
            Self::Rke2 => &["rke2-server.service", "rke2-agent.service"],
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Containerd => "containerd",
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        })
    }
}

/// Version of the configuration's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum Version {
    /// Of containerd 1.
    V2,
    /// Of containerd 2.
    V3,
}

impl Version {
    /// The plugin in which runtimes are configured.
    pub(crate) const fn plugin(self) -> &'static str {
        match self {
            Self::V2 => "io.containerd.grpc.v1.cri",
            Self::V3 => "io.containerd.cri.v1.runtime",
        }
    }
}

impl TryFrom<i64> for Version {
    type Error = String;

    fn try_from(version: i64) -> Result<Self, String> {
        match version {
            2 => Ok(Self::V2),
            3 => Ok(Self::V3),
            other => Err(format!(
                "expected 2 (containerd 1) or 3 (containerd 2), found {other}"
            )),
        }
    }
}

impl From<Version> for i64 {
    fn from(version: Version) -> Self {
        match version {
            Version::V2 => 2,
            Version::V3 => 3,
        }
    }
}

/// What containerd is to know of a runtime.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name of the handler.
    pub handler: String,
    /// The runtime behind it.
    pub runtime: Runtime,
}

impl Entry {
    /// The entry that `config` asks for.
    pub fn of(config: &Config) -> Self {
        Self {
            handler: config.handler.clone(),
            runtime: config.runtime.clone(),
        }
    }
}

/// The configuration of containerd cannot be used or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerdError {
    /// Two kinds of containerd are there.
    #[error(
        "the node has both k3s and RKE2; say which one the kubelet uses with `containerd.dialect`"
    )]
    Ambiguous,
    /// It is no TOML.
    #[error(
        "{file} on the host is no TOML: {message}; repair it, containerd cannot read it either"
    )]
    Toml {
        /// Where it is.
        file: HostPath,
        /// What the parser says.
        message: String,
    },
    /// It is no text.
    #[error("{file} on the host is no UTF-8 text; repair it")]
    NotText {
        /// Where it is.
        file: HostPath,
    },
    /// The format's version is too old or not given, which is the same.
    #[error(
        "{file} on the host has {found}, expected 2 or 3; rewrite it with `containerd config migrate` or put `version = 2` on top of a configuration that is written for it"
    )]
    OldVersion {
        /// Where it is.
        file: HostPath,
        /// What it says.
        found: String,
    },
    /// The format's version is newer than this installer.
    #[error(
        "{file} on the host has version {found}, expected 2 or 3; use a newer release of the installer"
    )]
    NewVersion {
        /// Where it is.
        file: HostPath,
        /// What it says.
        found: String,
    },
    /// There is no configuration, and nothing says what containerd reads.
    #[error(
        "there is no {file} on the host and no containerd that says its version; set `containerd.config_version` to 2 (containerd 1) or 3 (containerd 2)"
    )]
    UnknownVersion {
        /// Where it should be.
        file: HostPath,
    },
    /// k3s has not written its configuration yet.
    #[error(
        "there is no {rendered} on the host; start {dialect} once, or set `containerd.config_version`"
    )]
    NotRendered {
        /// Which.
        dialect: Dialect,
        /// What it would have written.
        rendered: HostPath,
    },
    /// Kubernetes cannot use this containerd.
    #[error(
        "{file} on the host disables `{plugin}`, so the kubelet cannot use this containerd; take it out of `disabled_plugins`"
    )]
    Disabled {
        /// Where it is.
        file: HostPath,
        /// What is disabled.
        plugin: String,
    },
    /// Somebody else configured something under the same name.
    #[error(
        "{file} on the host has a `{table}` of somebody else, with other values; remove it from there"
    )]
    Taken {
        /// Where it is.
        file: HostPath,
        /// What it is.
        table: String,
    },
    /// A marked block was cut.
    #[error(
        "the line `{end}` is missing in the configuration of containerd; remove the block that it ends by hand"
    )]
    Unfinished {
        /// The missing line.
        end: String,
    },
    /// Nothing can be added without changing what is there.
    #[error(
        "cannot add a runtime to {file} on the host: {message}; write its plugins as tables with headers"
    )]
    Stubborn {
        /// Where it is.
        file: HostPath,
        /// Why.
        message: String,
    },
    /// An import is not understood.
    #[error(
        "{file} on the host imports `{import}`, which cannot be followed; name files, or end a plain directory with a pattern"
    )]
    Import {
        /// Where it is.
        file: HostPath,
        /// What it says.
        import: String,
    },
    /// A path is not plain.
    #[error(transparent)]
    Path(#[from] NotPlain),
    /// The host's files are unreadable.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A program of the host did not run.
    #[error(transparent)]
    Host(#[from] HostError),
}
