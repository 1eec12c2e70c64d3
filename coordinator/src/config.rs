//! Options of the `coordinator` program. Every flag can be given by an environment variable; `--help` lists both.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use contrast_attestation::{IssuerConfig, Tee};
use contrast_telemetry::{drain, logging};

use crate::{AuditLog, peer, replica::Timing};

/// Attests every pod of a deployment against its manifest.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "coordinator", version)]
pub struct Config {
    /// Address of the user API (gRPC over attested TLS), for owners.
    #[arg(
        long,
        env = "CONTRAST_USER_API_ADDRESS",
        default_value = "0.0.0.0:1313",
        value_name = "IP:PORT"
    )]
    pub user_api_address: SocketAddr,

    /// Address of the mesh API (gRPC over mutually attested TLS), for pods.
    #[arg(
        long,
        env = "CONTRAST_MESH_API_ADDRESS",
        default_value = "0.0.0.0:7777",
        value_name = "IP:PORT"
    )]
    pub mesh_api_address: SocketAddr,

    /// Address of the attest API (HTTP), for anybody: evidence, history and CA certificates in one answer.
    #[arg(
        long,
        env = "CONTRAST_ATTEST_API_ADDRESS",
        default_value = "0.0.0.0:1314",
        value_name = "IP:PORT"
    )]
    pub attest_api_address: SocketAddr,

    /// Address of the transit engine (HTTPS with certificates of the mesh), for workloads: a part of Vault's API.
    #[arg(
        long,
        env = "CONTRAST_TRANSIT_API_ADDRESS",
        default_value = "0.0.0.0:8200",
        value_name = "IP:PORT"
    )]
    pub transit_api_address: SocketAddr,

    /// The other replicas.
    #[command(flatten)]
    pub peers: peer::Options,

    /// Address of probes and metrics (HTTP).
    #[arg(
        long,
        env = "CONTRAST_OPS_ADDRESS",
        default_value = "0.0.0.0:9102",
        value_name = "IP:PORT"
    )]
    pub ops_address: SocketAddr,

    /// Directory of the history; must exist and belong to this Coordinator alone. Nothing secret is written there.
    #[arg(
        long,
        env = "CONTRAST_DATA_DIR",
        default_value = "/var/lib/contrast",
        value_name = "DIR"
    )]
    pub data_dir: PathBuf,

    /// How old the last confirmation by a quorum of the replicas may be for certificates to be issued, in seconds. A replica that
    /// is cut off stops after this.
    #[arg(long, env = "CONTRAST_CONFIRMATION_BOUND", default_value = "10", value_name = "SECONDS", value_parser = some_seconds)]
    pub confirmation_bound: Duration,

    /// After how long without a sign of life a replica is removed from the cluster, in seconds. One that restarts is replaced at
    /// once, whatever this says.
    #[arg(long, env = "CONTRAST_DEAD_MEMBER_GRACE", default_value = "300", value_name = "SECONDS", value_parser = some_seconds)]
    pub dead_member_grace: Duration,

    /// How long requests may take to finish after SIGTERM or SIGINT, in seconds.
    #[arg(long, env = "CONTRAST_DRAIN_DEADLINE", default_value = "25", value_name = "SECONDS", value_parser = drain::deadline)]
    pub drain_deadline: Duration,

    /// File that receives the bound addresses as JSON ({"user_api", "mesh_api", "attest_api", "transit_api", "ops"}), written in one piece
    /// when all ports are bound. For port 0.
    #[arg(long, env = "CONTRAST_ADDRESS_FILE", value_name = "FILE")]
    pub address_file: Option<PathBuf>,

    /// Where the audit stream goes: `-` for standard output, `off`, or a file that it is appended to. Every decision is one line; nothing
    /// secret is in it.
    #[arg(
        long,
        env = "CONTRAST_AUDIT_LOG",
        default_value = "-",
        value_name = "FILE"
    )]
    pub audit_log: AuditLog,

    /// Take the guest's default deny away once the APIs listen: nobody else in a Coordinator's pod does. Needs NET_ADMIN.
    #[arg(long, env = "CONTRAST_OPEN_INGRESS")]
    pub open_ingress: bool,

    /// INSECURE: directory of a software TEE to prove this Coordinator with. For development only.
    #[arg(long, env = "CONTRAST_INSECURE_SOFTWARE_TEE", value_name = "DIR")]
    pub insecure_software_tee: Option<PathBuf>,

    /// INSECURE: kind of TEE that the software TEE emulates.
    #[arg(
        long,
        env = "CONTRAST_INSECURE_SOFTWARE_TEE_KIND",
        default_value = "snp"
    )]
    pub insecure_software_tee_kind: TeeKind,

    /// INSECURE: initdata document that the software TEE says it was started with.
    #[arg(long, env = "CONTRAST_INSECURE_INITDATA", value_name = "FILE")]
    pub insecure_initdata: Option<PathBuf>,

    /// What CPU vendors publish, for evidence that comes without it.
    #[command(flatten)]
    pub collateral: contrast_collateral::Options,

    /// Logs.
    #[command(flatten)]
    pub logging: logging::Options,
}

