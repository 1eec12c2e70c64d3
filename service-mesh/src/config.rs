//! Configuration from flags and environment. Every variable, its default and its unit is here.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Parser, ValueEnum, builder::PossibleValuesParser};
use contrast_firewall::Backend;
use contrast_telemetry::logging;

use crate::{
    annotation::{AnnotationError, Egress, Ingress},
    check::Command,
    envoy::log,
    model::{Mesh, Mode, ModelError, Surroundings},
};

/// Levels of Envoy's log.
const ENVOY_LOG_LEVELS: [&str; 8] = [
    "trace", "debug", "info", "warning", "warn", "error", "critical", "off",
];

/// Longest duration that a variable accepts, in seconds: a day.
const MAX_SECONDS: u64 = 24 * 60 * 60;

/// Service mesh sidecar: configures and supervises Envoy.
#[derive(Debug, Clone, Parser)]
#[command(name = "service-mesh", version)]
pub struct Config {
    /// What to do instead of running the sidecar.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Only say by the exit code whether Envoy serves: for the container's startup probe.
    #[arg(long)]
    pub check_ready: bool,

    /// Only print the rules that this configuration makes with nftables, and change nothing.
    #[arg(long)]
    pub print_rules: bool,

    /// Shape and level of the logs.
    #[command(flatten)]
    pub logging: logging::Options,

    /// How traffic reaches Envoy.
    #[arg(
        long,
        env = "CONTRAST_INGRESS_MODE",
        default_value = "transparent",
        value_enum
    )]
    pub ingress_mode: IngressMode,

    /// Ingress entries `name#port#disable-tls`, options behind a further `#`, separated by `##`; or `DISABLED`.
    #[arg(
        long,
        env = "CONTRAST_INGRESS_PROXY_CONFIG",
        default_value = "",
        hide_default_value = true
    )]
    pub ingress: String,

    /// TCP ports that the application declares, for explicit mode. Each demands a mesh certificate of its clients unless an ingress entry names it.
    #[arg(
        long,
        env = "CONTRAST_INGRESS_PORTS",
        value_delimiter = ',',
        value_name = "PORTS",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub ingress_ports: Vec<u16>,

    /// Egress entries `name#127.x.y.z:port#host:port` or `name#transparent#host:port`, options behind a further `#`, separated by `##`.
    #[arg(
        long,
        env = "CONTRAST_EGRESS_PROXY_CONFIG",
        default_value = "",
        hide_default_value = true
    )]
    pub egress: String,

    /// The pod's IP address, on which Envoy serves ingress ports in explicit mode; needed there when there are any.
    #[arg(long, env = "CONTRAST_POD_IP", value_name = "IP")]
    pub pod_ip: Option<IpAddr>,

    /// Loopback address on which the application serves its ports in explicit mode.
    #[arg(
        long,
        env = "CONTRAST_APPLICATION_IP",
        default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST),
        value_name = "IP"
    )]
    pub application_ip: IpAddr,

    /// TCP port of Envoy's admin interface. Without it, there is no admin interface. It also allows destructive calls.
    #[arg(long, env = "CONTRAST_ADMIN_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub admin_port: Option<u16>,

    /// Address on which the admin interface listens, if there is one.
    #[arg(
        long,
        env = "CONTRAST_ADMIN_ADDRESS",
        default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST),
        value_name = "IP"
    )]
    pub admin_address: IpAddr,

    /// Namespace of the pod, for workloads that entries name without one.
    #[arg(long, env = "CONTRAST_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// TCP port on which the sidecar serves metrics for Prometheus, without TLS, on all addresses. Without it, there are none.
    #[arg(long, env = "CONTRAST_METRICS_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub metrics_port: Option<u16>,

    /// Whether Envoy writes a line for each connection and HTTP request to standard output.
    #[arg(
        long,
        env = "CONTRAST_CONNECTION_LOG",
        default_value = "json",
        value_enum
    )]
    pub connection_log: ConnectionLog,

    /// DNS server that resolves egress names, instead of those in /etc/resolv.conf.
    #[arg(long, env = "CONTRAST_DNS_RESOLVER", value_name = "IP:PORT")]
    pub dns_resolver: Option<SocketAddr>,

    /// Directory that the Initializer fills; certificates are in its `tls-config`.
    #[arg(
        long,
        env = "CONTRAST_BASE_DIR",
        default_value = "/contrast",
        value_name = "DIR"
    )]
    pub base_dir: PathBuf,

    /// Directory for the private directory with Envoy's configuration; default: the system's directory for temporary files.
    #[arg(long, env = "CONTRAST_RUNTIME_DIR", value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,

    /// File that exists while Envoy serves; the container's startup probe looks for it.
    #[arg(
        long,
        env = "CONTRAST_READY_FILE",
        default_value = "/ready",
        value_name = "FILE"
    )]
    pub ready_file: PathBuf,

    /// Envoy's executable; a name without `/` is searched in PATH.
    #[arg(
        long,
        env = "CONTRAST_ENVOY_BINARY",
        default_value = "envoy",
        value_name = "FILE"
    )]
    pub envoy_binary: PathBuf,

    /// Level of Envoy's own log; at `info`, Envoy lists all its extensions when it starts.
    #[arg(
        short = 'l',
        long,
        env = "CONTRAST_ENVOY_LOG_LEVEL",
        default_value = "warning",
        value_name = "LEVEL",
        value_parser = PossibleValuesParser::new(ENVOY_LOG_LEVELS)
    )]
    pub envoy_log_level: String,

    /// Levels of parts of Envoy, for example `upstream:debug,connection:trace`.
    #[arg(
        long,
        env = "CONTRAST_ENVOY_COMPONENT_LOG_LEVEL",
        value_name = "LEVELS"
    )]
    pub component_log_level: Option<String>,

    /// Number of Envoy's worker threads; default: one per CPU.
    #[arg(long, env = "CONTRAST_ENVOY_CONCURRENCY", value_name = "THREADS", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub concurrency: Option<u32>,

    /// Longest wait, in seconds, for the Initializer to write certificates.
    #[arg(
        long,
        env = "CONTRAST_CERTIFICATE_TIMEOUT_SECONDS",
        default_value_t = 300,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS)
    )]
    pub certificate_timeout_seconds: u64,

    /// Longest wait, in seconds, for Envoy to become live.
    #[arg(
        long,
        env = "CONTRAST_START_TIMEOUT_SECONDS",
        default_value_t = 30,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS)
    )]
    pub start_timeout_seconds: u64,

    /// Longest wait, in seconds, for open connections to end after SIGTERM; 0 ends them at once.
    #[arg(
        long,
        env = "CONTRAST_DRAIN_TIMEOUT_SECONDS",
        default_value_t = 15,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(0..=MAX_SECONDS)
    )]
    pub drain_timeout_seconds: u64,
}

