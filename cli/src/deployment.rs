//! What `generate` wrote, read back: the initdata documents in the annotations of Kubernetes YAML.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use contrast_attestation::PolicyHash;
use contrast_manifest::Manifest;
use contrast_policy::{INITDATA_ANNOTATION, Initdata as InitdataDocument, InitdataError};
use contrast_resources::{ResourceError, YamlFile};
use serde_json::Value;

use crate::{
    diagnostic::Diagnose,
    exit::Exit,
    transition::sha256,
    workspace::{self, WorkspaceError},
};

/// The YAML cannot be used, or does not fit the manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeploymentError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] WorkspaceError),
    /// A directory could not be searched.
    #[error("cannot search `{}` for YAML files", .path.display())]
    Search {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not text.
    #[error("`{}` is not UTF-8 text", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A file is not YAML, or no Kubernetes object.
    #[error("`{}` is not Kubernetes YAML", .path.display())]
    NotKubernetes {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: ResourceError,
    },
    /// An annotation holds no initdata document.
    #[error("the initdata of {carrier} is damaged")]
    Initdata {
        /// The resource and its file.
        carrier: String,
        /// Why.
        #[source]
        source: InitdataError,
    },
    /// There are no YAML files.
    #[error("no `.yaml` or `.yml` file in {}", shown(.paths))]
    NoFiles {
        /// Where they were looked for.
        paths: Vec<PathBuf>,
    },
    /// No resource carries initdata.
    #[error("no resource in {} carries initdata", shown(.paths))]
    NoInitdata {
        /// Where it was looked for.
        paths: Vec<PathBuf>,
    },
    /// The policies of YAML and manifest differ.
    #[error("the policies of the YAML are not those of the manifest:{}", .differences.join(""))]
    Policies {
        /// One line for each missing or extra policy, each starting with a line break.
        differences: Vec<String>,
    },
}

impl Diagnose for DeploymentError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::File(error) => error.hints(),
            Self::Initdata { .. } | Self::NoInitdata { .. } => vec!["run `contrast generate` on these files first".into()],
            Self::Policies { .. } => vec![
                "run `contrast generate` again on exactly these files; name all of them here, the Coordinator's too"
                    .into(),
            ],
            _ => Vec::new(),
        }
    }
}

fn shown(paths: &[PathBuf]) -> String {
    let quoted: Vec<String> = paths
        .iter()
        .map(|path| format!("`{}`", path.display()))
        .collect();
    quoted.join(", ")
}

/// One initdata document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initdata {
    /// The TOML, exact bytes.
    pub document: Vec<u8>,
    /// Which resources carry it, for example `` StatefulSet `coordinator` in `coordinator.yml` ``.
    pub carriers: Vec<String>,
}

/// The initdata documents of a deployment by their hash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Deployment {
    documents: BTreeMap<PolicyHash, Initdata>,
}

impl Deployment {
    /// Reads files and, recursively, the `.yaml` and `.yml` files of directories.
    ///
    /// # Errors
    /// When a file cannot be read, is not Kubernetes YAML, or carries damaged initdata; when there is no initdata at all.
    pub fn read(paths: &[PathBuf]) -> Result<Self, DeploymentError> {
        let mut files = BTreeSet::new();
        for path in paths {
            collect(path, &mut files)?;
        }
        if files.is_empty() {
            return Err(DeploymentError::NoFiles {
                paths: paths.to_vec(),
            });
        }
        let mut deployment = Self::default();
        for file in files {
            deployment.read_file(&file)?;
        }
        match deployment.documents.is_empty() {
            true => Err(DeploymentError::NoInitdata {
                paths: paths.to_vec(),
            }),
            false => Ok(deployment),
        }
    }

    fn read_file(&mut self, path: &Path) -> Result<(), DeploymentError> {
        for (object, initdata) in pods(path)? {
            let carrier = format!("{} in `{}`", title(&object), path.display());
            self.documents
                .entry(PolicyHash(initdata.hash()))
                .or_insert_with(|| Initdata {
                    document: initdata.bytes().to_vec(),
                    carriers: Vec::new(),
                })
                .carriers
                .push(carrier);
        }
        Ok(())
    }

    /// Checks that these are the policies that the manifest names. Of several Coordinator policies one suffices: those of an
    /// earlier version are no longer in the YAML. Returns the ones that are missing; [`Self::complete`] adds them.
    ///
    /// # Errors
    /// Names each policy that is in one of them only.
    pub fn require_policies(
        &self,
        manifest: &Manifest,
    ) -> Result<BTreeSet<PolicyHash>, DeploymentError> {
        let (present, earlier): (BTreeSet<PolicyHash>, BTreeSet<PolicyHash>) = manifest
            .coordinators()
            .iter()
            .partition(|hash| self.documents.contains_key(hash));
        let earlier = match present.is_empty() {
            true => BTreeSet::new(),
            false => earlier,
        };
        self.differences(manifest, &earlier).map(|()| earlier)
    }

