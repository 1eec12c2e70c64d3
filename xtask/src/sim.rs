//! The simulation, and the bugs that it has to find.

use anyhow::{Result, bail};

use crate::process::{cargo, run};

/// Cargo features of the Coordinator, each of which puts one bug in.
const MUTANTS: [&str; 7] = [
    "mutant-unproven-secrets",
    "mutant-unconfirmed-reads",
    "mutant-unguarded-recovery",
    "mutant-any-cluster",
    "mutant-reused-identity",
    "mutant-late-key",
    "mutant-unbounded-issuing",
];

/// Within so many seeds each mutant is found.
const SEEDS_FOR_A_MUTANT: &str = "1000";

/// Runs the simulation with `arguments` of its program.
pub(crate) fn simulate(arguments: &[String]) -> Result<()> {
    run(program(&[], arguments))
}

/// Builds each mutant and lets the simulation find it.
pub(crate) fn mutants() -> Result<()> {
    let mut survivors = Vec::new();
    for mutant in MUTANTS {
        println_line(&format!("{mutant}:"));
        let arguments = ["--seeds", SEEDS_FOR_A_MUTANT, "--expect-failure"];
        let arguments = arguments.map(ToOwned::to_owned);
        if let Err(error) = run(program(&["--features", mutant], &arguments)) {
            println_line(&format!("{error:#}"));
            survivors.push(mutant);
        }
    }
    if !survivors.is_empty() {
        bail!("the simulation does not find {}", survivors.join(", "));
    }
    Ok(())
}

fn program(options: &[&str], arguments: &[String]) -> std::process::Command {
    let package = ["--package", "contrast-sim", "--bin", "simulate"];
    let mut command = cargo(["run", "--quiet", "--profile", "sim"]);
    command
        .args(package)
        .args(options)
        .arg("--")
        .args(arguments);
    command
}

#[expect(clippy::print_stdout, reason = "what a person reads")]
fn println_line(line: &str) {
    println!("{line}");
}
