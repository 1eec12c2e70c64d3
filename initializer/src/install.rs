use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use contrast_firewall::ENVOY_UID;
use contrast_pki::RootKey;
use zeroize::Zeroizing;

use crate::{Credentials, sealed};

const TLS_DIRECTORY: &str = "tls-config";
const CHAIN: &str = "certChain.pem";
const ROOT_CA: &str = "coordinator-root-ca.pem";
const SECRETS_DIRECTORY: &str = "secrets";
const SECRET: &str = "workload-secret-seed";
pub(crate) const PUBLIC: u32 = 0o444;
pub(crate) const PRIVATE: u32 = 0o400;
/// For the owner and for [`ENVOY_UID`] as group.
const ENVOY: u32 = 0o440;

/// Where files are installed, and for whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// Base directory.
    pub base: PathBuf,
    /// User that private files are given to, which takes root; the own user without one.
    pub owner: Option<u32>,
    /// Directory for the guest's credentials of registries.
    pub pull_credentials: Option<PathBuf>,
}

/// A file could not be installed; files that were there before are unchanged.
#[derive(Debug, thiserror::Error)]
#[error("cannot install {}", path.display())]
pub struct InstallError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// Nobody can tell which deployment this pod belongs to.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}, which says to which deployment this pod belongs; replace the pod", path.display())]
pub struct DeploymentError {
    /// The certificate's file.
    pub path: PathBuf,
    /// What is wrong.
    #[source]
    pub source: io::Error,
}

impl Target {
    /// Files for the own user.
    pub fn own(base: PathBuf) -> Self {
        Self {
            base,
            owner: None,
            pull_credentials: None,
        }
    }
}

/// Installs `credentials` and their key, PKCS#8 PEM, in `target`. Each file is written beside its place, synced and renamed,
/// so a reader sees the old content or the new one, whole. What is trusted comes before what is presented, and the chain
/// last: whoever waits for the chain finds all.
///
/// # Errors
/// When a file cannot be written, for example because the volume is full, or not be given to its owner.
pub fn install(
    target: &Target,
    credentials: &Credentials,
    private_key: &str,
) -> Result<(), InstallError> {
    let tls = target.base.join(TLS_DIRECTORY);
    make_directory(&tls, 0o755)?;
    install_secret(target, credentials)?;
    sealed::install(target, &credentials.sealed)?;
    let root_ca = credentials.root_ca.as_bytes();
    target.replace(&tls, ROOT_CA, root_ca, PUBLIC)?;
    let bundle = credentials.bundle();
    target.replace(&tls, "mesh-ca.pem", bundle.as_bytes(), PUBLIC)?;
    target.replace(&tls, "key.pem", private_key.as_bytes(), ENVOY)?;
    let chain = credentials.certificate_chain.as_bytes();
    target.replace(&tls, CHAIN, chain, PUBLIC)
}

/// Another manifest may give the workload another secret, or none.
fn install_secret(target: &Target, credentials: &Credentials) -> Result<(), InstallError> {
    let secrets = target.base.join(SECRETS_DIRECTORY);
    if let Some(secret) = &credentials.workload_secret {
        make_directory(&secrets, 0o755)?;
        let text = Zeroizing::new(hex::encode(secret));
        return target.replace(&secrets, SECRET, text.as_bytes(), PRIVATE);
    }
    let path = secrets.join(SECRET);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(InstallError { path, source })
        }
        _ => Ok(()),
    }
}

/// Key of the root CA that is installed below `base`, if there is one: that of the deployment which this pod belongs to.
///
/// # Errors
/// When there is a file that cannot be read as a certificate.
pub(crate) fn root_key(base: &Path) -> Result<Option<RootKey>, DeploymentError> {
    let path = base.join(TLS_DIRECTORY).join(ROOT_CA);
    let key = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => Err(error),
        Ok(pem) => RootKey::of_certificate(&pem).map_err(io::Error::other),
    };
    key.map(Some)
        .map_err(|source| DeploymentError { path, source })
}

/// Whether a certificate was installed below `base`. The chain is the last file that [`install`] writes.
pub fn is_installed(base: &Path) -> bool {
    base.join(TLS_DIRECTORY).join(CHAIN).is_file()
}

pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), InstallError> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|source| InstallError {
            path: path.to_owned(),
            source,
        })
}

impl Target {
    /// Leaves a file alone that already has this content, so that watchers see only real changes.
    pub(crate) fn replace(
        &self,
        directory: &Path,
        name: &str,
        content: &[u8],
        mode: u32,
    ) -> Result<(), InstallError> {
        let path = directory.join(name);
        if self.is_same(&path, content, mode) {
            return Ok(());
        }
        let write = || -> io::Result<()> {
            let mut file = tempfile::Builder::new()
                .prefix(".installing-")
                .tempfile_in(directory)?;
            // Who may read it before the mode, so that nobody else ever does. The umask may have taken bits of the mode away.
            let mode = effective_mode(file.as_file(), mode)?;
            file.as_file()
                .set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(content)?;
            file.as_file().sync_all()?;
            if let Some(owner) = self.owner_of(mode) {
                fchown(file.as_file(), Some(owner), None)?;
            }
            file.persist(&path)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|source| InstallError {
            path: path.clone(),
            source,
        })
    }

    /// The user that a file with this mode is to be given to.
    fn owner_of(&self, mode: u32) -> Option<u32> {
        self.owner.filter(|_| mode != PUBLIC)
    }

