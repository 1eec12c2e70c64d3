//! What the command line looks like. Nothing here reads a file or acts.

mod reach;
mod seal;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::FalseyValueParser};
use contrast_resources::CustomTemplate;

pub use crate::commands::{
    attestation::AttestationArgs, audit::AuditArgs, collateral::CollateralArgs, lint::LintArgs,
    manifest::ManifestArgs, measure::MeasureArgs, mesh::MeshArgs, policy::PolicyArgs,
};
pub use reach::{
    CoordinatorArgs, DashboardArgs, DoctorArgs, KubeArgs, ManArgs, PortForwardArgs, VersionArgs,
};
pub use seal::{
    SealArgs, SealCommand, SealDeploymentArgs, SealPullSecretsArgs, SealRegistryArgs,
    SealSecretArgs, SealTargetArgs,
};
pub use verify::{SourceArgs, VerifyArgs};

use crate::{exit, transition::TransitionHash};

/// Run Kubernetes pods as confidential VMs, and prove it
#[derive(Debug, Parser)]
#[command(name = "contrast", version, after_help = exit::HELP, max_term_width = 100)]
#[command(arg_required_else_help = true, propagate_version = false)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArgs,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Directory of files that are not named by a path
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    #[arg(hide_default_value = true)]
    pub workspace_dir: PathBuf,

    /// error, warn, info, debug or trace
    #[arg(hide_possible_values = true)]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "LEVEL",
        default_value = "warn"
    )]
    pub log_level: LogLevel,

    /// auto (unless NO_COLOR is set), always or never
    #[arg(hide_possible_values = true)]
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub color: ColorChoice,
}

/// Severity of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Only errors.
    Error,
    /// And warnings.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Shape of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one JSON document.
    Json,
}

/// Shape of the result on standard output.
#[derive(Debug, Clone, Copy, Args)]
pub struct FormatArgs {
    /// text or json
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    #[arg(hide_possible_values = true)]
    pub format: Format,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prepare Kubernetes YAML for confidential pods and write the manifest
    Generate(GenerateArgs),
    /// Check Kubernetes YAML as one deployment of confidential pods
    Lint(LintArgs),
    /// Attest the Coordinator and set or update its manifest
    Set(SetArgs),
    /// Set the first manifest of a deployment that keeps the seed of an earlier one
    Import(ImportArgs),
    /// Approve an update of the manifest, for somebody else to set
    Sign(SignArgs),
    /// Show what an update changes and which workload owners approved it
    Approvals(ApprovalsArgs),
    /// Encrypt secrets to the deployment, so that the host never reads them
    Seal(SealArgs),
    /// Attest the Coordinator and check that it enforces exactly this manifest
    Verify(VerifyArgs),
    /// Show what a Coordinator says about itself and its cluster
    Status(StatusArgs),
    /// Hand a seed share to a Coordinator that restarted without its seed
    Recover(RecoverArgs),
    /// Show or verify evidence in files, offline
    Attestation(AttestationArgs),
    /// Check and show what Coordinators decided
    Audit(AuditArgs),
    /// Fetch and show what CPU vendors publish about their CPUs
    Collateral(CollateralArgs),
    /// Work on a manifest file
    Manifest(ManifestArgs),
    /// Compute the launch measurements of VMs, and how many vCPUs pods get
    Measure(MeasureArgs),
    /// Say why connections of the service mesh are refused
    Mesh(MeshArgs),
    /// Show, explain, compare and test the policies of pods
    Policy(PolicyArgs),
    /// Serve a page about the deployment on this machine, for people
    Dashboard(DashboardArgs),
    /// Make a Coordinator in a Kubernetes cluster reachable on this machine
    PortForward(PortForwardArgs),
    /// Check this machine, the cluster and the way to both
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Write manual pages
    Man(ManArgs),
    /// Print the version and what this build supports
    Version(VersionArgs),
    /// Make a software TEE for development: INSECURE, protects nothing
    #[cfg(feature = "software-tee")]
    InsecureTee(InsecureTeeArgs),
}

