//! Credentials of registries as Docker keeps them, in `config.json` and in Kubernetes' Secrets of the type `kubernetes.io/dockerconfigjson`.

use std::collections::BTreeMap;

use contrast_pki::{RegistryCredential, SealingError};
use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Under this name Docker keeps the credentials of `docker.io`.
const DOCKER_HUB: &str = "index.docker.io/v1";

/// Why a Docker configuration gives no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DockerConfigError {
    /// Another document. The reader's error is left out: it may quote what it read.
    #[error("it is no Docker configuration")]
    Form,
    /// An entry that cannot be used.
    #[error(
        "its entry `{name}` has no usable credentials; expected `auth`, or `username` and `password`"
    )]
    Entry {
        /// Its name in the document.
        name: String,
        /// Why.
        #[source]
        source: SealingError,
    },
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// Credentials by registry, HOST or HOST:PORT, or with a path, as image references begin. Entries whose credentials a helper keeps are left out.
///
/// # Errors
/// When it is another document, or an entry cannot be read by a guest.
pub(crate) fn credentials(
    bytes: &[u8],
) -> Result<BTreeMap<String, RegistryCredential>, DockerConfigError> {
    let config: DockerConfig =
        serde_json::from_slice(bytes).map_err(|_| DockerConfigError::Form)?;
    let kept = |entry: &Entry| !entry.auth.is_empty() || !entry.username.is_empty();
    let entries = config.auths.iter().filter(|(_, entry)| kept(entry));
    let read = entries.map(|(name, entry)| {
        let credential = credential(entry).map_err(|source| DockerConfigError::Entry {
            name: name.clone(),
            source,
        })?;
        Ok((registry(name), credential))
    });
    read.collect()
}

fn registry(name: &str) -> String {
    let plain = name.strip_prefix("https://").unwrap_or(name);
    match plain.trim_end_matches('/') {
        DOCKER_HUB => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

fn credential(entry: &Entry) -> Result<RegistryCredential, SealingError> {
    if entry.auth.is_empty() {
        return RegistryCredential::new(&entry.username, &entry.password);
    }
    let credential = RegistryCredential {
        auth: entry.auth.clone(),
    };
    // What no guest could read must not be sealed.
    RegistryCredential::from_bytes(&credential.to_bytes()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_image_references() {
        let config = br#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YTpi"}, "ghcr.io": {"username": "a", "password": "b"},
            "https://registry.example:5000/": {"auth": "YTpi", "email": "x"}, "helped.example": {}
        }}"#;
        let found = credentials(config).expect("credentials");
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["docker.io", "ghcr.io", "registry.example:5000"]);
        assert!(found.values().all(|credential| credential.auth == "YTpi"));
    }

    #[test]
    fn other_documents_are_refused_and_not_quoted() {
        for text in ["secret", "[]", r#"{"auths": {"a": "secret"}}"#] {
            let error = credentials(text.as_bytes()).expect_err("refused");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        let error = credentials(br#"{"auths": {"a": {"auth": "secret"}}}"#).expect_err("refused");
        assert!(error.to_string().contains("entry `a`"), "{error}");
    }
}