    fn is_same(&self, path: &Path, content: &[u8], mode: u32) -> bool {
        let same_mode = fs::symlink_metadata(path).is_ok_and(|found| {
            let has = found.permissions().mode() & 0o7777;
            let fits = has == mode && (mode != ENVOY || found.gid() == ENVOY_UID);
            let owned = self.owner_of(mode).is_none_or(|owner| found.uid() == owner);
            found.is_file() && owned && (fits || mode == ENVOY && has == PRIVATE)
        });
        same_mode
            && fs::read(path)
                .map(Zeroizing::new)
                .is_ok_and(|found| *found == content)
    }
}

/// Gives a file that Envoy is to read to Envoy's group. Without root that may be refused; then Envoy runs as the user of the
/// Initializer, and the file is for that user alone.
fn effective_mode(file: &File, mode: u32) -> io::Result<u32> {
    if mode != ENVOY {
        return Ok(mode);
    }
    match fchown(file, None, Some(ENVOY_UID)) {
        Ok(()) => Ok(ENVOY),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(PRIVATE),
        // A user namespace without this group.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(PRIVATE),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(chain: &str) -> Credentials {
        Credentials {
            trusted: vec!["new\n".into(), "old".into()],
            root_ca: "root".into(),
            certificate_chain: chain.into(),
            workload_secret: Some(Zeroizing::new(vec![0xab; 64])),
            sealed: Default::default(),
        }
    }

    fn own(base: &tempfile::TempDir) -> Target {
        Target::own(base.path().to_owned())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("installed").permissions().mode() & 0o7777
    }

    #[test]
    fn files_have_the_documented_modes_and_content() {
        let base = tempfile::tempdir().expect("directory");
        assert!(!is_installed(base.path()));
        install(&own(&base), &credentials("chain"), "key").expect("installs");
        assert!(is_installed(base.path()));
        let tls = base.path().join("tls-config");
        assert_eq!(mode(&tls.join("mesh-ca.pem")), 0o444);
        assert_eq!(mode(&tls.join("certChain.pem")), 0o444);
        assert_eq!(mode(&tls.join("coordinator-root-ca.pem")), 0o444);
        let key = fs::metadata(tls.join("key.pem")).expect("installed");
        // Not everybody may give a file to a group.
        let expected = match key.gid() == ENVOY_UID {
            true => 0o440,
            false => 0o400,
        };
        assert_eq!(key.permissions().mode() & 0o7777, expected);
        let secret = base.path().join("secrets/workload-secret-seed");
        assert_eq!(mode(&secret), 0o400);
        assert_eq!(
            fs::read_to_string(secret).expect("readable"),
            "ab".repeat(64)
        );
        let bundle = fs::read_to_string(tls.join("mesh-ca.pem")).expect("readable");
        assert_eq!(bundle, "new\nold\n");
    }

    #[test]
    fn private_files_belong_to_the_owner_where_that_is_permitted() {
        let base = tempfile::tempdir().expect("directory");
        let target = Target {
            owner: Some(1234),
            ..own(&base)
        };
        let owner = |name: &str| fs::metadata(base.path().join(name)).map(|found| found.uid());
        match install(&target, &credentials("chain"), "key") {
            Ok(()) => {
                assert_eq!(owner("tls-config/key.pem").expect("key"), 1234);
                assert_eq!(owner("secrets/workload-secret-seed").expect("secret"), 1234);
                let chain = owner("tls-config/certChain.pem").expect("chain");
                assert_ne!(chain, 1234);
            }
            // Without root.
            Err(error) => {
                assert_eq!(error.source.kind(), io::ErrorKind::PermissionDenied);
                assert!(owner("secrets/workload-secret-seed").is_err());
            }
        }
    }

    #[test]
    fn secret_goes_when_the_manifest_gives_none() {
        let base = tempfile::tempdir().expect("directory");
        let mut credentials = credentials("chain");
        install(&own(&base), &credentials, "key").expect("installs");
        credentials.workload_secret = None;
        install(&own(&base), &credentials, "key").expect("installs");
        assert!(!base.path().join("secrets/workload-secret-seed").exists());
    }

    #[test]
    fn renewal_replaces_only_what_changed_and_leaves_no_litter() {
        let base = tempfile::tempdir().expect("directory");
        install(&own(&base), &credentials("old"), "key").expect("installs");
        let tls = base.path().join("tls-config");
        let key_before = fs::metadata(tls.join("key.pem"))
            .expect("key")
            .modified()
            .expect("time");
        install(&own(&base), &credentials("new"), "key").expect("installs again");
        assert_eq!(
            fs::read_to_string(tls.join("certChain.pem")).expect("chain"),
            "new"
        );
        let key_after = fs::metadata(tls.join("key.pem"))
            .expect("key")
            .modified()
            .expect("time");
        assert_eq!(key_before, key_after);
        assert_eq!(fs::read_dir(&tls).expect("directory").count(), 4);
    }

    #[test]
    fn failure_names_the_path() {
        let base = tempfile::tempdir().expect("directory");
        fs::write(base.path().join("tls-config"), "a file in the way").expect("writes");
        let error =
            install(&own(&base), &credentials("chain"), "key").expect_err("not a directory");
        assert!(error.to_string().ends_with("tls-config"), "{error}");
    }
}
