//! Turns the `imagePullSecrets` of workloads, which the host reads, into sealed credentials of registries, which only the guest gets.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use contrast_clock::Entropy;
use contrast_manifest::{SealedKind, is_sealed_name};
use contrast_pki::RegistryCredential;
use contrast_policy::ConfigObjects;

use super::{
    inject::items,
    plan::{Found, config_objects},
    sealing::{SealError, SealPlace, Sealing},
};
use crate::docker_config::{self, DockerConfigError};

type Credentials = BTreeMap<String, RegistryCredential>;

/// Key of a Secret of the type `kubernetes.io/dockerconfigjson`.
const DOCKER_CONFIG: &str = ".dockerconfigjson";
const FIELD: &str = "imagePullSecrets";

/// What was converted.
#[derive(Debug, Default)]
pub struct Converted {
    /// Workloads, each with the registries that its guest gets credentials of.
    pub workloads: BTreeMap<String, BTreeSet<String>>,
    /// Secrets that no workload of these names any more.
    pub secrets: BTreeSet<String>,
    /// Registries whose sealed credentials the manifest had already, and which stay: newer ones may have been sealed since the Secret was made.
    pub kept: BTreeSet<String>,
    /// Files whose content changed.
    pub written: Vec<PathBuf>,
}

/// Seals the credentials in the Secrets that `imagePullSecrets` name, lists them in the workloads' annotations, and takes the field away. `pods` are the
/// workloads, by name, or by kind and name; all that have the field if there are none.
///
/// # Errors
/// When anything is wrong; no file has been changed then.
pub fn seal_pull_secrets(
    place: &SealPlace<'_>,
    pods: &[String],
    entropy: &dyn Entropy,
) -> Result<Converted, SealError> {
    let mut sealing = Sealing::begin(place)?;
    let config = config_objects(&sealing.files)?;
    let mut chosen = BTreeSet::new();
    for pod in pods {
        chosen.insert(sealing.choose(pod)?);
    }
    let mut credentials = BTreeMap::new();
    let mut converted = Converted::default();
    for position in 0..sealing.workloads.len() {
        let Some(found) = sealing.workloads.get(position) else {
            continue;
        };
        let secrets = secrets(found);
        // The guest of the Coordinator has nobody to get them from.
        let is_meant = !found.coordinator && (chosen.is_empty() || chosen.contains(&position));
        if secrets.is_empty() || !is_meant {
            continue;
        }
        let mut registries = BTreeSet::new();
        for secret in &secrets {
            let read = read(found, secret, &config).and_then(|read| merge(&mut credentials, read));
            registries.extend(read.map_err(|reason| SealError::PullSecret {
                workload: found.identity.shown(),
                secret: secret.clone(),
                reason,
            })?);
        }
        let workload = found.identity.shown();
        sealing.add_names(position, registries.iter().map(String::as_str))?;
        sealing.remove(position, FIELD)?;
        converted.workloads.insert(workload, registries);
        converted.secrets.extend(secrets);
    }
    if converted.workloads.is_empty() {
        return Err(SealError::NoPullSecrets);
    }
    for (registry, credential) in &credentials {
        if sealing.has((SealedKind::Registry, registry)) {
            converted.kept.insert(registry.clone());
            continue;
        }
        let content = credential.to_bytes().map_err(SealError::Seal)?;
        sealing.put((SealedKind::Registry, registry), &content, entropy)?;
    }
    converted.written = sealing.write()?;
    Ok(converted)
}

fn secrets(found: &Found) -> Vec<String> {
    let secrets = items(&found.template["spec"], FIELD).iter();
    let names = secrets.filter_map(|secret| secret["name"].as_str());
    names.map(str::to_owned).collect()
}

fn read(found: &Found, secret: &str, config: &ConfigObjects) -> Result<Credentials, String> {
    let namespace = found.identity.written_namespace.as_deref();
    let values = config.get("Secret", namespace, secret);
    let content = values.and_then(|values| values.get(DOCKER_CONFIG)).ok_or_else(|| {
        format!(
            "no Secret of this name in the files has `{DOCKER_CONFIG}`; add that of the cluster (`kubectl get secret {secret} -o yaml`), or seal the \
             credentials with `contrast seal registry`"
        )
    })?;
    let all = docker_config::credentials(content).map_err(|error| error.to_string())?;
    let all = all
        .into_iter()
        .map(|(registry, found)| Ok((registry, found?)));
    let credentials = all.collect::<Result<Credentials, DockerConfigError>>();
    let credentials = credentials.map_err(|error| error.to_string())?;
    match credentials.is_empty() {
        true => Err("it has no credentials".to_owned()),
        false => Ok(credentials),
    }
}

/// Returns the registries.
fn merge(all: &mut Credentials, more: Credentials) -> Result<BTreeSet<String>, String> {
    let registries: BTreeSet<String> = more.keys().cloned().collect();
    for (registry, credential) in more {
        if !is_sealed_name(&registry) {
            return Err(format!(
                "it has credentials of `{registry}`, expected HOST or HOST:PORT, since a guest has one login for all repositories of a registry; seal one \
                 with `contrast seal registry`"
            ));
        }
        let other = all.get(&registry);
        if other.is_some_and(|other| other.auth != credential.auth) {
            return Err(format!(
                "its credentials of `{registry}` differ from those of another Secret, and a deployment has one sealed login for a registry; seal one with \
                 `contrast seal registry`"
            ));
        }
        all.insert(registry, credential);
    }
    Ok(registries)
}
