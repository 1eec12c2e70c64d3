//! `contrast mesh`: look at the service mesh from inside a pod.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::{Command as Process, Output as Ended, Stdio},
};

use clap::{Args, Subcommand};
use contrast_clock::{SystemWallClock, WallClock as _};
use contrast_mesh_annotation::{AnnotationError, Egress};
use contrast_mesh_check::{Patience, Pod, Report, State, Target, TargetError, Verdict};
use contrast_policy::{MESH_CHECK, SERVICE_MESH};

use crate::{
    args::{Format, FormatArgs},
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    kube::kubectl,
    output::{Output, Paint, Render},
};

/// Exit code of `service-mesh check` for a wrong target or egress annotation (EX_USAGE of `sysexits.h`).
const REMOTE_USAGE: i32 = 64;
/// How much of what kubectl says is shown, in bytes.
const SAID_MAX: usize = 2_000;

/// `contrast mesh`.
#[derive(Debug, Args)]
pub struct MeshArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: MeshCommand,
}

/// What to do with the mesh.
#[derive(Debug, Subcommand)]
pub enum MeshCommand {
    /// Say why a connection of the service mesh is refused
    Check(CheckArgs),
}

/// `contrast mesh check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Name of an egress entry, or host:port [default: check only the pod itself]
    pub target: Option<String>,

    /// Check in this pod, with kubectl [default: here, inside a pod]
    #[arg(long, conflicts_with = "base_dir")]
    pub pod: Option<String>,

    /// Namespace of the pod
    #[arg(short, long, env = "CONTRAST_NAMESPACE", hide_env = true)]
    pub namespace: Option<String>,

    /// Directory that the Initializer fills
    #[arg(long, value_name = "DIR", default_value = "/contrast")]
    pub base_dir: PathBuf,

    /// Egress entries, as in the annotation servicemesh-egress
    #[arg(long, value_name = "ENTRIES", env = "CONTRAST_EGRESS_PROXY_CONFIG")]
    #[arg(hide_env = true, default_value = "", hide_default_value = true)]
    pub egress: String,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

