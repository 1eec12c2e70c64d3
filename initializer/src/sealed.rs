//! Sealed secrets of the manifest, which the Coordinator opened for this pod: files for the application, and credentials for the guest
//! that pulls images.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Component, Path, PathBuf},
};

use contrast_pki::{RegistryCredential, SealedFiles, SealingError};
use contrast_proto::mesh::SealedSecret;
use zeroize::Zeroizing;

use crate::{
    InstallError, Target,
    install::{PRIVATE, make_directory},
};

const DIRECTORY: &str = "sealed";
const DOCKER_CONFIG: &str = "config.json";
/// Under this name Docker and those who follow it look for credentials of `docker.io`.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Contents by key.
type Files = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// What the manifest gives a pod.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sealed {
    /// By name of the secret.
    files: BTreeMap<String, Files>,
    /// By host: `user:password` in base64.
    registries: BTreeMap<String, Zeroizing<String>>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("files", &self.files.keys())
            .field("registries", &self.registries.keys())
            .finish()
    }
}

/// The Coordinator sent something that this version cannot deliver.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealedError {
    #[error(
        "sealed secret `{name}`: expected the kind `Files` or `Registry`, found `{kind}`; update the Initializer"
    )]
    Kind { name: String, kind: String },
    #[error("a sealed secret has the name {name:?}, expected one that can be a directory")]
    Name { name: String },
    #[error("sealed secret `{name}`: {reason}")]
    Content { name: String, reason: SealingError },
}

impl Sealed {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.registries.is_empty()
    }

    pub(crate) fn read(secrets: &[SealedSecret]) -> Result<Self, SealedError> {
        let mut sealed = Self::default();
        for SealedSecret {
            kind,
            name,
            content,
        } in secrets
        {
            let unreadable = |reason| SealedError::Content {
                name: name.clone(),
                reason,
            };
            match kind.as_str() {
                "Files" => {
                    if !is_directory_name(name) {
                        return Err(SealedError::Name { name: name.clone() });
                    }
                    let files = SealedFiles::from_bytes(content).map_err(unreadable)?;
                    let owned = |(key, content): (&str, &[u8])| {
                        (key.to_owned(), Zeroizing::new(content.to_vec()))
                    };
                    let files = files.iter().map(owned).collect();
                    sealed.files.insert(name.clone(), files);
                }
                "Registry" => {
                    let credential = RegistryCredential::from_bytes(content).map_err(unreadable)?;
                    let auth = Zeroizing::new(credential.auth.clone());
                    sealed.registries.insert(name.clone(), auth);
                }
                kind => {
                    return Err(SealedError::Kind {
                        name: name.clone(),
                        kind: kind.to_owned(),
                    });
                }
            }
        }
        Ok(sealed)
    }

    /// The credentials as a Docker configuration. The base64 of which they are made needs no escapes, and no host has any.
    fn docker_config(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::from("{\"auths\":{"));
        let hub = self.registries.get("docker.io");
        let entries = self.registries.iter();
        let entries = entries.map(|(host, auth)| (host.as_str(), auth));
        for (index, (host, auth)) in entries
            .chain(hub.map(|auth| (DOCKER_HUB, auth)))
            .enumerate()
        {
            if index > 0 {
                text.push(',');
            }
            for part in ["\"", host, "\":{\"auth\":\"", auth.as_str(), "\"}"] {
                text.push_str(part);
            }
        }
        text.push_str("}}\n");
        text
    }
}

/// Whoever answers first is not judged: what it says must not lead out of the directory.
fn is_directory_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let single = matches!(components.next(), Some(Component::Normal(only)) if only == name);
    single && components.next().is_none() && !name.starts_with('.')
}

/// Writes what there is, and removes what there is no more.
pub(crate) fn install(target: &Target, sealed: &Sealed) -> Result<(), InstallError> {
    let directory = target.base.join(DIRECTORY);
    if !sealed.files.is_empty() {
        make_directory(&directory, 0o755)?;
    }
    for (name, files) in &sealed.files {
        let directory = directory.join(name);
        make_directory(&directory, 0o755)?;
        for (key, content) in files {
            target.replace(&directory, key, content, PRIVATE)?;
        }
        remove_others(&directory, |key| files.contains_key(key))?;
    }
    remove_others(&directory, |name| sealed.files.contains_key(name))?;
    install_credentials(target, sealed)
}

fn install_credentials(target: &Target, sealed: &Sealed) -> Result<(), InstallError> {
    let Some(directory) = &target.pull_credentials else {
        return match sealed.registries.is_empty() {
            true => Ok(()),
            false => Err(InstallError {
                path: PathBuf::from(DOCKER_CONFIG),
                source: io::Error::other(
                    "the manifest gives this pod credentials of registries, and CONTRAST_PULL_CREDENTIALS_DIR names no directory for \
                     them; run `contrast generate` and apply its output",
                ),
            }),
        };
    };
    if sealed.registries.is_empty() {
        return removed(directory.join(DOCKER_CONFIG), |path| fs::remove_file(path));
    }
    make_directory(directory, 0o700)?;
    let config = sealed.docker_config();
    // The guest's agent reads it as root.
    let own = Target {
        owner: None,
        ..target.clone()
    };
    own.replace(directory, DOCKER_CONFIG, config.as_bytes(), PRIVATE)
}

