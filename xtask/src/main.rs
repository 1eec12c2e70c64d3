//! Repository tasks, run as `cargo xtask <task>`. Each is what a person would type, in order.

mod book;
mod cross;
mod demo;
mod images;
mod manifests;
mod monitoring;
mod process;
mod sim;
mod skew;
mod tidy;
mod tools;
mod try_docs;
mod vm;
mod web;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use process::{cargo, run};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Repository tasks")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds everything and shows an attested deployment from YAML to mTLS, on this machine.
    Demo(demo::Demo),
    /// Runs all tests: unit, crate and end-to-end.
    Test,
    /// Checks formatting, lints, documentation, licences and repository rules.
    Lint,
    /// Runs the benches whose results are in `docs/performance.md`.
    Bench,
    /// Simulates clusters of Coordinators: `--seed N --seeds COUNT --steps M`; `--help` names the other options.
    Sim {
        /// Put one bug after the other in, and show that the simulation finds it.
        #[arg(long, exclusive = true)]
        mutants: bool,
        /// Options of the simulation.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Checks the model of rejoin and recovery in every state.
    Model {
        /// Also check that each rule that was found to be wrong is caught.
        #[arg(long)]
        mutants: bool,
    },
    /// Runs the tests that need a real kernel, in virtual machines: `cargo xtask vm-test [FILTER]`.
    VmTest {
        /// Also the one that fills a GiB, which takes minutes.
        #[arg(long)]
        long: bool,
        /// Only tests whose name contains it.
        filter: Option<String>,
    },
    /// Builds the programs of an earlier revision and runs the stories in which both builds make one deployment: `cargo xtask skew [FILTER]`.
    Skew(skew::Skew),
    /// Builds the book of `docs` into `target/book` and checks links and diagrams.
    Book,
    /// Types what a page says and compares what is printed: `cargo xtask try-docs [PAGE]...`, the tutorial by default.
    TryDocs {
        /// Pages, from the root of the repository.
        pages: Vec<PathBuf>,
    },
    /// Writes the dashboards and the table of alerts, and checks alert rules, their tests and runbooks, and every expression.
    Monitoring {
        /// Write nothing: what is there must be up to date.
        #[arg(long)]
        check: bool,
    },
    /// Fetches the tools that tests, the demo and the book use (Envoy, cargo-deny, mdBook and others) into `target/tools`.
    Tools,
    /// Renders the chart into `deploy/manifests` and its values into `docs/reference/chart.md`, and validates all that it can render.
    Manifests {
        /// Write nothing; fail where a file differs, or nothing can be rendered.
        #[arg(long)]
        check: bool,
    },
    /// Builds the container images into `target/images`, with what is in them and where it comes from.
    Images(images::Images),
    /// Builds the command for Linux (x86-64 and aarch64, static), Windows and macOS into `target/cross`.
    Cross(cross::Cross),
    /// Builds the SDK's WebAssembly module and the page that verifies a Coordinator in a browser into `target/web`.
    Web,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo(demo) => demo.run(),
        Task::Test => test(),
        Task::Lint => lint(),
        Task::Bench => run(cargo(["bench", "--workspace", "--benches"])),
        Task::Sim { mutants: true, .. } => sim::mutants(),
        Task::Sim { arguments, .. } => sim::simulate(&arguments),
        Task::Model { mutants } => model(mutants),
        Task::VmTest { long, filter } => vm::test(filter.as_deref(), long),
        Task::Monitoring { check: false } => monitoring::write(&workspace_root()),
        Task::Monitoring { check: true } => monitoring::check(&workspace_root()),
        Task::Skew(skew) => skew.run(),
        Task::Tools => tools::fetch_all(),
        Task::Book => book::build(),
        Task::TryDocs { pages } => build_programs().and_then(|()| try_docs::try_pages(&pages)),
        Task::Manifests { check: true } => manifests::check(),
        Task::Manifests { check: false } => manifests::write(),
        Task::Images(images) => images.run(),
        Task::Cross(cross) => cross.run(),
        Task::Web => web::build(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln_chain(&error);
            ExitCode::FAILURE
        }
    }
}

fn test() -> Result<()> {
    build_programs()?;
    tools::envoy_or_explain();
    tools::python_clients_or_explain();
    web::build_or_explain();
    run(cargo(["test", "--workspace", "--no-fail-fast"]))
}

fn model(mutants: bool) -> Result<()> {
    let mut check = cargo(["test", "--release", "--manifest-path", "model/Cargo.toml"]);
    if mutants {
        check.args(["--features", "mutants"]);
    }
    run(check)
}

fn lint() -> Result<()> {
    run(cargo(["fmt", "--all", "--check"]))?;
    tidy::check(&workspace_root())?;
    book::check_summary(&workspace_root())?;
    run(cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))?;
    let mut doc = cargo(["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    run(doc)?;
    manifests::check_or_explain()?;
    run(tools::cargo_deny()?)
}

/// The end-to-end tests, the demo and the tutorial start the real programs, so these must be built first.
fn build_programs() -> Result<()> {
    run(cargo(["build", "--workspace", "--bins", "--examples"]))
}

fn workspace_root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

#[expect(clippy::print_stderr, reason = "the edge where errors reach a person")]
fn eprintln_chain(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  caused by: {cause}");
    }
}
