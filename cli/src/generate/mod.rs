//! Turns Kubernetes YAML into a deployment: injects, pins, makes a policy per pod, and writes the manifest.
//!
//! Everything is computed and checked in memory first (`plan`); only then are files written, each by a rename, so an error
//! or a full disk leaves every file as it was. Running it again on its own output changes nothing.

pub(crate) mod annotations;
mod destination;
mod host_secrets;
mod image_store;
mod images;
pub(crate) mod inject;
mod injection;
pub(crate) mod inputs;
mod manifest;
mod overwritten;
mod owner_keys;
mod plan;
pub(crate) mod platforms;
pub(crate) mod policies;
mod pull_secrets;
pub(crate) mod recognize;
mod sealing;
mod secure_volume;
pub(crate) mod services;
mod vcpus;
mod versions;
mod write;

use std::path::PathBuf;

use contrast_attestation::Tee;
use contrast_images::{CacheError, Progress, ResolveError, ResolverError};
use contrast_manifest::ManifestError;
use contrast_measure::PodError;
use contrast_policy::{BuildError, InitdataError};
use contrast_resources::{CustomTemplate, ResourceError};
use serde::Serialize;

pub use destination::{Destination, Mode};
pub use images::ImageOptions;
pub use inject::{Injected, injected};
pub use manifest::reference_values;
pub use platforms::Platform;
pub use pull_secrets::{Converted, seal_pull_secrets};
pub use sealing::{SealError, SealOptions, SealPlace, SealedFor, seal};

use crate::{
    diagnostic::Diagnose,
    exit::Exit,
    lint::{self, Finding, LintError},
};

/// What to generate, and from what.
#[derive(Debug, Clone)]
pub struct Options {
    /// YAML files, or directories that are searched for them.
    pub paths: Vec<PathBuf>,
    /// Manifest to create or update.
    pub manifest: PathBuf,
    /// Where images are looked for.
    pub images: ImageOptions,
    /// Reference values of a new manifest.
    pub reference_values: Vec<ReferenceValuesChoice>,
    /// Keys that may update the manifest; a file that does not exist is created only if `create_keys`.
    pub workload_owner_keys: Vec<PathBuf>,
    /// Keys that can recover; as above.
    pub seedshare_owner_keys: Vec<PathBuf>,
    /// Whether missing key files are created: when the user named none and the defaults are used.
    pub create_workload_owner_key: bool,
    /// As above, for the seed share owner.
    pub create_seedshare_owner_key: bool,
    /// How many workload owners must agree to an update; what the manifest says if `None`.
    pub workload_owner_threshold: Option<u32>,
    /// How many seed share owners recover together; as above.
    pub seedshare_threshold: Option<u32>,
    /// Nobody may update the manifest.
    pub disable_updates: bool,
    /// Coordinator policies of the existing manifest stay in it.
    pub keep_coordinator: bool,
    /// Do not inject the Initializer.
    pub skip_initializer: bool,
    /// Do not inject the service mesh.
    pub skip_service_mesh: bool,
    /// Give every pod an encrypted disk for its images.
    pub inject_image_store: bool,
    /// File of `image = replacement` lines.
    pub image_replacements: Option<PathBuf>,
    /// Refuse images without a digest, also if the image cache knows one.
    pub require_digests: bool,
    /// Where custom resources have their pod templates.
    pub pod_template_paths: Vec<CustomTemplate>,
    /// Where the changed resources go.
    pub destination: Destination,
    /// Whether files are written.
    pub mode: Mode,
}

/// A platform whose reference values a new manifest gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReferenceValuesChoice {
    /// Hardware; the operator fills in what only they can know.
    Metal(Platform),
    /// The software TEE in this directory.
    Insecure {
        /// Its directory.
        directory: PathBuf,
        /// Format of its evidence.
        tee: Tee,
    },
}