    /// Adds the documents of earlier Coordinators, which are no longer in the YAML, from what a Coordinator returned as its
    /// history. A document counts for the policy that its hash is, whoever sent it.
    ///
    /// # Errors
    /// Names each policy that is still missing.
    pub fn complete(
        &mut self,
        manifest: &Manifest,
        published: &[Bytes],
    ) -> Result<(), DeploymentError> {
        for document in published {
            let hash = PolicyHash(sha256(document));
            if manifest.coordinators().contains(&hash) {
                self.documents.entry(hash).or_insert_with(|| Initdata {
                    document: document.to_vec(),
                    carriers: vec!["the Coordinator's history".into()],
                });
            }
        }
        self.differences(manifest, &BTreeSet::new())
    }

    fn differences(
        &self,
        manifest: &Manifest,
        forgiven: &BTreeSet<PolicyHash>,
    ) -> Result<(), DeploymentError> {
        let missing = manifest
            .policies()
            .iter()
            .filter(|(hash, _)| !self.documents.contains_key(hash) && !forgiven.contains(hash));
        let missing = missing.map(|(hash, entry)| {
            format!(
                "\nmissing in the YAML: {hash} (SANs: {})",
                entry.sans.join(", ")
            )
        });
        let extra = self
            .documents
            .iter()
            .filter(|(hash, _)| !manifest.policies().contains_key(hash));
        let extra = extra.map(|(hash, initdata)| {
            format!(
                "\nnot in the manifest: {hash} ({})",
                initdata.carriers.join(", ")
            )
        });
        let differences: Vec<String> = missing.chain(extra).collect();
        match differences.is_empty() {
            true => Ok(()),
            false => Err(DeploymentError::Policies { differences }),
        }
    }

    /// The documents in the order of their hashes.
    pub fn documents(&self) -> impl Iterator<Item = &[u8]> {
        self.documents
            .values()
            .map(|initdata| initdata.document.as_slice())
    }
}

/// The objects of a file whose pods carry initdata, and their documents.
pub(crate) fn pods(path: &Path) -> Result<Vec<(Value, InitdataDocument)>, DeploymentError> {
    let mut pods = Vec::new();
    for object in objects(path)? {
        let Some(annotation) = annotation(&object) else {
            continue;
        };
        let initdata = InitdataDocument::from_annotation(annotation).map_err(|source| {
            DeploymentError::Initdata {
                carrier: format!("{} in `{}`", title(&object), path.display()),
                source,
            }
        })?;
        pods.push((object, initdata));
    }
    Ok(pods)
}

/// The Kubernetes objects of a file.
pub(crate) fn objects(path: &Path) -> Result<Vec<Value>, DeploymentError> {
    let bytes = workspace::read("Kubernetes YAML", path, "")?;
    let text = String::from_utf8(bytes).map_err(|_| DeploymentError::NotText {
        path: path.to_owned(),
    })?;
    let documents = YamlFile::parse(text).and_then(|file| file.documents());
    let documents = documents.map_err(|source| DeploymentError::NotKubernetes {
        path: path.to_owned(),
        source,
    })?;
    Ok(documents
        .into_iter()
        .map(|document| document.object)
        .collect())
}

/// A file itself, or the `.yaml` and `.yml` files of a directory, recursively.
pub(crate) fn collect(path: &Path, files: &mut BTreeSet<PathBuf>) -> Result<(), DeploymentError> {
    if !path.is_dir() {
        files.insert(path.to_owned());
        return Ok(());
    }
    let failed = |source| DeploymentError::Search {
        path: path.to_owned(),
        source,
    };
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        let yaml = entry
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if entry.is_dir() || yaml {
            collect(&entry, files)?;
        }
    }
    Ok(())
}

/// The initdata annotation of the pod that `object` describes, if it has one. Kinds of others have their pod templates anywhere.
fn annotation(object: &Value) -> Option<&str> {
    if let Some(value) = object["metadata"]["annotations"][INITDATA_ANNOTATION].as_str() {
        return Some(value);
    }
    match object {
        Value::Object(fields) => fields.values().find_map(annotation),
        Value::Array(items) => items.iter().find_map(annotation),
        _ => None,
    }
}

/// How people name an object: its kind and name.
fn title(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!(
        "{} `{}`",
        text(&object["kind"]),
        text(&object["metadata"]["name"])
    )
}
