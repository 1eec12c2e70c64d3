use anyhow::Result;
use clap::Args;

use crate::{
    build_programs,
    process::{cargo, run},
    tools,
};

/// What the demo shows.
#[derive(Args)]
pub(crate) struct Demo {
    /// Keep the demo's files (manifest, certificates, logs) and print where they are.
    #[arg(long)]
    keep: bool,
    /// Evidence that the software TEE issues: snp or tdx.
    #[arg(long, default_value = "snp")]
    tee: String,
    /// How many Coordinators to run, 1 to 5. Several need root, and the one that leads is killed.
    #[arg(long, default_value_t = 1)]
    replicas: u8,
    /// How many owners there are, and how many of them must agree: 2of3. With one Coordinator only.
    #[arg(long, default_value = "1of1")]
    owners: String,
}

impl Demo {
    /// Builds everything and runs it.
    pub(crate) fn run(&self) -> Result<()> {
        build_programs()?;
        tools::envoy_or_explain();
        let mut demo = cargo([
            "run",
            "--quiet",
            "--package",
            "contrast-e2e",
            "--bin",
            "demo",
            "--",
        ]);
        demo.args(["--tee", &self.tee])
            .args(["--replicas", &self.replicas.to_string()])
            .args(["--owners", &self.owners]);
        if self.keep {
            demo.arg("--keep");
        }
        run(demo)
    }
}
