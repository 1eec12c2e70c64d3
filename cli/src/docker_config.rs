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
    /// Nothing to log in with.
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
    /// Another kind of login.
    #[error(
        "its entry `{name}` has an `identitytoken`, which a guest cannot log in with; use a user and a password, or token, of the registry"
    )]
    IdentityToken {
        /// Its name in the document.
        name: String,
    },
    /// Which one?
    #[error("it has several entries of `{registry}`")]
    Several {
        /// The registry.
        registry: String,
    },
}

/// Credentials by registry, or why an entry has none.
pub(crate) type Credentials = BTreeMap<String, Result<RegistryCredential, DockerConfigError>>;

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Entry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// Credentials by registry, HOST or HOST:PORT, or with a path, as image references begin. Entries whose credentials a helper keeps are left out.
///
/// # Errors
/// When it is another document.
pub(crate) fn credentials(bytes: &[u8]) -> Result<Credentials, DockerConfigError> {
    let config: DockerConfig =
        serde_json::from_slice(bytes).map_err(|_| DockerConfigError::Form)?;
    let mut all = Credentials::new();
    for (name, entry) in &config.auths {
        let kept = [&entry.auth, &entry.username, &entry.identitytoken];
        if kept.iter().all(|part| part.is_empty()) {
            continue;
        }
        let registry = registry(name);
        let read = match all.contains_key(&registry) {
            true => Err(DockerConfigError::Several {
                registry: registry.clone(),
            }),
            false => credential(name, entry),
        };
        all.insert(registry, read);
    }
    Ok(all)
}

fn registry(name: &str) -> String {
    let plain = name.strip_prefix("https://").unwrap_or(name);
    match plain.trim_end_matches('/') {
        DOCKER_HUB => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

fn credential(name: &str, entry: &Entry) -> Result<RegistryCredential, DockerConfigError> {
    let name = name.to_owned();
    if !entry.identitytoken.is_empty() {
        return Err(DockerConfigError::IdentityToken { name });
    }
    let credential = match entry.auth.is_empty() {
        true => RegistryCredential::new(&entry.username, &entry.password),
        false => RegistryCredential::from_auth(&entry.auth),
    };
    credential.map_err(|source| DockerConfigError::Entry { name, source })
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
        let same = |found: &Result<RegistryCredential, _>| {
            found
                .as_ref()
                .is_ok_and(|credential| credential.auth == "YTpi")
        };
        assert!(found.values().all(same));
    }

    #[test]
    fn other_documents_are_refused_and_not_quoted() {
        for text in ["secret", "7", r#"{"auths": {"a": "secret"}}"#] {
            let error = credentials(text.as_bytes()).expect_err("refused");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn entry_that_no_guest_can_use_leaves_the_others() {
        let config = br#"{"auths": {
            "a": {"auth": "secret"}, "b": {"auth": "YTo="}, "c": {"auth": "YTpi", "identitytoken": "x"}, "d": {"username": "u"},
            "https://e": {"auth": "YTpi"}, "e": {"auth": "YTpi"}, "f": {"auth": "YTpi"}
        }}"#;
        let found = credentials(config).expect("credentials");
        let expected = [
            ("a", "entry `a` has no usable"),
            ("b", "entry `b` has no usable"),
            ("c", "`identitytoken`"),
            ("d", "entry `d` has no usable"),
            ("e", "several entries of `e`"),
        ];
        for (name, part) in expected {
            let error = found[name].as_ref().expect_err(name).to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(found["f"].is_ok());
    }
}
