//! The guided tour: real Kubernetes YAML becomes an attested deployment on this machine.

mod owners;
mod replicas;
mod steps;
mod tour;

use std::{process::ExitCode, str::FromStr};

use clap::Parser;
use contrast_e2e::harness::TeeKind;
use steps::say;
use tour::tour;

#[derive(Parser)]
#[command(
    name = "demo",
    about = "Shows an attested deployment from YAML to mTLS on this machine"
)]
struct Arguments {
    /// Keep the demo's files and print where they are.
    #[arg(long)]
    keep: bool,

    /// Evidence that the software TEE issues.
    #[arg(long, value_enum, default_value = "snp")]
    tee: TeeKind,

    /// How many Coordinators to run, 1 to 5. Several run in network namespaces of their own, which needs root, and the one that leads
    /// is killed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: u8,

    /// How many owners there are, and how many of them must agree: 2of3. With one Coordinator only.
    #[arg(long, default_value = "1of1")]
    owners: Owners,
}

/// `2of3`.
#[derive(Clone, Copy)]
struct Owners {
    needed: u8,
    count: u8,
}

impl FromStr for Owners {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |(needed, count): (&str, &str)| {
            let (needed, count) = (needed.parse().ok()?, count.parse().ok()?);
            (1 <= needed && needed <= count).then_some(Self { needed, count })
        };
        let parsed = text.split_once("of").and_then(parse);
        parsed.ok_or_else(|| "expected for example 2of3".to_owned())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match tour(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("\nThe demo failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