#[derive(Debug, thiserror::Error)]
enum MeshError {
    #[error(transparent)]
    Egress(#[from] AnnotationError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("`{}` cannot be the name of a {what}", found.escape_debug())]
    Name { what: &'static str, found: String },
    #[error("cannot run `kubectl`")]
    Kubectl(#[source] io::Error),
    #[error("the sidecar of {pod} does not accept the request: {said}")]
    Refused { pod: String, said: String },
    #[error("cannot check in the pod {pod}: {said}")]
    Exec { pod: String, said: String },
    #[error("the policy of the pod {pod} denies the check: {said}")]
    Denied {
        pod: String,
        said: String,
        has_target: bool,
    },
    #[error("the sidecar of {pod} answers something that this version does not understand")]
    Answer {
        pod: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{failed} of {total} checks failed")]
    Failed { failed: usize, total: usize },
}

impl Diagnose for MeshError {
    fn exit(&self) -> Exit {
        match self {
            Self::Egress(_)
            | Self::Target(_)
            | Self::Name { .. }
            | Self::Kubectl(_)
            | Self::Refused { .. } => Exit::Usage,
            Self::Exec { .. } | Self::Denied { .. } | Self::Answer { .. } => Exit::Unavailable,
            Self::Failed { .. } => Exit::Negative,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Kubectl(error) if error.kind() == io::ErrorKind::NotFound => {
                vec!["install kubectl and put it in PATH, or run `service-mesh check` inside the pod".into()]
            }
            Self::Denied { has_target: true, .. } => vec![
                "policies allow the check of the pod itself and none of a target: leave the target out (docs/how-to/mesh-check.md)".into(),
                "read the log of contrast-service-mesh with the annotation `contrast.edgeless.systems/streams: read`, or run the same workload \
                 with another runtimeClassName to debug it"
                    .into(),
            ],
            Self::Denied { .. } => vec![
                "`contrast generate` of this version allows the check in pods with a service mesh: make the pod's policy anew".into(),
            ],
            Self::Exec { .. } => {
                vec!["does the pod run, and does it have the container contrast-service-mesh?".into()]
            }
            Self::Answer { .. } => {
                vec!["use the `contrast` of the release that the pod's images are from".into()]
            }
            Self::Failed { .. } => {
                vec!["docs/how-to/mesh-check.md says what each reason means".into()]
            }
            _ => Vec::new(),
        }
    }
}

impl Render for Report {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        for row in &self.checks {
            let (check, found, expected) = (&row.check, &row.found, &row.expected);
            let mark = match row.state {
                State::Ok => {
                    writeln!(out, "{}  {check}: {found}", paint.good("ok  "))?;
                    continue;
                }
                State::Failed => paint.bad("FAIL"),
                State::Unknown => paint.alarming("?   "),
            };
            writeln!(
                out,
                "{mark}  {check}\n        expected: {expected}\n        found:    {found}"
            )?;
            if let Some(hint) = &row.hint {
                writeln!(out, "        hint:     {hint}")?;
            }
        }
        let count = |state| self.with_state(state).count();
        let subject = self.target.as_deref().unwrap_or("this pod");
        let verdict = match self.verdict {
            Verdict::Passed => paint.good("passed"),
            Verdict::Failed => paint.bad("failed"),
        };
        writeln!(
            out,
            "\n{verdict}: {subject}, {} ok, {} failed, {} unknown",
            count(State::Ok),
            count(State::Failed),
            count(State::Unknown)
        )
    }
}

/// Checks, here or in a pod.
///
/// # Errors
/// When the check cannot be made, or a check failed.
pub(super) fn run(args: &MeshArgs, output: &Output) -> Result<(), Failure> {
    let MeshCommand::Check(args) = &args.command;
    let report = match &args.pod {
        Some(pod) => in_pod(pod, args)?,
        None => here(args)?,
    };
    let format = match args.json {
        true => Format::Json,
        false => args.format.format,
    };
    output.result(format, &report)?;
    match report.verdict {
        Verdict::Passed => Ok(()),
        Verdict::Failed => Err(MeshError::Failed {
            failed: report.with_state(State::Failed).count(),
            total: report.checks.len(),
        }
        .into()),
    }
}

fn here(args: &CheckArgs) -> Result<Report, MeshError> {
    let egress: Egress = args.egress.parse()?;
    let target = args.target.as_deref();
    let target = target.map(|text| Target::find(text, &egress)).transpose()?;
    let pod = Pod {
        tls_config: args.base_dir.join("tls-config"),
        // Of another container: its file and its rules are not seen from here.
        ready_file: None,
        transparent: false,
        namespace: args.namespace.clone(),
    };
    let now = SystemWallClock.now();
    let patience = Patience::default();
    Ok(contrast_mesh_check::check(
        &pod,
        target.as_ref(),
        patience,
        now,
    ))
}

fn in_pod(pod: &str, args: &CheckArgs) -> Result<Report, MeshError> {
    let mut asking = Process::new(kubectl::program());
    asking.args(["exec", name("pod", pod)?]);
    if let Some(namespace) = &args.namespace {
        asking.args(["--namespace", name("namespace", namespace)?]);
    }
    asking.args(["--container", SERVICE_MESH, "--"]);
    asking.args(MESH_CHECK);
    if let Some(target) = &args.target {
        asking.args(["--", target]);
    }
    let ended = asking
        .stdin(Stdio::null())
        .output()
        .map_err(MeshError::Kubectl)?;
    read(pod, args.target.is_some(), &ended)
}

/// A report on standard output counts, whatever the exit code: that says the verdict.
fn read(pod: &str, has_target: bool, ended: &Ended) -> Result<Report, MeshError> {
    let source = match serde_json::from_slice(&ended.stdout) {
        Ok(report) => return Ok(report),
        Err(source) => source,
    };
    let pod = pod.to_owned();
    if ended.status.success() {
        return Err(MeshError::Answer { pod, source });
    }
    let mut said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    let cut = said.floor_char_boundary(SAID_MAX);
    said.truncate(cut);
    Err(match ended.status.code() {
        Some(REMOTE_USAGE) => MeshError::Refused { pod, said },
        _ if said.to_lowercase().contains("policy") => MeshError::Denied {
            pod,
            said,
            has_target,
        },
        _ => MeshError::Exec { pod, said },
    })
}

/// A name for kubectl's command line, which must not read it as an option.
fn name<'a>(what: &'static str, text: &'a str) -> Result<&'a str, MeshError> {
    let of_name = |character: char| character.is_ascii_alphanumeric() || "-./".contains(character);
    match !text.is_empty() && !text.starts_with('-') && text.chars().all(of_name) {
        true => Ok(text),
        false => Err(MeshError::Name {
            what,
            found: text.to_owned(),
        }),
    }
}
