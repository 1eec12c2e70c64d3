use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::FormatArgs;
use crate::address::CoordinatorAddress;

/// Where Coordinators may be.
#[derive(Debug, Clone, Args)]
pub struct CoordinatorArgs {
    /// User API of the Coordinator; the port defaults to 1313. May be repeated or comma-separated: the next one is asked when
    /// one is unavailable
    #[arg(
        short,
        long,
        value_name = "HOST[:PORT]",
        required_unless_present = "kube",
        conflicts_with = "kube",
        value_delimiter = ','
    )]
    pub coordinator: Vec<CoordinatorAddress>,

    /// The way into a cluster.
    #[command(flatten)]
    pub kube: KubeArgs,
}

/// The way into a Kubernetes cluster.
#[derive(Debug, Clone, Args)]
pub struct KubeArgs {
    /// Reach the Coordinator of this namespace through `kubectl port-forward` [default namespace: the context's]
    #[arg(
        long,
        value_name = "NAMESPACE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    pub kube: Option<String>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "CONTEXT", requires = "kube")]
    pub kube_context: Option<String>,
}

impl KubeArgs {
    /// `None` unless the Coordinator is reached through Kubernetes; inside, the namespace if it is not the context's own.
    pub fn namespace(&self) -> Option<Option<&str>> {
        let name = self.kube.as_deref()?;
        Some(Some(name).filter(|name| !name.is_empty()))
    }
}

/// `contrast port-forward`.
#[derive(Debug, Args)]
pub struct PortForwardArgs {
    /// Namespace of the Coordinator [default: the context's]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "CONTEXT")]
    pub kube_context: Option<String>,

    /// Local port of the user API; 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 1313)]
    pub port: u16,

    /// Local port of the attest API; 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 1314)]
    pub attest_port: u16,
}

/// `contrast doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Namespace of the Coordinator [default: the context's]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Context of the kubeconfig [default: the current one]
    #[arg(long, value_name = "CONTEXT")]
    pub kube_context: Option<String>,

    /// Do not look at a cluster
    #[arg(long)]
    pub no_kube: bool,

    /// How many seconds to wait for each of the vendors' services
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,

    /// What CPU vendors publish, and where it is fetched.
    #[command(flatten)]
    pub collateral: contrast_collateral::Options,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast dashboard`.
#[derive(Debug, Args)]
pub struct DashboardArgs {
    /// The manifest whose Coordinators are asked [default: manifest.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Where Coordinators may be. All of them are asked.
    #[command(flatten)]
    pub coordinators: CoordinatorArgs,

    /// Where to serve the page; loopback only
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8314")]
    pub listen: SocketAddr,

    /// What CPU vendors publish, for evidence that comes without it.
    #[command(flatten)]
    pub collateral: contrast_collateral::Options,
}

/// `contrast man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Directory to write a page for every command to, for example /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// `contrast version`.
#[derive(Debug, Clone, Copy, Args)]
pub struct VersionArgs {
    /// Also the images that `generate` injects, and the launch measurements that this build knows
    #[arg(short, long)]
    pub verbose: bool,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}