/// `contrast generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// YAML files, or directories that are searched for them
    #[arg(required = true, value_name = "PATHS")]
    pub paths: Vec<PathBuf>,

    /// Manifest to create or update [default: manifest.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// What is known of images [default: image-cache.json]
    #[arg(long, value_name = "FILE")]
    pub image_cache: Option<PathBuf>,

    /// OCI layout or archive to find images in; may be repeated
    #[arg(long, value_name = "PATH")]
    pub image_source: Vec<PathBuf>,

    /// Ask no registry
    #[arg(long, env = "CONTRAST_OFFLINE", hide_env = true, value_parser = FalseyValueParser::new())]
    pub offline: bool,

    /// Ask again what tags mean, also those that are cached
    #[arg(long)]
    pub refresh_tags: bool,

    /// Mirrors and exceptions, as registries.conf of Podman
    #[arg(
        long,
        value_name = "FILE",
        env = "CONTAINERS_REGISTRIES_CONF",
        hide_env = true
    )]
    pub registries_conf: Option<PathBuf>,

    /// CAs for registries beside the system's, PEM
    #[arg(long, value_name = "FILE")]
    pub registry_ca: Option<PathBuf>,

    /// metal-qemu-snp[-gpu], metal-qemu-tdx[-gpu], insecure-snp or insecure-tdx; may be repeated
    #[arg(hide_possible_values = true)]
    #[arg(long, value_enum, value_name = "PLATFORM", ignore_case = true)]
    pub reference_values: Vec<ReferencePlatform>,

    /// Software TEE that the insecure platforms pin
    #[arg(long, value_name = "DIR")]
    pub insecure_software_tee: Option<PathBuf>,

    /// Key that may update the manifest, PEM; may be repeated [default: workload-owner.pem, made when missing]
    #[arg(
        short = 'w',
        long,
        value_name = "FILE",
        conflicts_with = "disable_updates"
    )]
    pub add_workload_owner_key: Vec<PathBuf>,

    /// Key that can recover the Coordinator, PEM; may be repeated [default: seedshare-owner.pem, made when missing]
    #[arg(long, value_name = "FILE")]
    pub add_seedshare_owner_key: Vec<PathBuf>,

    /// Workload owners it takes [default: the manifest's, or 1]
    #[arg(long, value_name = "K", conflicts_with = "disable_updates")]
    pub workload_owner_threshold: Option<u32>,

    /// Seed share owners it takes [default: the manifest's, or 1]
    #[arg(long, value_name = "K")]
    pub seedshare_threshold: Option<u32>,

    /// Make the deployment immutable: nobody may update it
    #[arg(short, long)]
    pub disable_updates: bool,

    /// Keep Coordinator policies of the manifest, for an upgrade
    #[arg(long)]
    pub keep_coordinator: bool,

    /// Do not inject the Initializer
    #[arg(long)]
    pub skip_initializer: bool,

    /// Do not inject the service mesh
    #[arg(long)]
    pub skip_service_mesh: bool,

    /// Give every pod an encrypted disk for its images
    #[arg(long)]
    pub inject_image_store: bool,

    /// Lines `image = replacement`, applied before pinning
    #[arg(long, value_name = "FILE")]
    pub image_replacements: Option<PathBuf>,

    /// Refuse images without a digest instead of pinning tags
    #[arg(long)]
    pub require_digests: bool,

    /// Pod template of a custom resource; may be repeated: argoproj.io/Rollout=.spec.template
    #[arg(long, value_name = "KIND=PATH")]
    pub pod_template_path: Vec<CustomTemplate>,

    /// Write all to one file, DIR/ or `-`, and no input
    #[arg(short, long, value_name = "FILE|DIR|-", conflicts_with = "in_place")]
    pub output: Option<PathBuf>,

    /// Change the inputs, which is the default
    #[arg(long)]
    pub in_place: bool,

    /// Write nothing; show what would change
    #[arg(long, conflicts_with = "check")]
    pub diff: bool,

    /// Write nothing; exit with 3 if anything would change
    #[arg(long)]
    pub check: bool,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Platforms that reference values exist for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReferencePlatform {
    /// Bare metal, QEMU, AMD SEV-SNP
    MetalQemuSnp,
    /// Bare metal, QEMU, AMD SEV-SNP, NVIDIA GPUs
    MetalQemuSnpGpu,
    /// Bare metal, QEMU, Intel TDX
    MetalQemuTdx,
    /// Bare metal, QEMU, Intel TDX, NVIDIA GPUs
    MetalQemuTdxGpu,
    /// Software TEE in SEV-SNP's format: INSECURE
    InsecureSnp,
    /// Software TEE in TDX's format: INSECURE
    InsecureTdx,
}

impl ReferencePlatform {
    /// Whether anyone who holds the software TEE's keys can pass for this platform.
    pub fn is_insecure(self) -> bool {
        matches!(self, Self::InsecureSnp | Self::InsecureTdx)
    }
}

/// `contrast set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// The YAML that `contrast generate` wrote: files, or directories that are searched for them
    #[arg(required = true, value_name = "PATHS")]
    pub paths: Vec<PathBuf>,

    /// Manifest to set [default: manifest.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Where Coordinators may be.
    #[command(flatten)]
    pub coordinators: CoordinatorArgs,

    /// Private key of a workload owner, approves an update; may be repeated [default: workload-owner.pem, if it exists]
    #[arg(long, value_name = "FILE")]
    pub workload_owner_key: Vec<PathBuf>,

    /// Approvals that others made.
    #[command(flatten)]
    pub approvals: ApprovalFiles,

    /// Update only if the Coordinator's latest transition is the one that is expected
    #[arg(long)]
    pub atomic: bool,

    /// The transition that --atomic expects, 64 hex digits [default: the one that the last set, verify or recover saw,
    /// or none]
    #[arg(long, value_name = "HASH", requires = "atomic")]
    pub latest_transition: Option<TransitionHash>,

    /// How many seconds to wait for a Coordinator that is not reachable yet, or has no quorum
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub timeout: u64,

    /// What CPU vendors publish, for evidence that comes without it.
    #[command(flatten)]
    pub collateral: contrast_collateral::Options,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Encrypted seed shares of the earlier deployment, with threshold 1
    #[arg(long, value_name = "FILE")]
    pub import_seed_shares: PathBuf,

    /// Private key of one of its seed share owners, PEM
    #[arg(long, value_name = "FILE")]
    pub import_seedshare_owner_key: PathBuf,

    /// `verify/` of the earlier deployment, as the last `contrast verify` left it: the seed must be that of its root CA, and ids of workload secrets that
    /// the new manifest lacks are named
    #[arg(long, value_name = "DIR")]
    pub import_verified: Option<PathBuf>,

    /// As of `contrast set`.
    #[command(flatten)]
    pub set: SetArgs,
}