/// What was generated.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The manifest's path.
    pub manifest: PathBuf,
    /// SHA-256 of the manifest, hex.
    pub manifest_hash: String,
    /// Workloads that got a policy.
    pub workloads: Vec<Workload>,
    /// Policies of earlier Coordinators that stay in the manifest, SHA-256, hex.
    pub kept_coordinators: Vec<String>,
    /// Fields of the manifest that the operator still has to fill in, as JSON paths with what belongs there.
    pub fill_in: Vec<String>,
    /// What the operator should know.
    pub notices: Vec<String>,
    /// Files whose content changed.
    pub written: Vec<PathBuf>,
    /// Files whose content would change, when none is to be written.
    pub outdated: Vec<PathBuf>,
    /// The difference as a unified diff, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// The resources, when they go to standard output.
    #[serde(skip)]
    pub resources: Option<String>,
}

/// One workload.
#[derive(Debug, Clone, Serialize)]
pub struct Workload {
    /// Kubernetes kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// SHA-256 of its initdata document, hex.
    pub policy: String,
    /// Names for its certificates.
    pub sans: Vec<String>,
    /// Id of its workload secret.
    pub workload_secret_id: String,
    /// Whether it is the Coordinator.
    pub coordinator: bool,
    /// How many vCPUs its VMs have.
    pub vcpus: u32,
    /// Containers that were injected.
    pub injected: Vec<String>,
}

