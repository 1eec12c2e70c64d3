use std::path::PathBuf;

use clap::{Args, Subcommand};
use contrast_resources::CustomTemplate;

use super::FormatArgs;

/// `contrast seal`.
#[derive(Debug, Args)]
pub struct SealArgs {
    /// What to encrypt.
    #[command(subcommand)]
    pub what: SealCommand,
}

/// What can be encrypted to a deployment.
#[derive(Debug, Subcommand)]
pub enum SealCommand {
    /// Encrypt files for applications, in place of a Kubernetes Secret that the host reads
    Secret(SealSecretArgs),
    /// Encrypt the credentials of a registry for the guest that pulls images, in place of imagePullSecrets
    Registry(SealRegistryArgs),
    /// Turn imagePullSecrets of the YAML into sealed credentials, and take the field away
    PullSecrets(SealPullSecretsArgs),
}

/// `contrast seal secret`.
#[derive(Debug, Args)]
pub struct SealSecretArgs {
    /// Name of the secret; pods find its files in `/contrast/sealed/NAME`
    #[arg(value_name = "NAME")]
    pub name: String,

    /// A file of the secret, under the name KEY; may be repeated
    #[arg(long, value_name = "KEY=FILE", required_unless_present = "from_stdin")]
    pub from_file: Vec<String>,

    /// Read the file KEY from standard input
    #[arg(long, value_name = "KEY")]
    pub from_stdin: Option<String>,

    /// Who gets it, and where it is written.
    #[command(flatten)]
    pub target: SealTargetArgs,
}

/// `contrast seal registry`.
#[derive(Debug, Args)]
pub struct SealRegistryArgs {
    /// The registry: HOST or HOST:PORT, as image references begin
    #[arg(value_name = "HOST")]
    pub host: String,

    /// User that logs in; the password comes from standard input
    #[arg(
        long,
        value_name = "USER",
        requires = "password_stdin",
        required_unless_present = "docker_config"
    )]
    pub username: Option<String>,

    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub password_stdin: bool,

    /// Docker's config.json with credentials of the registry
    #[arg(long, value_name = "FILE", conflicts_with = "username")]
    pub docker_config: Option<PathBuf>,

    /// Who gets it, and where it is written.
    #[command(flatten)]
    pub target: SealTargetArgs,
}

/// `contrast seal pull-secrets`.
#[derive(Debug, Args)]
pub struct SealPullSecretsArgs {
    /// YAML files with the workloads and their Secrets, or directories that are searched for them
    #[arg(required = true, value_name = "PATHS")]
    pub paths: Vec<PathBuf>,

    /// Workload that is converted, NAME or KIND/NAME; may be repeated [default: all with imagePullSecrets]
    #[arg(long, value_name = "WORKLOAD")]
    pub pod: Vec<String>,

    /// Manifest, key and shape of the result.
    #[command(flatten)]
    pub deployment: SealDeploymentArgs,
}

/// Who gets a sealed secret, and where it is written.
#[derive(Debug, Args)]
pub struct SealTargetArgs {
    /// YAML files with the workloads, or directories that are searched for them
    #[arg(required = true, value_name = "PATHS")]
    pub paths: Vec<PathBuf>,

    /// Workload that gets it, NAME or KIND/NAME; may be repeated
    #[arg(long, value_name = "WORKLOAD", required = true)]
    pub pod: Vec<String>,

    /// Manifest, key and shape of the result.
    #[command(flatten)]
    pub deployment: SealDeploymentArgs,
}

/// The deployment that can read it.
#[derive(Debug, Args)]
pub struct SealDeploymentArgs {
    /// Manifest to put it in [default: manifest.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Sealing key of the deployment, PEM [default: sealing-key.pem, or else verify/sealing-key.pem]
    #[arg(long, value_name = "FILE")]
    pub sealing_key: Option<PathBuf>,

    /// Pod template of a custom resource, as for `generate`; may be repeated
    #[arg(long, value_name = "KIND=PATH")]
    pub pod_template_path: Vec<CustomTemplate>,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}
