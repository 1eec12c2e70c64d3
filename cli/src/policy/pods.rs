//! Pods of generated YAML and their policies.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use contrast_policy::{DataError, Initdata, PodPolicy};
use serde_json::Value;

use crate::{
    deployment::{self, DeploymentError},
    diagnostic::Diagnose,
    exit::Exit,
    workspace::Workspace,
};

/// A pod with a policy.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) initdata: Initdata,
}

impl Pod {
    pub(super) fn shown(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    pub(super) fn policy(&self) -> Result<PodPolicy, PodError> {
        PodPolicy::from_rego(self.initdata.policy()).map_err(|source| PodError::Data {
            pod: self.shown(),
            source,
        })
    }
}

/// There is no such pod, or it cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PodError {
    #[error(transparent)]
    Deployment(#[from] DeploymentError),
    #[error("expected a pod with a policy named `{wanted}`, found {found}")]
    Unknown { wanted: String, found: String },
    #[error("the policy of {pod} cannot be read")]
    Data {
        pod: String,
        #[source]
        source: DataError,
    },
}

impl Diagnose for PodError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Deployment(error) => error.hints(),
            Self::Unknown { .. } => vec![
                "run `contrast generate` first, and name the generated files behind the pod".into(),
            ],
            Self::Data { .. } => vec!["run `contrast generate` of this version".into()],
        }
    }
}

/// All pods with a policy. Files without any are fine.
pub(super) fn read(path: &Path) -> Result<Vec<Pod>, DeploymentError> {
    let mut files = BTreeSet::new();
    deployment::collect(path, &mut files)?;
    let mut pods = Vec::new();
    for file in files {
        for (object, initdata) in deployment::pods(&file)? {
            let metadata = &object["metadata"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name = metadata["name"]
                .as_str()
                .or_else(|| metadata["generateName"].as_str());
            pods.push(Pod {
                kind: text(&object["kind"]),
                name: name.unwrap_or_default().to_owned(),
                namespace: text(&metadata["namespace"]),
                initdata,
            });
        }
    }
    Ok(pods)
}

/// The one pod that `wanted` names: `NAME` or `Kind/NAME`.
pub(super) fn find(
    wanted: &str,
    paths: &[PathBuf],
    workspace: &Workspace,
) -> Result<Pod, PodError> {
    let mut pods = Vec::new();
    match paths {
        [] => pods.extend(read(&workspace.path("."))?),
        paths => {
            for path in paths {
                pods.extend(read(path)?);
            }
        }
    }
    let names: Vec<String> = pods.iter().map(Pod::shown).collect();
    let mut matching: Vec<Pod> = pods
        .into_iter()
        .filter(|pod| pod.name == wanted || pod.shown().eq_ignore_ascii_case(wanted))
        .collect();
    match (matching.pop(), matching.is_empty()) {
        (Some(pod), true) => Ok(pod),
        (found, _) => Err(PodError::Unknown {
            wanted: wanted.to_owned(),
            found: match (found, names.is_empty()) {
                (_, true) => "none at all".to_owned(),
                (None, false) => names.join(", "),
                (Some(_), false) => {
                    format!(
                        "several of that name: {}; write Kind/NAME, or name one file",
                        names.join(", ")
                    )
                }
            },
        }),
    }
}