/// Kind of TEE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TeeKind {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
}

impl Config {
    /// How long things take.
    pub fn timing(&self) -> Timing {
        Timing {
            confirmation_bound: self.confirmation_bound,
            dead_member_grace: self.dead_member_grace,
            ..Timing::default()
        }
    }

    /// How to reach the TEE.
    pub fn issuer(&self) -> IssuerConfig {
        IssuerConfig {
            software_tee: self.insecure_software_tee.clone(),
            software_kind: match self.insecure_software_tee_kind {
                TeeKind::Snp => Tee::Snp,
                TeeKind::Tdx => Tee::Tdx,
            },
            initdata: self.insecure_initdata.clone(),
        }
    }
}

fn some_seconds(text: &str) -> Result<Duration, String> {
    const MAX: u64 = 86_400;
    match text.parse() {
        Ok(seconds @ 1..=MAX) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!(
            "expected a whole number of seconds from 1 to {MAX}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use contrast_mesh_annotation::MESH_API_PORT;
    use contrast_testbed::reference::{environment, hold, ports};

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Config::command().debug_assert();
    }

    #[test]
    fn ports_are_those_of_the_architecture() {
        let config = Config::try_parse_from(["coordinator"]).expect("defaults");
        let ports = [
            config.user_api_address,
            config.mesh_api_address,
            config.attest_api_address,
            config.transit_api_address,
            config.ops_address,
        ];
        assert_eq!(
            ports.map(|address| address.port()),
            [1313, MESH_API_PORT, 1314, 8200, 9102]
        );
    }

    #[test]
    fn variables_of_the_chart_are_options() {
        let options = Config::command();
        let known = options.get_arguments().filter_map(clap::Arg::get_env);
        let known: std::collections::BTreeSet<_> =
            known.filter_map(std::ffi::OsStr::to_str).collect();
        for name in ["templates/coordinator.yaml", "values.schema.json"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/chart");
            let text = std::fs::read_to_string(path.join(name)).expect("the chart");
            let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
            let variables: Vec<_> = words.filter(|word| word.starts_with("CONTRAST_")).collect();
            assert!(variables.len() > 4, "{variables:?}");
            for variable in variables {
                assert!(known.contains(variable), "{name}: {variable}");
            }
        }
    }

    #[test]
    fn names_the_option_with_a_bad_value() {
        let arguments = ["coordinator", "--drain-deadline", "soon"];
        let error = Config::try_parse_from(arguments)
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("'soon' for '--drain-deadline <SECONDS>'"),
            "{error}"
        );
        assert!(
            error.contains("expected a whole number of seconds from 0 to 3600"),
            "{error}"
        );
    }

    /// With `UPDATE_REFERENCE=1` the test writes them there.
    #[test]
    fn reference_has_every_variable_and_port() {
        let program = Config::command();
        hold("environment.md", "coordinator", &environment(&program));
        hold("ports.md", "coordinator", &ports(&program));
    }
}
