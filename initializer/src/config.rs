use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use contrast_attestation::{IssuerConfig, Tee};
use contrast_mesh_annotation::MESH_API_PORT;
use contrast_telemetry::logging;

use crate::{
    images::{PullImage, ServeImages},
    initdata::CheckInitdata,
    storage::{StandaloneOptions, VolumeOptions},
};

/// Configuration of the Initializer, from flags or environment.
#[derive(Debug, Parser)]
#[command(
    name = "initializer",
    version,
    about = "Fetches a mesh certificate and a workload secret over attested TLS",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Config {
    /// Does something else than to enrol.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Coordinator to enrol with: HOST or HOST:PORT, port 7777 by default.
    #[arg(
        long,
        env = "COORDINATOR_HOST",
        value_name = "HOST[:PORT]",
        required_unless_present = "hold"
    )]
    pub coordinator: Option<String>,

    /// Directory below which files are installed.
    #[arg(
        long,
        env = "CONTRAST_BASE_DIR",
        default_value = "/contrast",
        value_name = "DIR"
    )]
    pub base_dir: PathBuf,

    /// Socket of the SPIFFE Workload API and of secret discovery for Envoy; `off` for none. [default: workload.sock below the base directory]
    #[arg(long, env = "CONTRAST_WORKLOAD_API_SOCKET", value_name = "PATH|off")]
    pub workload_api_socket: Option<PathBuf>,

    /// Socket at which the pod's own user asks for the workload secret; `off` for none. [default: workload-secret.sock below the base directory]
    #[arg(long, env = "CONTRAST_WORKLOAD_SECRET_SOCKET", value_name = "PATH|off")]
    pub workload_secret_socket: Option<PathBuf>,

    /// User that key and secret are given to, so that an application that is not root can read them. Needs root.
    #[arg(long, env = "CONTRAST_FILES_OWNER", value_name = "UID")]
    pub files_owner: Option<u32>,

    /// Directory in memory for the credentials with which the guest pulls images. Without it a pod that has any is refused.
    #[arg(long, env = "CONTRAST_PULL_CREDENTIALS_DIR", value_name = "DIR")]
    pub pull_credentials_dir: Option<PathBuf>,

    /// End after the first successful enrolment instead of staying to renew.
    #[arg(long, env = "CONTRAST_INITIALIZER_ONCE")]
    pub once: bool,

    /// The pod has no service mesh: let in what is new once the certificate is installed, because no sidecar will.
    #[arg(long, env = "CONTRAST_SERVICE_MESH_DISABLED")]
    pub service_mesh_disabled: bool,

    /// Only say by the exit code whether the certificate is installed: for the container's startup probe.
    #[arg(long)]
    pub check_ready: bool,

    /// Do nothing until a termination signal arrives: for a container that only keeps a device in the guest.
    #[arg(long)]
    pub hold: bool,

    /// Encrypted volume that is mounted before the pod is ready.
    #[command(flatten, next_help_heading = "Encrypted volume")]
    pub volume: VolumeOptions,

    /// Give up when the first enrolment did not succeed after this many seconds; 0 means never.
    #[arg(
        long,
        env = "CONTRAST_ENROLL_DEADLINE_S",
        default_value_t = 0,
        value_name = "SECONDS"
    )]
    pub enroll_deadline_s: u64,

    /// Directory of the software TEE to issue evidence with. INSECURE: for development only.
    #[arg(long, env = "CONTRAST_INSECURE_SOFTWARE_TEE", value_name = "DIR")]
    pub insecure_software_tee: Option<PathBuf>,

    /// Kind of evidence that the software TEE issues.
    #[arg(
        long,
        env = "CONTRAST_INSECURE_SOFTWARE_TEE_KIND",
        default_value = "snp",
        value_name = "snp|tdx"
    )]
    pub insecure_software_tee_kind: SoftwareTeeKind,

    /// Initdata document that the software TEE says this pod was started with.
    #[arg(long, env = "CONTRAST_INSECURE_INITDATA", value_name = "FILE")]
    pub insecure_initdata: Option<PathBuf>,

    /// Logs.
    #[command(flatten)]
    pub logging: logging::Options,
}

/// What the Initializer can do besides.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Keep every new connection to this network namespace out, IPv4 and IPv6, until the service mesh is ready. For the guest's boot; may be repeated.
    DenyIngress,
    /// Open an encrypted volume with a workload secret that is installed already, mount it, and close it at SIGTERM.
    Cryptsetup(StandaloneOptions),
    /// Encrypt a device with a key that is drawn now, mount it for unpacked images, and give it up at SIGTERM.
    ImageStore {
        /// Block device; what it holds is lost.
        #[arg(long, default_value = "/dev/image_store", value_name = "DEVICE")]
        device: PathBuf,
        /// Where it is mounted.
        #[arg(long, value_name = "DIR")]
        mount_point: PathBuf,
    },
    /// Compare the document that the host hands over with the one that this guest was started with, and write the agent's policy. For the guest's boot.
    CheckInitdata(CheckInitdata),
    /// Pull an image inside the guest: check all of it against its digest, unpack its layers, and mount them as a root file system.
    PullImage(PullImage),
    /// Pull images for the agent of the guest, which asks at a socket, until SIGTERM. For the guest's boot.
    ServeImages(ServeImages),
}

