#[cfg(target_os = "linux")]
mod guest;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use serde::{Deserialize, de::IgnoredAny};
use zeroize::Zeroizing;

use crate::reference::DEFAULT_REGISTRY;

/// Under this key Docker keeps the credentials for Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Names the user's directory, as Docker has it.
const HOME: &str = match cfg!(windows) {
    true => "USERPROFILE",
    false => "HOME",
};
/// What helpers print when they know nothing of a registry (`docker-credential-helpers`).
const HELPER_KNOWS_NONE: &str = "credentials not found";

/// A file with credentials for registries, `config.json` of Docker or `auth.json` of Podman: `auths`, `credHelpers`, `credsStore`.
///
/// Helpers run as `docker-credential-NAME get`, and only when a registry asks for credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFile {
    path: PathBuf,
    helpers: Helpers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Helpers {
    Run,
    #[cfg(target_os = "linux")]
    Refuse,
}

/// What a file says of helpers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedHelpers {
    #[serde(default)]
    cred_helpers: BTreeMap<String, IgnoredAny>,
    #[serde(default)]
    creds_store: Option<String>,
}

/// Credentials for a registry.
pub(crate) enum Credential {
    Password {
        user: String,
        password: Zeroizing<String>,
    },
    /// OAuth 2 refresh token.
    IdentityToken(Zeroizing<String>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// Credentials cannot be found out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("cannot read the registry credentials in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file or a helper is unusable.
    #[error("no credentials for {registry} from {}: {reason}", path.display())]
    Unusable {
        /// The registry.
        registry: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl CredentialFile {
    /// The file at `path`; one that is not there has no credentials.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            helpers: Helpers::Run,
        }
    }

    /// The file at `path`, for a guest: it may have `auths` only, because no helper is run. It has to be a regular file of at most
    /// 1 MiB, and no link to one, because a container may have written it.
    #[cfg(target_os = "linux")]
    pub fn without_helpers(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            helpers: Helpers::Refuse,
        }
    }

    /// The file that `REGISTRY_AUTH_FILE` names, or `config.json` in the directory that `DOCKER_CONFIG` names, or
    /// `.docker/config.json` in `HOME`, on Windows in `USERPROFILE`.
    pub fn of_environment(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let below =
            |directory: &str, file: &str| Some(PathBuf::from(variable(directory)?).join(file));
        let path = variable("REGISTRY_AUTH_FILE")
            .map(PathBuf::from)
            .or_else(|| below("DOCKER_CONFIG", "config.json"))
            .or_else(|| below(HOME, ".docker/config.json"))?;
        Some(Self {
            path,
            helpers: Helpers::Run,
        })
    }

    /// Credentials for a registry, `host[:port]`.
    pub(crate) fn get(&self, registry: &str) -> Result<Option<Credential>, CredentialError> {
        let text = match self.helpers {
            Helpers::Run => fs::read(&self.path).map(Zeroizing::new),
            #[cfg(target_os = "linux")]
            Helpers::Refuse => guest::read(&self.path),
        };
        let text = match text {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(CredentialError::Read {
                    path: self.path.clone(),
                    source,
                });
            }
        };
        let key = match registry {
            DEFAULT_REGISTRY => DOCKER_HUB_KEY,
            other => other,
        };
        let unusable = |reason: String| {
            Err(CredentialError::Unusable {
                registry: registry.to_owned(),
                path: self.path.clone(),
                reason,
            })
        };
        if self.helpers != Helpers::Run {
            match serde_json::from_slice::<NamedHelpers>(&text) {
                Ok(named) if named.cred_helpers.is_empty() && named.creds_store.is_none() => {}
                Ok(_) => {
                    return unusable(
                        "it names a credential helper, and none is run here; expected `auths` only"
                            .to_owned(),
                    );
                }
                // What is there instead may be a secret.
                Err(_) => return unusable("it is no `config.json` of Docker".to_owned()),
            }
        }
        match get_credential_from_reader(text.as_slice(), key) {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                Ok(Some(Credential::Password {
                    user,
                    password: Zeroizing::new(password),
                }))
            }
            Ok(DockerCredential::IdentityToken(token)) => {
                Ok(Some(Credential::IdentityToken(Zeroizing::new(token))))
            }
            Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
            Err(CredentialRetrievalError::HelperFailure {
                helper,
                stdout,
                stderr,
            }) => match stdout.contains(HELPER_KNOWS_NONE) || stderr.contains(HELPER_KNOWS_NONE) {
                true => Ok(None),
                // Standard output is where a helper prints secrets.
                false => unusable(format!("the helper `{helper}` failed: {}", stderr.trim())),
            },
            Err(error) => unusable(error.to_string()),
        }
    }
}
