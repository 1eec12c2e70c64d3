//! Puts a sealed secret into the manifest, and its name on the workloads that get it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use contrast_clock::Entropy;
use contrast_manifest::{
    MAX_SEALED_BYTES, ManifestDocument, ManifestError, SealedKind, SealedSecretDocument,
    is_sealed_name,
};
use contrast_pki::{SEALING_OVERHEAD_BYTES, SealingError, SealingPublicKey};
use contrast_resources::CustomTemplate;
use serde_json::json;

use super::{
    GenerateError,
    annotations::PREFIX,
    destination::Destination,
    inputs,
    plan::{self, Found, place},
    policies::annotation,
    write,
};
use crate::{diagnostic::Diagnose, exit::Exit};

/// Annotation with the names of a workload's sealed secrets.
pub(super) const SEALED_SECRETS: &str = "sealed-secrets";

/// What to seal for whom.
#[derive(Debug)]
pub struct SealOptions<'a> {
    /// YAML files, or directories that are searched for them.
    pub paths: &'a [PathBuf],
    /// Workloads: names, or kinds and names.
    pub pods: &'a [String],
    /// The manifest, which exists.
    pub manifest: &'a Path,
    /// Where custom resources have their pod templates.
    pub pod_template_paths: &'a [CustomTemplate],
    /// The deployment's key.
    pub key: &'a SealingPublicKey,
    /// What it is for.
    pub kind: SealedKind,
    /// Its name.
    pub name: &'a str,
    /// What is sealed.
    pub content: &'a [u8],
}

/// What was sealed.
#[derive(Debug)]
pub struct SealedFor {
    /// Workloads that get it.
    pub workloads: Vec<String>,
    /// Whether another ciphertext of this name was replaced.
    pub replaced: bool,
    /// Files whose content changed.
    pub written: Vec<PathBuf>,
}