/// Formats that the software TEE can issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SoftwareTeeKind {
    /// SEV-SNP report.
    Snp,
    /// TDX quote.
    Tdx,
}

impl Config {
    /// The TEE to ask for evidence.
    pub fn issuer(&self) -> IssuerConfig {
        IssuerConfig {
            software_tee: self.insecure_software_tee.clone(),
            software_kind: match self.insecure_software_tee_kind {
                SoftwareTeeKind::Snp => Tee::Snp,
                SoftwareTeeKind::Tdx => Tee::Tdx,
            },
            initdata: self.insecure_initdata.clone(),
        }
    }

    /// `HOST:PORT` of the mesh API. An IPv6 address without a port may come with or without brackets.
    pub fn coordinator_authority(&self) -> String {
        // Only a holder may come without one, and it asks nobody.
        let host = self.coordinator.as_deref().unwrap_or_default();
        if host.parse::<std::net::Ipv6Addr>().is_ok() {
            return format!("[{host}]:{MESH_API_PORT}");
        }
        let after_brackets = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
        match after_brackets.contains(':') {
            true => host.to_owned(),
            false => format!("{host}:{MESH_API_PORT}"),
        }
    }

    /// Where programs of the pod ask for its identity, unless that is switched off.
    pub fn workload_api_socket(&self) -> Option<PathBuf> {
        self.socket(self.workload_api_socket.as_ref(), "workload.sock")
    }

    /// Where the pod's own user asks for the workload secret, unless that is switched off.
    pub fn workload_secret_socket(&self) -> Option<PathBuf> {
        let given = self.workload_secret_socket.as_ref();
        self.socket(given, "workload-secret.sock")
    }

    fn socket(&self, given: Option<&PathBuf>, default: &str) -> Option<PathBuf> {
        match given {
            None => Some(self.base_dir.join(default)),
            Some(path) if path.as_os_str() == "off" => None,
            Some(path) => Some(path.clone()),
        }
    }

    /// How long the first enrolment may take in all.
    pub fn enroll_deadline(&self) -> Option<Duration> {
        (self.enroll_deadline_s > 0).then(|| Duration::from_secs(self.enroll_deadline_s))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use contrast_testbed::reference::{environment, hold};

    use super::*;

    fn authority(coordinator: &str) -> String {
        Config::parse_from(["initializer", "--coordinator", coordinator]).coordinator_authority()
    }

    #[test]
    fn only_a_holder_needs_no_coordinator() {
        assert!(Config::try_parse_from(["initializer"]).is_err());
        assert!(Config::try_parse_from(["initializer", "--check-ready"]).is_err());
        let config = Config::try_parse_from(["initializer", "--hold"]).expect("arguments");
        assert!(config.hold);
    }

    #[test]
    fn sockets_are_below_the_base_directory_unless_told_otherwise() {
        let config = |more: &[&str]| {
            let arguments = ["initializer", "--coordinator=c", "--base-dir=/base"];
            Config::parse_from(arguments.iter().chain(more))
        };
        let api = |more: &[&str]| config(more).workload_api_socket();
        assert_eq!(api(&[]), Some("/base/workload.sock".into()));
        assert_eq!(
            api(&["--workload-api-socket=/run/s"]),
            Some("/run/s".into())
        );
        assert_eq!(api(&["--workload-api-socket=off"]), None);
        let secret = |more: &[&str]| config(more).workload_secret_socket();
        assert_eq!(secret(&[]), Some("/base/workload-secret.sock".into()));
        assert_eq!(
            secret(&["--workload-secret-socket=/run/s"]),
            Some("/run/s".into())
        );
        assert_eq!(secret(&["--workload-secret-socket=off"]), None);
    }

    #[test]
    fn subcommand_stands_alone() {
        let config = Config::try_parse_from(["initializer", "deny-ingress"]).expect("arguments");
        assert!(matches!(config.command, Some(Command::DenyIngress)));
        assert!(Config::try_parse_from(["initializer", "--hold", "deny-ingress"]).is_err());
    }

    #[test]
    fn port_is_added_only_where_none_is_given() {
        assert_eq!(
            authority("coordinator-ready.shop"),
            "coordinator-ready.shop:7777"
        );
        assert_eq!(authority("127.0.0.1:17777"), "127.0.0.1:17777");
        assert_eq!(authority("::1"), "[::1]:7777");
        assert_eq!(authority("[::1]"), "[::1]:7777");
        assert_eq!(authority("[::1]:1234"), "[::1]:1234");
    }

    /// With `UPDATE_REFERENCE=1` the test writes them there.
    #[test]
    fn reference_has_every_variable() {
        let program = Config::command();
        hold("environment.md", "initializer", &environment(&program));
    }
}
