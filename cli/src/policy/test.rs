//! `contrast policy test`.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use contrast_images::{CacheError, ImageCache};
use contrast_policy::{
    BuildError, CaseVerdict, ConfigObjects, EvaluateError, PodName, PodSource, RecordedCase,
    judge_cases,
};
use contrast_resources::{Step, pod_template_path};
use serde::Serialize;
use serde_json::Value;

use crate::{
    commands::policy::TestArgs,
    deployment::{self, DeploymentError},
    diagnostic::{Diagnose, Failure},
    exit::Exit,
    output::{Output, Paint, Render},
    workspace::{self, IMAGE_CACHE, Workspace, WorkspaceError},
};

const CASES: &str = "testcases.json";

/// A folder that cannot be run.
#[derive(Debug, thiserror::Error)]
enum TestError {
    #[error(transparent)]
    Deployment(#[from] DeploymentError),
    #[error(transparent)]
    File(#[from] WorkspaceError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("cannot search `{}`", path.display())]
    Search {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no folder with a `{CASES}` in {shown}")]
    NoCases { shown: String },
    #[error("`{}` is no list of `{{\"description\", \"kind\", \"request\", \"allowed\"}}`", path.display())]
    Format {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("expected one workload beside `{}`, found {found}", path.display())]
    Pods { path: PathBuf, found: usize },
    #[error("no policy can be made for the pod beside `{}`", path.display())]
    Build {
        path: PathBuf,
        #[source]
        source: Box<BuildError>,
    },
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

impl Diagnose for TestError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Build { .. } => vec![
                "an image needs a digest in the YAML or under `References` of the image cache (`--images`)".into(),
            ],
            Self::Deployment(error) => error.hints(),
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{failed} of {total} cases did not get their verdict")]
struct Failed {
    failed: usize,
    total: usize,
}

impl Diagnose for Failed {
    fn exit(&self) -> Exit {
        Exit::Negative
    }
}

#[derive(Debug, Serialize)]
struct Report {
    passed: usize,
    failed: usize,
    folders: Vec<Folder>,
}

#[derive(Debug, Serialize)]
struct Folder {
    folder: PathBuf,
    /// Why it could not be run; its cases are then not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    cases: Vec<Case>,
}

#[derive(Debug, Serialize)]
struct Case {
    description: String,
    kind: String,
    expected: bool,
    allowed: bool,
    passed: bool,
    /// Why the request was refused; empty if it was allowed, or if its kind never is.
    reason: String,
}

impl Render for Report {
    fn text(&self, out: &mut dyn Write, paint: Paint) -> io::Result<()> {
        let word = |allowed| if allowed { "allowed" } else { "refused" };
        for folder in &self.folders {
            writeln!(
                out,
                "{}",
                paint.strong(&folder.folder.display().to_string())
            )?;
            if let Some(error) = &folder.error {
                writeln!(out, "  {} {error}", paint.bad("cannot be run:"))?;
            }
            for case in &folder.cases {
                let verdict = match case.passed {
                    true => paint.good("ok  "),
                    false => paint.bad("FAIL"),
                };
                writeln!(
                    out,
                    "  {verdict} {}: {}",
                    case.description,
                    word(case.allowed)
                )?;
                if !case.passed {
                    writeln!(out, "       expected it to be {}", word(case.expected))?;
                }
                if !case.reason.is_empty() {
                    writeln!(out, "       {}", case.reason)?;
                }
            }
        }
        writeln!(out, "{} passed, {} failed", self.passed, self.failed)
    }
}

pub(crate) fn run(args: &TestArgs, workspace: &Workspace, output: &Output) -> Result<(), Failure> {
    let images = ImageCache::read(&workspace.choose(args.images.as_deref(), IMAGE_CACHE))
        .map_err(TestError::Cache)?;
    let mut folders = BTreeSet::new();
    for directory in &args.directories {
        search(directory, &mut folders)?;
    }
    if folders.is_empty() {
        let shown: Vec<String> = args
            .directories
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        return Err(TestError::NoCases {
            shown: shown.join(", "),
        }
        .into());
    }
    let mut unusable = None;
    let folders: Vec<Folder> = folders
        .into_iter()
        .map(|folder| {
            run_folder(&folder, &images).unwrap_or_else(|error| {
                let shown = shown_with_causes(&error);
                unusable.get_or_insert(error);
                Folder {
                    folder,
                    error: Some(shown),
                    cases: Vec::new(),
                }
            })
        })
        .collect();
    let cases = || folders.iter().flat_map(|folder| &folder.cases);
    let total = cases().count();
    let passed = cases().filter(|case| case.passed).count();
    let failed = total.saturating_sub(passed);
    let report = Report {
        passed,
        failed,
        folders,
    };
    output.result(args.format.format, &report)?;
    match (unusable, failed) {
        (Some(error), _) => Err(error.into()),
        (None, 0) => Ok(()),
        (None, failed) => Err(Failed { failed, total }.into()),
    }
}

fn shown_with_causes(error: &TestError) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let mut shown = error.to_string();
    for cause in causes {
        shown.push_str(": ");
        shown.push_str(&cause.to_string());
    }
    shown
}

/// Folders with recorded requests. Links to directories are not followed.
fn search(directory: &Path, found: &mut BTreeSet<PathBuf>) -> Result<(), TestError> {
    let failed = |source| TestError::Search {
        path: directory.to_owned(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() == CASES {
            found.insert(directory.to_owned());
        } else if entry.file_type().map_err(failed)?.is_dir() {
            search(&entry.path(), found)?;
        }
    }
    Ok(())
}

fn run_folder(folder: &Path, images: &ImageCache) -> Result<Folder, TestError> {
    let path = folder.join(CASES);
    let bytes = workspace::read("recorded requests", &path, "")?;
    let cases: Vec<RecordedCase> =
        serde_json::from_slice(&bytes).map_err(|source| TestError::Format {
            path: path.clone(),
            source,
        })?;
    let rego = policy(folder, &path, images)?;
    let verdicts = judge_cases(&rego, &cases)?;
    let cases = cases
        .into_iter()
        .zip(verdicts)
        .map(|(case, CaseVerdict { allowed, reason })| Case {
            description: case.description,
            kind: case.kind,
            expected: case.allowed,
            allowed,
            passed: allowed == case.allowed,
            reason,
        });
    Ok(Folder {
        folder: folder.to_owned(),
        error: None,
        cases: cases.collect(),
    })
}

/// Policy of the one workload in a folder's YAML, as it stands: nothing is injected.
fn policy(folder: &Path, cases: &Path, images: &ImageCache) -> Result<String, TestError> {
    let mut files = BTreeSet::new();
    deployment::collect(folder, &mut files)?;
    let mut config = ConfigObjects::default();
    let mut workloads = Vec::new();
    for file in files.iter().filter(|file| file.parent() == Some(folder)) {
        for object in deployment::objects(file)? {
            config.insert(&object);
            if let Some(path) = pod_template_path(&object) {
                workloads.push((object, path));
            }
        }
    }
    let [(object, path)] = workloads.as_slice() else {
        return Err(TestError::Pods {
            path: cases.to_owned(),
            found: workloads.len(),
        });
    };
    let mut template = path.iter().fold(object, |value, step| match step {
        Step::Key(key) => &value[key.as_str()],
        Step::Index(index) => &value[*index],
    });
    let mut pinned = template.clone();
    pin(&mut pinned, images);
    template = &pinned;
    let metadata = &object["metadata"];
    let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) => PodName::Fixed(name),
        (None, prefix) => PodName::Generated(prefix.unwrap_or_default()),
    };
    let source = PodSource {
        kind: object["kind"].as_str().unwrap_or_default(),
        name,
        namespace: metadata["namespace"].as_str(),
        template,
        claims: object["spec"]["volumeClaimTemplates"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default(),
        images,
        config: &config,
    };
    let built = source
        .policy()
        .and_then(|policy| policy.to_rego().map_err(BuildError::from));
    built.map_err(|source| TestError::Build {
        path: cases.to_owned(),
        source: Box::new(source),
    })
}

/// Gives tags the digests that the cache knows.
fn pin(template: &mut Value, images: &ImageCache) {
    for list in ["initContainers", "containers"] {
        let containers = template["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let pinned = container["image"]
                .as_str()
                .and_then(|image| images.pinned(image));
            if let Some(pinned) = pinned {
                container["image"] = pinned.into();
            }
        }
    }
}
