//! What is left of an earlier deployment: the files that its last `contrast verify` wrote, also that of other implementations.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use contrast_pki::{RootKey, RootKeyError};
use serde::Deserialize;

use crate::{
    diagnostic::Diagnose,
    exit::Exit,
    owner::{KnownSeed, OwnerError},
    workspace::ROOT_CA,
};

/// The earlier deployment cannot be continued with this seed, or nobody can tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// A file of the directory is missing or cannot be read.
    #[error("cannot read `{}`; name the directory `verify` that the last `contrast verify` of the earlier deployment wrote", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not a manifest.
    #[error("`{}` is not a manifest", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Not a certificate.
    #[error("`{}` is not a certificate", path.display())]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: RootKeyError,
    },
    /// The seed of something else.
    #[error(
        "the seed is not that of the deployment in `{}`: expected the root CA key with SHA-256 {expected}, found {found}",
        path.display()
    )]
    OtherSeed {
        /// The root CA's certificate.
        path: PathBuf,
        /// Its key.
        expected: RootKey,
        /// What follows from the seed.
        found: RootKey,
    },
    /// The seed cannot be used.
    #[error(transparent)]
    Seed(#[from] OwnerError),
}

impl Diagnose for ImportError {
    fn exit(&self) -> Exit {
        match self {
            Self::Seed(error) => error.exit(),
            _ => Exit::Usage,
        }
    }
}

/// Only what a secret depends on: manifests of other implementations have other fields.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct EarlierManifest {
    policies: BTreeMap<String, EarlierPolicy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EarlierPolicy {
    #[serde(rename = "SANs")]
    sans: Vec<String>,
    #[serde(rename = "WorkloadSecretID")]
    workload_secret_id: String,
}

impl EarlierManifest {
    fn ids(&self) -> BTreeMap<&str, &[String]> {
        let policies = self.policies.values();
        let ids = policies.map(|policy| (policy.workload_secret_id.as_str(), &policy.sans[..]));
        ids.filter(|(id, _)| !id.is_empty()).collect()
    }
}

/// An earlier deployment.
#[derive(Debug)]
pub(crate) struct Earlier {
    root: (PathBuf, RootKey),
    /// Oldest first, with their files; at least one.
    manifests: Vec<(PathBuf, EarlierManifest)>,
}

/// A workload secret that nobody has in the new deployment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LostSecret {
    id: String,
    names: Vec<String>,
    /// The latest manifest that has it.
    manifest: PathBuf,
}

impl fmt::Display for LostSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no workload of the new manifest has the WorkloadSecretID {:?} of `{}` (certificates for {:?}); what was encrypted with its secret cannot be \
             opened until one has",
            self.id,
            self.manifest.display(),
            self.names.join(", ")
        )
    }
}

impl Earlier {
    /// Reads `coordinator-root-ca.pem` and `manifest.0.json`, `manifest.1.json` and so on.
    ///
    /// # Errors
    /// When one of the first two is missing, or a file holds something else.
    pub(crate) fn read(directory: &Path) -> Result<Self, ImportError> {
        let path = directory.join(ROOT_CA);
        let pem = read(&path)?;
        let root = RootKey::of_certificate(&pem);
        let root = root.map_err(|source| ImportError::Root {
            path: path.clone(),
            source,
        })?;
        let mut manifests = Vec::new();
        for number in 0_u32.. {
            let path = directory.join(format!("manifest.{number}.json"));
            if number > 0 && !path.exists() {
                break;
            }
            let manifest = serde_json::from_str(&read(&path)?);
            match manifest {
                Ok(manifest) => manifests.push((path, manifest)),
                Err(source) => return Err(ImportError::Manifest { path, source }),
            }
        }
        Ok(Self {
            root: (path, root),
            manifests,
        })
    }

    /// Checks that the deployment's root CA follows from `seed`.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn check_seed(&self, seed: &KnownSeed) -> Result<(), ImportError> {
        let found = seed.root_key()?;
        let (path, expected) = &self.root;
        match *expected == found {
            true => Ok(()),
            false => Err(ImportError::OtherSeed {
                path: path.clone(),
                expected: expected.clone(),
                found,
            }),
        }
    }

    /// Ids of workload secrets in any of the manifests that `manifest` lacks; all of them if it is none, which is told elsewhere.
    pub(crate) fn lost_secrets(&self, manifest: &[u8]) -> Vec<LostSecret> {
        let new: EarlierManifest = serde_json::from_slice(manifest).unwrap_or_default();
        let mut known: BTreeSet<String> = new.ids().into_keys().map(str::to_owned).collect();
        let mut lost = Vec::new();
        for (path, earlier) in self.manifests.iter().rev() {
            for (id, names) in earlier.ids() {
                if known.insert(id.to_owned()) {
                    lost.push(LostSecret {
                        id: id.to_owned(),
                        names: names.to_vec(),
                        manifest: path.clone(),
                    });
                }
            }
        }
        lost
    }
}

fn read(path: &Path) -> Result<String, ImportError> {
    fs::read_to_string(path).map_err(|source| ImportError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(ids: &[&str]) -> String {
        let policies = ids.iter().enumerate().map(|(number, id)| {
            format!(r#""{number}": {{"SANs": ["{id}.example"], "WorkloadSecretID": "{id}", "Role": "none"}}"#)
        });
        let policies: Vec<String> = policies.collect();
        format!(
            r#"{{"Policies": {{{}}}, "Further": 1}}"#,
            policies.join(", ")
        )
    }

    #[test]
    fn secrets_that_nobody_has_any_more_are_named_with_the_latest_manifest_that_has_them() {
        let parsed = |name: &str, ids: &[&str]| {
            let manifest = serde_json::from_str(&manifest(ids)).expect("JSON");
            (PathBuf::from(name), manifest)
        };
        let earlier = Earlier {
            root: (PathBuf::new(), RootKey::from_spki(Vec::new())),
            manifests: vec![
                parsed("manifest.0.json", &["a", "b", "c", ""]),
                parsed("manifest.1.json", &["b", "d"]),
            ],
        };
        let lost = earlier.lost_secrets(manifest(&["d"]).as_bytes());
        let shown: Vec<_> = lost
            .iter()
            .map(|lost| (lost.id.as_str(), lost.manifest.to_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("b", Some("manifest.1.json")),
                ("a", Some("manifest.0.json")),
                ("c", Some("manifest.0.json"))
            ]
        );
        assert!(lost[0].to_string().contains(
            r#"the WorkloadSecretID "b" of `manifest.1.json` (certificates for "b.example")"#
        ));
        assert_eq!(
            earlier.lost_secrets(manifest(&["a", "b", "c", "d"]).as_bytes()),
            []
        );
    }

    #[test]
    fn files_that_are_missing_or_something_else_are_named() {
        let directory = tempfile::tempdir().expect("directory");
        let failed = || {
            Earlier::read(directory.path())
                .expect_err("fails")
                .to_string()
        };
        assert!(failed().contains(ROOT_CA), "{}", failed());
        fs::write(directory.path().join(ROOT_CA), "junk").expect("writes");
        assert!(failed().ends_with("is not a certificate"), "{}", failed());
    }
}