/// Nothing was generated and no file was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No YAML.
    #[error("no YAML file in {}", paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoFiles {
        /// Where it was searched.
        paths: Vec<PathBuf>,
    },
    /// Not a regular file.
    #[error("{} is no regular file; name a YAML or JSON file or a directory", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Not text.
    #[error("{} is not UTF-8: byte {offset} (from 0) begins no character; convert it with `iconv -t UTF-8`", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// Bytes before the first that is wrong.
        offset: usize,
    },
    /// A directory that contains itself.
    #[error("{} leads back to {}, in which it is; remove the symbolic link", path.display(), target.display())]
    Loop {
        /// The link.
        path: PathBuf,
        /// The directory that it leads to.
        target: PathBuf,
    },
    /// Two inputs with one output.
    #[error("two inputs would be written to {}; give one of them another name", path.display())]
    SameOutput {
        /// The output.
        path: PathBuf,
    },
    /// YAML that cannot be used.
    #[error("`{}` cannot be used", path.display())]
    Resource {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ResourceError,
    },
    /// No pods for Contrast.
    #[error(
        "no workload has a `runtimeClassName` that starts with `contrast-cc`, so there is nothing to generate"
    )]
    NoWorkloads,
    /// No Coordinator, or several.
    #[error(
        "expected exactly one workload with the annotation `contrast.edgeless.systems/pod-role: coordinator`, found {found}"
    )]
    Coordinators {
        /// How many there are, with their names.
        found: String,
    },
    /// A workload is defined twice.
    #[error("{workload} is defined twice")]
    Duplicate {
        /// Kind, namespace and name.
        workload: String,
    },
    /// The Coordinator could not tell two workloads apart.
    #[error(
        "{workload} has the same policy as {other}, so their evidence is the same; give them different names or namespaces, or make them one workload"
    )]
    SamePolicy {
        /// Kind, namespace and name.
        workload: String,
        /// The other one.
        other: String,
    },
    /// A field that cannot be used.
    #[error("{workload}: {reason}")]
    Workload {
        /// Kind and name.
        workload: String,
        /// What is wrong and what to write.
        reason: String,
    },
    /// No policy can be made.
    #[error("{workload}: no policy can be made")]
    Policy {
        /// Kind and name.
        workload: String,
        /// Why.
        #[source]
        source: Box<BuildError>,
    },
    /// The VM's vCPUs cannot be told, or there cannot be so many.
    #[error("{workload}: the number of its vCPUs cannot be used")]
    Vcpus {
        /// Kind and name.
        workload: String,
        /// Why.
        #[source]
        source: PodError,
    },
    /// The policy does not fit into initdata.
    #[error(transparent)]
    Initdata(#[from] InitdataError),
    /// The image cache is unusable.
    #[error(transparent)]
    ImageCache(#[from] CacheError),
    /// Images that cannot be used.
    #[error(transparent)]
    Images(Box<ResolveError>),
    /// A layout, an archive, or how registries are to be asked.
    #[error("images cannot be looked for")]
    ImageSource(#[source] Box<ResolverError>),
    /// A line of the replacements file.
    #[error("{} line {line}: expected `image = replacement`, found `{found}`", path.display())]
    Replacement {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// An existing or the resulting manifest is invalid.
    #[error("{} is not valid", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// All problems.
        #[source]
        source: ManifestError,
    },
    /// A new manifest without reference values.
    #[error("a new manifest needs reference values; name the platform with `--reference-values`")]
    NoReferenceValues,
    /// The software TEE is unusable.
    #[error("the software TEE in {} is unusable: {reason}", path.display())]
    SoftwareTee {
        /// Its directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An owner's key is unusable.
    #[error("{} is no usable {kind} key: {reason}", path.display())]
    OwnerKey {
        /// The file.
        path: PathBuf,
        /// `workload owner` or `seed share owner`.
        kind: &'static str,
        /// Why.
        reason: String,
    },
}

impl From<LintError> for GenerateError {
    fn from(LintError { path, source }: LintError) -> Self {
        Self::Resource { path, source }
    }
}

impl Diagnose for GenerateError {
    fn exit(&self) -> Exit {
        match self {
            Self::File {
                action: "write", ..
            } => Exit::Internal,
            _ => Exit::Usage,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::NoWorkloads => vec![
                "set `runtimeClassName: contrast-cc` in the pod templates that are to become confidential".into(),
            ],
            Self::Images(error) => images::hints(error),
            _ => Vec::new(),
        }
    }
}

/// Generates.
///
/// # Errors
/// When anything is wrong; then no file has been changed but the image cache, which keeps what was found.
pub fn run(options: &Options, progress: &dyn Progress) -> Result<Outcome, GenerateError> {
    let inputs = inputs::read(&options.paths, &options.destination)?;
    let findings = lint::notices(&inputs.sources(), &options.pod_template_paths)?;
    let plan = plan::make(options, inputs.files, progress)?;
    let keys = owner_keys::load(options)?;
    let manifest = manifest::build(options, &plan, &keys)?;
    let (mut changes, resources) = options.destination.changes(&plan.files)?;
    changes.extend(keys.changes());
    changes.push(write::Change::public(
        options.manifest.clone(),
        manifest.text.clone().into(),
    ));
    let mut notices = keys.notices;
    // What was replaced is told by the plan.
    let replaced = |finding: &Finding| {
        plan.workloads.iter().any(|workload| {
            let identity = &workload.identity;
            let container = finding.container.as_ref();
            (&finding.kind, &finding.namespace, &finding.resource)
                == (&identity.kind, &identity.namespace, &identity.name)
                && container.is_some_and(|name| workload.injected.contains(name))
        })
    };
    let findings = findings.iter().filter(|finding| !replaced(finding));
    notices.extend(findings.map(ToString::to_string));
    notices.extend(plan.notices.iter().cloned());
    notices.extend(manifest.notices);
    notices.extend(inputs.passed_over.iter().map(|path| {
        format!(
            "passed over {}: it has no Kubernetes objects",
            path.display()
        )
    }));
    let mut outcome = Outcome {
        manifest: options.manifest.clone(),
        manifest_hash: manifest.hash,
        workloads: manifest.workloads,
        kept_coordinators: manifest.kept_coordinators,
        fill_in: manifest.fill_in,
        notices,
        written: Vec::new(),
        outdated: Vec::new(),
        diff: None,
        resources,
    };
    match options.mode {
        Mode::Write => outcome.written = write::all(changes)?,
        Mode::Check => outcome.outdated = outdated(&changes),
        Mode::Diff => {
            outcome.outdated = outdated(&changes);
            outcome.diff = Some(changes.iter().filter_map(write::Change::diff).collect());
        }
    }
    Ok(outcome)
}

fn outdated(changes: &[write::Change]) -> Vec<PathBuf> {
    let outdated = changes.iter().filter(|change| change.outdated().is_some());
    outdated.map(|change| change.path().to_owned()).collect()
}
