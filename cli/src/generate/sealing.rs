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
use contrast_resources::{CustomTemplate, ResourceError};
use serde_json::json;

use super::{
    GenerateError,
    annotations::PREFIX,
    destination::Destination,
    inject::Place,
    inputs::{self, InputFile},
    plan::{self, Found, place},
    policies::annotation,
    write,
};
use crate::{diagnostic::Diagnose, exit::Exit};

/// Annotation with the names of a workload's sealed secrets.
pub(super) const SEALED_SECRETS: &str = "sealed-secrets";

/// Where what is sealed is written.
#[derive(Debug, Clone, Copy)]
pub struct SealPlace<'a> {
    /// YAML files, or directories that are searched for them.
    pub paths: &'a [PathBuf],
    /// The manifest, which exists.
    pub manifest: &'a Path,
    /// Where custom resources have their pod templates.
    pub pod_template_paths: &'a [CustomTemplate],
    /// The deployment's key.
    pub key: &'a SealingPublicKey,
}

/// What to seal for whom.
#[derive(Debug)]
pub struct SealOptions<'a> {
    /// Where it is written.
    pub place: SealPlace<'a>,
    /// Workloads: names, or kinds and names.
    pub pods: &'a [String],
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
    /// Nothing to convert.
    #[error("no confidential workload of these has imagePullSecrets, so there is nothing to seal")]
    NoPullSecrets,
    /// A Secret of `imagePullSecrets`.
    #[error("{workload}: the imagePullSecret `{secret}` cannot be sealed: {reason}")]
    PullSecret {
        /// Kind, namespace and name.
        workload: String,
        /// The Secret.
        secret: String,
        /// What is wrong and what to do.
        reason: String,
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
    let mut sealing = Sealing::begin(&options.place)?;
    let replaced = sealing.put((options.kind, name), options.content, entropy)?;
    let mut workloads = Vec::new();
    for pod in options.pods {
        let position = sealing.choose(pod)?;
        sealing.add_names(position, [name])?;
        let found = sealing.workloads.get(position);
        workloads.extend(found.map(|found| found.identity.shown()));
    }
    Ok(SealedFor {
        workloads,
        replaced,
        written: sealing.write()?,
    })
}

/// Manifest and workloads in memory, until all is sealed.
pub(super) struct Sealing<'a> {
    place: &'a SealPlace<'a>,
    document: ManifestDocument,
    pub(super) files: Vec<InputFile>,
    pub(super) workloads: Vec<Found>,
    /// Files that change.
    touched: BTreeSet<usize>,
}

impl<'a> Sealing<'a> {
    pub(super) fn begin(place: &'a SealPlace<'a>) -> Result<Self, SealError> {
        let document = read_manifest(place.manifest)?;
        let files = inputs::read(place.paths, &Destination::InPlace)?.files;
        let workloads = plan::find(place.pod_template_paths, &files)?;
        Ok(Self {
            place,
            document,
            files,
            workloads,
            touched: BTreeSet::new(),
        })
    }