/// Approvals in files.
#[derive(Debug, Args)]
pub struct ApprovalFiles {
    /// Approval of a workload owner: what `contrast sign` wrote, or a bare signature; may be repeated
    #[arg(long, value_name = "FILE")]
    pub signature: Vec<PathBuf>,

    /// Public key of a workload owner whose bare signature is given, if the active manifest has its digest only; may be repeated
    #[arg(long, value_name = "FILE", requires = "signature")]
    pub owner_public_key: Vec<PathBuf>,
}

/// `contrast sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// Manifest to approve [default: manifest.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Private key of a workload owner [default: workload-owner.pem]
    #[arg(long, value_name = "FILE", conflicts_with = "prepare")]
    pub workload_owner_key: Option<PathBuf>,

    /// The transition that the manifest is to follow, 64 hex digits [default: the one that the last set, verify or recover saw]
    #[arg(long, value_name = "HASH")]
    pub latest_transition: Option<TransitionHash>,

    /// Write the text that another tool signs, such as one for an HSM: ECDSA on P-384 with SHA-256, ASN.1 DER
    #[arg(long)]
    pub prepare: bool,

    /// Where to write it [default: approval-KEY.json, with the key's digest; with --prepare approval.txt]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast approvals`.
#[derive(Debug, Args)]
pub struct ApprovalsArgs {
    /// Manifest that is proposed [default: manifest.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Approvals so far.
    #[command(flatten)]
    pub approvals: ApprovalFiles,

    /// Where Coordinators may be.
    #[command(flatten)]
    pub coordinators: CoordinatorArgs,

    /// What CPU vendors publish, for evidence that comes without it.
    #[command(flatten)]
    pub collateral: contrast_collateral::Options,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The manifest whose Coordinators are asked [default: manifest.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Where Coordinators may be.
    #[command(flatten)]
    pub coordinators: CoordinatorArgs,

    /// What CPU vendors publish, for evidence that comes without it.
    #[command(flatten)]
    pub collateral: contrast_collateral::Options,

    /// Show it again every SECONDS until interrupted [default: 2]
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast recover`.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// The manifest that the Coordinator was running [default: manifest.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Where Coordinators may be.
    #[command(flatten)]
    pub coordinators: CoordinatorArgs,

    /// Private key of a seed share owner, RSA PEM [default: seedshare-owner.pem]
    #[arg(long, value_name = "FILE")]
    pub seedshare_owner_key: Option<PathBuf>,

    /// Encrypted seed shares as written by `contrast set` [default: seed-shares.json, or else asked of the Coordinator]
    #[arg(long, value_name = "FILE")]
    pub seed_shares: Option<PathBuf>,

    /// Latest transition that you know of, 64 hex digits; a history without it is refused [default: the one that the
    /// last set, verify or recover saw]
    #[arg(long, value_name = "HASH")]
    pub latest_transition: Option<TransitionHash>,

    /// Recover although other recovered Coordinators may be serving
    #[arg(long)]
    pub force: bool,

    /// Recover although the disk's record of the generations of encrypted volumes is missing or forged; an older image of such
    /// a volume is then not noticed when it is opened next
    #[arg(long)]
    pub forget_volumes: bool,

    /// What CPU vendors publish, for evidence that comes without it.
    #[command(flatten)]
    pub collateral: contrast_collateral::Options,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `contrast completion`.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `contrast insecure-tee`.
#[cfg(feature = "software-tee")]
#[derive(Debug, Args)]
pub struct InsecureTeeArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: InsecureTeeCommand,
}

/// What to do with a software TEE.
#[cfg(feature = "software-tee")]
#[derive(Debug, Subcommand)]
pub enum InsecureTeeCommand {
    /// Create a directory with the keys and certificates of a new software TEE
    Init {
        /// Directory to create; must be empty or not exist
        #[arg(value_name = "DIR")]
        dir: PathBuf,

        /// Shape of the result.
        #[command(flatten)]
        format: FormatArgs,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_accepts_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn latest_transition_needs_atomic() {
        let hash = "ab".repeat(32);
        let parse = |extra: &[&str]| {
            Cli::try_parse_from(
                [
                    "contrast",
                    "set",
                    "a.yml",
                    "-c",
                    "host",
                    "--latest-transition",
                    &hash,
                ]
                .iter()
                .chain(extra),
            )
        };
        parse(&["--atomic"]).expect("with --atomic");
        parse(&[]).expect_err("without --atomic");
    }
}
