//! `service-mesh check`: why a connection of this pod is refused.

use std::io::{self, Write as _};

use clap::{Args, Subcommand};
use contrast_clock::{SystemWallClock, WallClock as _};
use contrast_mesh_check::{Patience, Pod, Report, State, Target, TargetError, Verdict};

use crate::{
    annotation::{AnnotationError, Egress},
    app::EXIT_USAGE,
    config::{Config, IngressMode},
};

/// Exit code when something is wrong, as `contrast mesh check` has it.
const EXIT_NEGATIVE: u8 = 1;

/// What the program does instead of running the sidecar.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Say why connections of this pod are refused: its own certificates and rules, and the way to TARGET.
    Check(CheckArgs),
}

/// `service-mesh check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Name of an egress entry, or host:port. Without it, only the pod itself is checked.
    pub target: Option<String>,

    /// Print one JSON document instead of text.
    #[arg(long)]
    pub json: bool,
}

/// The check cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// The egress annotation does not follow its grammar.
    #[error(transparent)]
    Egress(#[from] AnnotationError),
    /// There is no such target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The report has no JSON form.
    #[error("cannot encode the report as JSON")]
    Encode(#[from] serde_json::Error),
    /// The report cannot be printed.
    #[error("cannot write to standard output")]
    Write(#[from] io::Error),
}

impl CheckError {
    /// Exit code of the process: [`EXIT_USAGE`] for configuration and target, otherwise that of a failed check.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Egress(_) | Self::Target(_) => EXIT_USAGE,
            Self::Encode(_) | Self::Write(_) => EXIT_NEGATIVE,
        }
    }
}

/// Checks, prints the report and returns the exit code.
///
/// # Errors
/// When the target or the configuration is wrong, or the report cannot be printed.
pub fn run(args: &CheckArgs, config: &Config) -> Result<u8, CheckError> {
    let egress: Egress = config.egress.parse()?;
    let target = args.target.as_deref();
    let target = target.map(|text| Target::find(text, &egress)).transpose()?;
    let pod = Pod {
        tls_config: config.base_dir.join("tls-config"),
        ready_file: Some(config.ready_file.clone()),
        transparent: config.ingress_mode == IngressMode::Transparent,
        namespace: config.namespace.clone(),
    };
    let now = SystemWallClock.now();
    let report = contrast_mesh_check::check(&pod, target.as_ref(), Patience::default(), now);
    let text = match args.json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => text(&report),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(match report.verdict {
        Verdict::Passed => 0,
        Verdict::Failed => EXIT_NEGATIVE,
    })
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for row in &report.checks {
        let mark = match row.state {
            State::Ok => "ok  ",
            State::Failed => "FAIL",
            State::Unknown => "?   ",
        };
        text += &format!("{mark}  {}: {}\n", row.check, row.found);
        if row.state != State::Ok {
            text += &format!("        expected: {}\n", row.expected);
        }
        if let Some(hint) = &row.hint {
            text += &format!("        hint:     {hint}\n");
        }
    }
    text
}