/// How traffic reaches Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IngressMode {
    /// Rules of the kernel give Envoy every connection; the application listens as it always does. Needs the capability NET_ADMIN.
    Transparent,
    /// Envoy listens on the pod's address on every declared port; the application listens on loopback only.
    Explicit,
}

/// Whether Envoy writes a line for each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConnectionLog {
    /// JSON on standard output.
    Json,
    /// None.
    Off,
}

/// Whether Envoy can listen on `::1`.
fn has_ipv6_loopback() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An annotation does not follow its grammar; both are reported when both do not.
    #[error("{}", Joined(.0))]
    Annotations(Vec<AnnotationError>),
    /// The parts contradict each other.
    #[error(transparent)]
    Model(#[from] ModelError),
}

struct Joined<'a>(&'a [AnnotationError]);

impl std::fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (position, error) in self.0.iter().enumerate() {
            let separator = if position > 0 { "\n" } else { "" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl Config {
    /// The mesh that this configuration asks for.
    ///
    /// # Errors
    /// All problems of both annotations, or all contradictions between their entries and the addresses.
    pub fn mesh(&self) -> Result<Mesh, ConfigError> {
        let (ingress, egress) = match (
            self.ingress.parse::<Ingress>(),
            self.egress.parse::<Egress>(),
        ) {
            (Ok(ingress), Ok(egress)) => (ingress, egress),
            (ingress, egress) => {
                let errors = [ingress.err(), egress.err()];
                return Err(ConfigError::Annotations(
                    errors.into_iter().flatten().collect(),
                ));
            }
        };
        let mode = match self.ingress_mode {
            IngressMode::Explicit => Mode::Explicit {
                pod: self.pod_ip,
                application: self.application_ip,
            },
            IngressMode::Transparent => Mode::Transparent {
                ipv6: has_ipv6_loopback(),
            },
        };
        let surroundings = Surroundings {
            mode,
            namespace: self.namespace.clone(),
            ports: self.ingress_ports.clone(),
            admin: self
                .admin_port
                .map(|port| SocketAddr::new(self.admin_address, port)),
            metrics: self.metrics_port,
            dns_resolver: self.dns_resolver,
            connection_log: self.connection_log == ConnectionLog::Json,
        };
        Ok(Mesh::new(&ingress, &egress, &surroundings)?)
    }

    /// The rules that this configuration makes with nftables, as text for a person.
    ///
    /// # Errors
    /// As [`Config::mesh`].
    pub fn rules(&self) -> Result<String, ConfigError> {
        Ok(match self.mesh()?.redirection() {
            Some(redirection) => Backend::Nftables.text(&redirection),
            None => "# There are no rules: the ingress mode is explicit.\n".to_owned(),
        })
    }

    /// Options for the logs: as configured, with Envoy's events at Envoy's own level unless directives name them.
    pub fn logging(&self) -> logging::Options {
        let mut options = self.logging.clone();
        if !options.log_level.contains(&format!("{}=", log::TARGET)) {
            let level = match self.envoy_log_level.as_str() {
                "warning" => "warn",
                "critical" => "error",
                level => level,
            };
            options.log_level = format!("{},{}={level}", options.log_level, log::TARGET);
        }
        options
    }

    /// Longest wait for the certificate files.
    pub fn certificate_timeout(&self) -> Duration {
        Duration::from_secs(self.certificate_timeout_seconds)
    }

    /// Longest wait for Envoy to become live.
    pub fn start_timeout(&self) -> Duration {
        Duration::from_secs(self.start_timeout_seconds)
    }

    /// Longest wait for open connections to end.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from([&["service-mesh"], arguments].concat())
    }

    #[test]
    fn command_line_definition_is_consistent() {
        use clap::CommandFactory;
        Config::command().debug_assert();
    }

    #[test]
    fn admin_interface_is_on_loopback_unless_asked_otherwise() {
        let admin = |arguments: &[&str]| {
            config(arguments)
                .expect("arguments")
                .mesh()
                .expect("mesh")
                .admin()
        };
        assert_eq!(admin(&[]), None);
        assert_eq!(admin(&["--admin-port=9901"]), "127.0.0.1:9901".parse().ok());
        assert_eq!(
            admin(&["--admin-port=9901", "--admin-address=0.0.0.0"]),
            "0.0.0.0:9901".parse().ok()
        );
    }

    #[test]
    fn problems_of_both_annotations_are_reported_together() {
        let config = config(&["--ingress=web", "--egress=api"]).expect("arguments");
        let text = config.mesh().expect_err("invalid").to_string();
        assert!(
            text.contains("servicemesh-ingress") && text.contains("servicemesh-egress"),
            "{text}"
        );
    }

    #[test]
    fn refuses_values_out_of_range() {
        for argument in [
            "--admin-port=0",
            "--ingress-ports=80,0",
            "--admin-port=65616",
            "--pod-ip=localhost",
            "--dns-resolver=10.0.0.10",
            "--start-timeout-seconds=0",
            "--envoy-log-level=loud",
            "--ingress-mode=redirect",
        ] {
            assert!(config(&[argument]).is_err(), "{argument}");
        }
    }

    #[test]
    fn envoy_is_logged_at_its_own_level_unless_directives_name_it() {
        let level = |arguments: &[&str]| config(arguments).expect("arguments").logging().log_level;
        assert_eq!(
            level(&["--log-level=info", "-l", "debug"]),
            "info,envoy=debug"
        );
        assert_eq!(level(&["--log-level=warn,envoy=error"]), "warn,envoy=error");
        assert_eq!(
            level(&["--log-level=info", "-l", "critical"]),
            "info,envoy=error"
        );
    }
}
