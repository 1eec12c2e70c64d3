use std::path::PathBuf;

use clap::Args;
use contrast_sdk::{Nonce, network::AttestUrl};

use super::{FormatArgs, KubeArgs};
use crate::address::CoordinatorAddress;

/// `contrast verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The manifest that the Coordinator must enforce [default: manifest.json]
    #[arg(short, long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Whom or what to verify.
    #[command(flatten)]
    pub source: SourceArgs,

    /// The nonce that was asked with for the answer of `--answer`: 32 bytes in base64 or base64url
    #[arg(long, value_name = "NONCE", requires = "answer", value_parser = Nonce::parse)]
    pub nonce: Option<Nonce>,

    /// Also write the report as a web page for people, whatever the verdict is
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// What CPU vendors publish, for evidence that comes without it.
    #[command(flatten)]
    pub collateral: contrast_collateral::Options,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Where `contrast verify` has its proof from: exactly one of them.
#[derive(Debug, Args)]
#[group(id = "source", required = true, multiple = false, args = ["coordinator", "kube", "attest_api", "answer"])]
pub struct SourceArgs {
    /// User API of the Coordinator; the port defaults to 1313. May be repeated or comma-separated: the next one is asked when
    /// one is unavailable
    #[arg(short, long, value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub coordinator: Vec<CoordinatorAddress>,

    /// The way into a cluster.
    #[command(flatten)]
    pub kube: KubeArgs,

    /// Attest API of the Coordinator, over plain HTTP or through any proxy, for example http://coordinator:1314
    #[arg(long, value_name = "URL")]
    pub attest_api: Option<AttestUrl>,

    /// Answer of an attest API in a file; nobody is asked. It proves what held when you asked with your nonce
    #[arg(long, value_name = "FILE", requires = "nonce")]
    pub answer: Option<PathBuf>,
}
