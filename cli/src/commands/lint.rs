//! `contrast lint`.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use contrast_images::ImageCache;
use contrast_resources::CustomTemplate;

use crate::{
    args::{Format, FormatArgs},
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    generate::{Destination, GenerateError, inputs},
    lint::{
        self, Knowledge,
        report::Report,
        rules::{Rule, Severity},
    },
    output::Output,
    workspace::{IMAGE_CACHE, Workspace},
};

/// `contrast lint`.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// YAML files, or directories that are searched for them
    #[arg(required = true, value_name = "PATHS")]
    pub paths: Vec<PathBuf>,

    /// Do not report this code, may be repeated: C001, or image-without-digest
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    pub allow: Vec<Allowed>,

    /// Warnings are a negative verdict, too
    #[arg(long)]
    pub deny_warnings: bool,

    /// Cache of image configurations: tags that it knows are pinned by generate [default: image-cache.json]
    #[arg(long, value_name = "FILE")]
    pub image_cache: Option<PathBuf>,

    /// Where a custom resource has its pod template, may be repeated:
    /// argoproj.io/Rollout=.spec.template
    #[arg(long, value_name = "KIND=PATH")]
    pub pod_template_path: Vec<CustomTemplate>,

    /// Short for --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Shape of the result.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// A code that is not reported.
#[derive(Debug, Clone, Copy)]
pub struct Allowed(&'static Rule);

impl FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Rule::find(text).map(Self).ok_or_else(|| {
            "expected a code or a name of docs/reference/lint.md, for example C001 or image-without-digest".to_owned()
        })
    }
}

/// The deployment has findings that count.
#[derive(Debug, thiserror::Error)]
#[error("the deployment does not pass: {summary}")]
struct Found {
    summary: String,
}

impl Diagnose for Found {
    fn exit(&self) -> Exit {
        Exit::Negative
    }

    fn hints(&self) -> Vec<String> {
        vec!["`--allow CODE` leaves a code out".into()]
    }
}

/// Checks a deployment.
///
/// # Errors
/// When a file cannot be used, or there are findings that count.
pub(super) fn run(args: &LintArgs, workspace: &Workspace, output: &Output) -> Result<(), Failure> {
    let inputs = inputs::read(&args.paths, &Destination::InPlace)?;
    let cache = workspace.choose(args.image_cache.as_deref(), IMAGE_CACHE);
    let images = ImageCache::read(&cache).map_err(GenerateError::from)?;
    let known = Knowledge {
        templates: &args.pod_template_path,
        images: &images,
    };
    let checked = lint::check(&inputs.sources(), known)?;
    let allowed = |code| args.allow.iter().any(|allowed| allowed.0.code == code);
    let findings = checked.findings.into_iter();
    let findings: Vec<_> = findings.filter(|finding| !allowed(finding.code)).collect();
    for path in &inputs.passed_over {
        output.warning(&format!(
            "passed over {}: it has no Kubernetes objects",
            path.display()
        ));
    }
    if checked.workloads == 0 {
        output.warning("no workload has a `runtimeClassName` that starts with `contrast-cc`");
    }
    let report = Report::new(findings, checked.workloads);
    let format = if args.json {
        Format::Json
    } else {
        args.format.format
    };
    output.result(format, &report)?;
    let counts = |severity| match severity {
        Severity::Error => true,
        Severity::Warning => args.deny_warnings,
        Severity::Advice => false,
    };
    match report
        .findings
        .iter()
        .any(|finding| counts(finding.severity))
    {
        true => Err(Found {
            summary: report.summary(),
        }
        .into()),
        false => Ok(()),
    }
}