    /// Puts a secret into the manifest; says whether it took the place of another one.
    pub(super) fn put(
        &mut self,
        (kind, name): (SealedKind, &str),
        content: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<bool, SealError> {
        let max = MAX_SEALED_BYTES.saturating_sub(SEALING_OVERHEAD_BYTES);
        if content.len() > max {
            let found = content.len();
            return Err(SealError::Size { found, max });
        }
        let kind = kind.as_str();
        let present = self.document.sealed_secrets.get(name);
        if let Some(other) = present.filter(|present| present.kind != kind) {
            return Err(SealError::OtherKind {
                name: name.to_owned(),
                found: other.kind.clone(),
            });
        }
        let sealed = self.place.key.seal(kind, name, content, entropy);
        let secret = SealedSecretDocument {
            kind: kind.to_owned(),
            ciphertext: hex::encode(sealed.map_err(SealError::Seal)?),
        };
        let secrets = &mut self.document.sealed_secrets;
        Ok(secrets.insert(name.to_owned(), secret).is_some())
    }

    /// Whether the manifest has such a secret.
    pub(super) fn has(&self, (kind, name): (SealedKind, &str)) -> bool {
        let present = self.document.sealed_secrets.get(name);
        present.is_some_and(|present| present.kind == kind.as_str())
    }

    /// The position of the one workload that has this name, or kind and name.
    pub(super) fn choose(&self, pod: &str) -> Result<usize, SealError> {
        let (kind, name) = match pod.split_once('/') {
            Some((kind, name)) => (Some(kind), name),
            None => (None, pod),
        };
        let shown = |found: &mut dyn Iterator<Item = &Found>| {
            let names: Vec<String> = found.map(|found| found.identity.shown()).collect();
            match names.is_empty() {
                true => "none".to_owned(),
                false => names.join(", "),
            }
        };
        let matching: Vec<(usize, &Found)> = self
            .workloads
            .iter()
            .enumerate()
            .filter(|(_, found)| {
                let identity = &found.identity;
                identity.name == name
                    && kind.is_none_or(|kind| identity.kind.eq_ignore_ascii_case(kind))
            })
            .collect();
        match matching.as_slice() {
            [(_, found)] if found.coordinator => Err(SealError::Coordinator {
                workload: found.identity.shown(),
            }),
            [(position, _)] => Ok(*position),
            [] => Err(SealError::NoWorkload {
                pod: pod.to_owned(),
                known: shown(&mut self.workloads.iter()),
            }),
            several => Err(SealError::Ambiguous {
                pod: pod.to_owned(),
                found: shown(&mut several.iter().map(|(_, found)| *found)),
            }),
        }
    }

    /// Adds names to those of the sealed secrets that a workload gets.
    pub(super) fn add_names<'n>(
        &mut self,
        position: usize,
        added: impl IntoIterator<Item = &'n str>,
    ) -> Result<(), SealError> {
        let Some(found) = self.workloads.get(position) else {
            return Ok(());
        };
        let mut names = listed(found);
        for name in added {
            if !names.iter().any(|present| present == name) {
                names.push(name.to_owned());
            }
        }
        let key = format!("{PREFIX}{SEALED_SECRETS}");
        self.change(position, |place| {
            place.set(&["metadata", "annotations", &key], &json!(names.join(",")))
        })
    }

    /// Takes a field away from the spec of a workload's pods.
    pub(super) fn remove(&mut self, position: usize, field: &str) -> Result<(), SealError> {
        self.change(position, |place| place.remove(&["spec", field]))
    }

    fn change(
        &mut self,
        position: usize,
        change: impl FnOnce(&mut Place<'_>) -> Result<(), ResourceError>,
    ) -> Result<(), SealError> {
        let Some(found) = self.workloads.get(position) else {
            return Ok(());
        };
        if let Some(file) = self.files.get_mut(found.file) {
            let changed = change(&mut place(&mut file.yaml, found));
            changed.map_err(|source| unusable(file, source))?;
            self.touched.insert(found.file);
        }
        Ok(())
    }

    /// Writes what changed, all files or none, and names it.
    pub(super) fn write(self) -> Result<Vec<PathBuf>, SealError> {
        let mut changes = vec![write::Change::public(
            self.place.manifest.to_owned(),
            self.document.to_json().into_bytes(),
        )];
        for file in self
            .touched
            .iter()
            .filter_map(|index| self.files.get(*index))
        {
            let text = file.yaml.text().map_err(|source| unusable(file, source))?;
            changes.push(write::Change::public(file.path.clone(), text.into_bytes()));
        }
        Ok(write::all(changes)?)
    }
}

fn unusable(file: &InputFile, source: ResourceError) -> GenerateError {
    GenerateError::Resource {
        path: file.path.clone(),
        source,
    }
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
