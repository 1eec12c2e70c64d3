//! One module for each command.

mod approvals;
pub mod attestation;
pub mod audit;
pub mod collateral;
mod completion;
mod dashboard;
mod doctor;
mod generate;
mod import;
#[cfg(feature = "software-tee")]
mod insecure_tee;
pub mod lint;
mod man;
pub mod manifest;
pub mod measure;
pub mod mesh;
pub mod policy;
mod port_forward;
mod recover;
mod seal;
mod set;
mod sign;
mod status;
mod verify;
mod version;

use std::io;

use contrast_manifest::{Manifest, ManifestError};
use contrast_telemetry::traces;
use tracing::Instrument as _;

use crate::{
    args::{Cli, Command},
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::Output,
    transition::TransitionHash,
    workspace::{self, KnownTransition, Workspace},
};

/// Runs one command to its end.
///
/// # Errors
/// When the command failed, or its verdict is negative.
pub fn run(cli: &Cli, output: &Output) -> Result<(), Failure> {
    let workspace = || Workspace::open(&cli.global.workspace_dir);
    match &cli.command {
        Command::Generate(args) => generate::run(args, &workspace()?, output),
        Command::Lint(args) => lint::run(args, &workspace()?, output),
        Command::Set(args) => traced("contrast set", set::run(args, &workspace()?, output)),
        Command::Import(args) => {
            traced("contrast import", import::run(args, &workspace()?, output))
        }
        Command::Sign(args) => sign::run(args, &workspace()?, output),
        Command::Approvals(args) => block_on(approvals::run(args, &workspace()?, output)),
        Command::Seal(args) => seal::run(args, &workspace()?, output),
        Command::Verify(args) => {
            traced("contrast verify", verify::run(args, &workspace()?, output))
        }
        Command::Status(args) => {
            traced("contrast status", status::run(args, &workspace()?, output))
        }
        Command::Recover(args) => traced(
            "contrast recover",
            recover::run(args, &workspace()?, output),
        ),
        Command::Attestation(args) => attestation::run(args, output),
        Command::Audit(args) => audit::run(args, || Ok(workspace()?), output),
        Command::Collateral(args) => collateral::run(args, output),
        Command::Manifest(args) => manifest::run(args, &workspace()?, output),
        Command::Measure(args) => measure::run(args, output),
        Command::Mesh(args) => mesh::run(args, output),
        Command::Policy(args) => policy::run(args, &workspace()?, output),
        Command::Completion(args) => completion::run(args, output),
        Command::Dashboard(args) => block_on(dashboard::run(args, &workspace()?, output)),
        Command::PortForward(args) => block_on(port_forward::run(args, output)),
        Command::Doctor(args) => block_on(doctor::run(args, &workspace()?, output)),
        Command::Man(args) => man::run(args),
        Command::Version(args) => version::run(*args, output),
        #[cfg(feature = "software-tee")]
        Command::InsecureTee(args) => insecure_tee::run(args, output),
    }
}

/// The async runtime could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the async runtime")]
struct RuntimeError(#[source] io::Error);

impl Diagnose for RuntimeError {
    fn exit(&self) -> Exit {
        Exit::Internal
    }
}

/// Runs a command that asks Coordinators, as one span.
fn traced<T>(
    name: &'static str,
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    block_on(command.instrument(traces::root(name)))
}

fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(RuntimeError)?
        .block_on(command)
}

/// A manifest file was refused.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` is not a valid manifest")]
struct InvalidManifest {
    path: String,
    #[source]
    source: ManifestError,
}

impl Diagnose for InvalidManifest {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        match self.source.only_gaps() {
            true => vec![format!(
                "fill in the values that your machines need in `{}`, then run this command again",
                self.path
            )],
            false => vec!["edit the file, or remove it and run `contrast generate`".into()],
        }
    }
}

fn read_manifest(path: &std::path::Path) -> Result<Manifest, Failure> {
    let hint = "run `contrast generate`, or name the file with `--manifest`";
    let bytes = workspace::read("manifest", path, hint)?;
    let manifest = Manifest::parse(&bytes).map_err(|source| InvalidManifest {
        path: path.display().to_string(),
        source,
    })?;
    Ok(manifest)
}

fn warn_if_insecure(manifest: &Manifest, output: &Output) {
    if manifest.accepts_insecure_evidence() {
        output.warning(
            "INSECURE: the manifest accepts evidence of a software TEE. Whoever holds its keys can read and change \
             everything; use it for development only",
        );
    }
}

/// An old history that the host put back, or another deployment, must be noticed.
fn warn_about_rollback(known: &[KnownTransition], history: &[TransitionHash], output: &Output) {
    for known in known.iter().filter(|known| !history.contains(&known.hash)) {
        output.warning(&format!(
            "the Coordinator's history does not contain the transition in `{}`: it was rolled back, or this is another \
             deployment",
            known.path.display()
        ));
    }
}