/// Nothing was sealed and no file was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The name.
    #[error(
        "`{name}` cannot be the name of a sealed secret; expected letters, digits, `-`, `_`, `.` and `:`, that begin with a letter or a digit"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// Too much.
    #[error("the secret has {found} bytes, expected at most {max}; make two of it")]
    Size {
        /// Its size.
        found: usize,
        /// The most that a manifest takes.
        max: usize,
    },
    /// No workload of that name.
    #[error("no confidential workload is named `{pod}`; there are {known}")]
    NoWorkload {
        /// What was given.
        pod: String,
        /// Those that there are.
        known: String,
    },
    /// Several workloads of that name.
    #[error(
        "`{pod}` is the name of several workloads: {found}; write KIND/NAME, or name the file that has the right one"
    )]
    Ambiguous {
        /// What was given.
        pod: String,
        /// Those of that name.
        found: String,
    },
    /// The Coordinator opens them; it gets none.
    #[error("{workload} is the Coordinator, which gets no sealed secrets")]
    Coordinator {
        /// Kind, namespace and name.
        workload: String,
    },
    /// The manifest cannot be read.
    #[error("cannot read the manifest {}", path.display())]
    ReadManifest {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The manifest is no manifest.
    #[error("{} is no manifest", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// All problems.
        #[source]
        source: ManifestError,
    },
    /// The name is taken.
    #[error(
        "the manifest has a sealed secret `{name}` of the kind {found} already; choose another name, or remove it there first"
    )]
    OtherKind {
        /// The name.
        name: String,
        /// The kind that has it.
        found: String,
    },
    /// Encryption.
    #[error("the secret cannot be sealed")]
    Seal(#[source] SealingError),
    /// The workloads' files.
    #[error(transparent)]
    Files(#[from] GenerateError),
}

impl Diagnose for SealError {
    fn exit(&self) -> Exit {
        match self {
            Self::Files(error) => error.exit(),
            Self::Seal(_) => Exit::Internal,
            _ => Exit::Usage,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::ReadManifest { .. } => {
                vec!["run `contrast generate` and `contrast set` first: a deployment has a sealing key from its first manifest on".into()]
            }
            Self::Files(error) => error.hints(),
            _ => Vec::new(),
        }
    }
}

/// Seals, and writes manifest and workloads: all files or none.
///
/// # Errors
/// When anything is wrong; no file has been changed then.
pub fn seal(options: &SealOptions<'_>, entropy: &dyn Entropy) -> Result<SealedFor, SealError> {
    let name = options.name;
    if !is_sealed_name(name) {
        let name = name.to_owned();
        return Err(SealError::Name { name });
    }
    let max = MAX_SEALED_BYTES.saturating_sub(SEALING_OVERHEAD_BYTES);
    if options.content.len() > max {
        let found = options.content.len();
        return Err(SealError::Size { found, max });
    }
    let mut document = read_manifest(options.manifest)?;
    let replaced = put(&mut document, options, entropy)?;

    let mut files = inputs::read(options.paths, &Destination::InPlace)?.files;
    let all = plan::find(options.pod_template_paths, &files)?;
    let mut workloads = Vec::new();
    let mut touched = BTreeSet::new();
    for pod in options.pods {
        let found = choose(&all, pod)?;
        let names = names(found, name);
        if let Some(file) = files.get_mut(found.file) {
            let key = format!("{PREFIX}{SEALED_SECRETS}");
            let set =
                place(&mut file.yaml, found).set(&["metadata", "annotations", &key], &json!(names));
            set.map_err(|source| GenerateError::Resource {
                path: file.path.clone(),
                source,
            })?;
            touched.insert(found.file);
        }
        workloads.push(found.identity.shown());
    }
    let mut changes = vec![write::Change::public(
        options.manifest.to_owned(),
        document.to_json().into_bytes(),
    )];
    for file in touched.iter().filter_map(|index| files.get(*index)) {
        let text = file.yaml.text().map_err(|source| GenerateError::Resource {
            path: file.path.clone(),
            source,
        })?;
        changes.push(write::Change::public(file.path.clone(), text.into_bytes()));
    }
    Ok(SealedFor {
        workloads,
        replaced,
        written: write::all(changes)?,
    })
}

fn read_manifest(path: &Path) -> Result<ManifestDocument, SealError> {
    let bytes = fs::read(path).map_err(|source| SealError::ReadManifest {
        path: path.to_owned(),
        source,
    })?;
    ManifestDocument::from_json(&bytes).map_err(|source| SealError::Manifest {
        path: path.to_owned(),
        source,
    })
}

/// Names of the sealed credentials of registries in the manifest. One that cannot be read is told where it is updated.
pub(super) fn registries(manifest: &Path) -> BTreeSet<String> {
    let document = read_manifest(manifest).unwrap_or_default();
    let secrets = document.sealed_secrets.into_iter();
    secrets
        .filter(|(_, secret)| secret.kind == SealedKind::Registry.as_str())
        .map(|(name, _)| name)
        .collect()
}

/// Whether it took the place of another one.
fn put(
    document: &mut ManifestDocument,
    options: &SealOptions<'_>,
    entropy: &dyn Entropy,
) -> Result<bool, SealError> {
    let (kind, name) = (options.kind.as_str(), options.name);
    let present = document.sealed_secrets.get(name);
    if let Some(other) = present.filter(|present| present.kind != kind) {
        return Err(SealError::OtherKind {
            name: name.to_owned(),
            found: other.kind.clone(),
        });
    }
    let sealed = options.key.seal(kind, name, options.content, entropy);
    let secret = SealedSecretDocument {
        kind: kind.to_owned(),
        ciphertext: hex::encode(sealed.map_err(SealError::Seal)?),
    };
    Ok(document
        .sealed_secrets
        .insert(name.to_owned(), secret)
        .is_some())
}

fn choose<'a>(all: &'a [Found], pod: &str) -> Result<&'a Found, SealError> {
    let (kind, name) = match pod.split_once('/') {
        Some((kind, name)) => (Some(kind), name),
        None => (None, pod),
    };
    let shown = |found: &[&Found]| {
        let names: Vec<String> = found.iter().map(|found| found.identity.shown()).collect();
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        }
    };
    let matching: Vec<&Found> = all
        .iter()
        .filter(|found| {
            let identity = &found.identity;
            identity.name == name
                && kind.is_none_or(|kind| identity.kind.eq_ignore_ascii_case(kind))
        })
        .collect();
    match matching.as_slice() {
        [found] if found.coordinator => Err(SealError::Coordinator {
            workload: found.identity.shown(),
        }),
        [found] => Ok(found),
        [] => Err(SealError::NoWorkload {
            pod: pod.to_owned(),
            known: shown(&all.iter().collect::<Vec<_>>()),
        }),
        several => Err(SealError::Ambiguous {
            pod: pod.to_owned(),
            found: shown(several),
        }),
    }
}

/// The names that the workload has then, as the annotation has them.
fn names(found: &Found, added: &str) -> String {
    let mut names = listed(found);
    if !names.iter().any(|name| name == added) {
        names.push(added.to_owned());
    }
    names.join(",")
}

/// The sealed secrets that a workload's annotation lists.
pub(super) fn listed(found: &Found) -> Vec<String> {
    let value = annotation(&found.document.object, &found.template, SEALED_SECRETS);
    let names = value.into_iter().flat_map(|value| value.split(','));
    names
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}