/// Removes what is in `directory` and not to `stay`.
fn remove_others(directory: &Path, stay: impl Fn(&str) -> bool) -> Result<(), InstallError> {
    let failed = |source| InstallError {
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(&stay) {
            continue;
        }
        let is_directory = entry.file_type().map_err(failed)?.is_dir();
        removed(entry.path(), |path| match is_directory {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        })?;
    }
    Ok(())
}

fn removed(
    path: PathBuf,
    remove: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), InstallError> {
    match remove(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(InstallError { path, source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn files(name: &str, files: &[(&str, &str)]) -> SealedSecret {
        let mut content = SealedFiles::default();
        for (key, text) in files {
            content.insert(key, text.as_bytes());
        }
        secret("Files", name, &content.to_bytes().expect("encodes"))
    }

    fn registry(host: &str, password: &str) -> SealedSecret {
        let credential = RegistryCredential::new("me", password).expect("usable");
        secret("Registry", host, &credential.to_bytes().expect("encodes"))
    }

    fn secret(kind: &str, name: &str, content: &[u8]) -> SealedSecret {
        SealedSecret {
            kind: kind.to_owned(),
            name: name.to_owned(),
            content: content.to_vec().into(),
        }
    }

    fn put(target: &Target, secrets: &[SealedSecret]) -> Result<(), InstallError> {
        install(target, &Sealed::read(secrets).expect("reads"))
    }

    #[test]
    fn files_follow_the_manifest_and_are_for_their_owner_alone() {
        let base = tempfile::tempdir().expect("directory");
        let target = Target::own(base.path().to_owned());
        put(&target, &[]).expect("installs");
        assert!(!base.path().join("sealed").exists());
        let first = [
            files("db", &[("password", "one"), ("user", "me")]),
            files("old", &[("x", "y")]),
        ];
        put(&target, &first).expect("installs");
        let path = |name: &str| base.path().join("sealed").join(name);
        let read = |name: &str| fs::read_to_string(path(name)).expect("installed");
        assert_eq!(
            (read("db/password"), read("db/user")),
            ("one".into(), "me".into())
        );
        let mode = fs::metadata(path("db/password"))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o400);
        put(&target, &[files("db", &[("password", "two")])]).expect("installs");
        assert_eq!(read("db/password"), "two");
        assert!(!path("db/user").exists() && !path("old").exists());
        put(&target, &[]).expect("installs");
        assert!(!path("db").exists());
    }

    #[test]
    fn credentials_are_one_docker_configuration_in_their_own_directory() {
        let base = tempfile::tempdir().expect("directory");
        let pull = tempfile::tempdir().expect("directory");
        let target = Target {
            pull_credentials: Some(pull.path().to_owned()),
            ..Target::own(base.path().to_owned())
        };
        put(
            &target,
            &[registry("ghcr.io", "one"), registry("docker.io", "two")],
        )
        .expect("installs");
        let path = pull.path().join("config.json");
        let text = fs::read_to_string(&path).expect("installed");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(json["auths"]["ghcr.io"]["auth"], "bWU6b25l");
        assert_eq!(
            json["auths"]["https://index.docker.io/v1/"]["auth"],
            "bWU6dHdv"
        );
        assert_eq!(json["auths"].as_object().expect("an object").len(), 3);
        assert!(
            !base.path().join("sealed").exists(),
            "not for the application"
        );
        put(&target, &[]).expect("installs");
        assert!(!path.exists());
        // Without the directory nobody could pull; the pod must not start as if all were well.
        let without = Target::own(base.path().to_owned());
        let error = put(&without, &[registry("ghcr.io", "one")]).expect_err("nowhere");
        assert!(
            error
                .source
                .to_string()
                .contains("CONTRAST_PULL_CREDENTIALS_DIR")
        );
    }

    #[test]
    fn what_leads_elsewhere_or_is_unknown_is_refused() {
        for name in ["..", ".", "", "a/b", "/a", ".hidden", "a/"] {
            assert!(Sealed::read(&[files(name, &[])]).is_err(), "{name}");
        }
        for wrong in [
            secret("Other", "a", b"{}"),
            secret("Files", "a", b"{}"),
            secret("Registry", "a", b"{}"),
        ] {
            assert!(Sealed::read(&[wrong]).is_err());
        }
        let sealed = Sealed::read(&[files("db", &[("password", "geheim")])]).expect("reads");
        assert!(!format!("{sealed:?}").contains("geheim"));
    }
}
