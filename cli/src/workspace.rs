//! The files around a deployment: where they are, and how they are read and written.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{diagnostic::Diagnose, exit::Exit, transition::TransitionHash};

/// The manifest.
pub const MANIFEST: &str = "manifest.json";
/// Image configurations that `generate` fetched.
pub const IMAGE_CACHE: &str = "image-cache.json";
/// Private key of the workload owner.
pub const WORKLOAD_OWNER_KEY: &str = "workload-owner.pem";
/// Private key of the seed share owner.
pub const SEEDSHARE_OWNER_KEY: &str = "seedshare-owner.pem";
/// Encrypted seed shares.
pub const SEED_SHARES: &str = "seed-shares.json";
/// Root CA certificate of the deployment.
pub const ROOT_CA: &str = "coordinator-root-ca.pem";
/// Mesh CA certificate of the active transition.
pub const MESH_CA: &str = "mesh-ca.pem";
/// Public key to which secrets are sealed for the deployment.
pub const SEALING_KEY: &str = "sealing-key.pem";
/// Hash of the latest transition, 64 hex digits and a newline.
pub const LATEST_TRANSITION: &str = "latest-transition";
/// Directory of what `verify` saw.
pub const VERIFY_DIR: &str = "verify";

/// No file of ours is larger; a larger one is not what it should be.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// An initrd may hold a whole root file system.
const IMAGE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// A file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkspaceError {
    /// The workspace is not a directory.
    #[error("workspace `{}` is not a directory", .path.display())]
    NotADirectory {
        /// What was given.
        path: PathBuf,
    },
    /// A file that is needed does not exist.
    #[error("{what} `{}` does not exist", .path.display())]
    Missing {
        /// What the file is for, for example `manifest`.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What makes the file; empty when nothing of ours does.
        hint: &'static str,
    },
    /// A file exists and cannot be read.
    #[error("cannot read {what} `{}`", .path.display())]
    Read {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is far larger than such a file ever is.
    #[error("{what} `{}` has {found} bytes, expected at most {limit}", .path.display())]
    TooLarge {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A file could not be written; what was there before is untouched.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A `latest-transition` file holds something else.
    #[error("`{}` holds no transition hash", .path.display())]
    Transition {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: crate::transition::TransitionHashError,
    },
}

impl Diagnose for WorkspaceError {
    fn exit(&self) -> Exit {
        match self {
            Self::Write { .. } => Exit::Internal,
            _ => Exit::Usage,
        }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Missing { hint, .. } if !hint.is_empty() => vec![(*hint).to_owned()],
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                vec!["free space on the disk and run the same command again".into()]
            }
            Self::Transition { path, .. } => vec![format!(
                "restore `{}` from a backup, or give `--latest-transition` where the command takes it",
                path.display()
            )],
            _ => Vec::new(),
        }
    }
}

/// The directory that default paths and outputs are relative to.
#[derive(Debug, Clone)]
pub struct Workspace {
    dir: PathBuf,
}

impl Workspace {
    /// Opens a directory that exists. `.` is the current directory and never shows in paths.
    ///
    /// # Errors
    /// When `dir` is no directory.
    pub fn open(dir: &Path) -> Result<Self, WorkspaceError> {
        if !dir.is_dir() {
            return Err(WorkspaceError::NotADirectory {
                path: dir.to_owned(),
            });
        }
        let dir = if dir == Path::new(".") {
            PathBuf::new()
        } else {
            dir.to_owned()
        };
        Ok(Self { dir })
    }

    /// The path that was given, else `default` in the workspace.
    pub fn choose(&self, given: Option<&Path>, default: &str) -> PathBuf {
        given.map_or_else(|| self.path(default), Path::to_owned)
    }

    /// `name` in the workspace.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes `name` in the workspace atomically; its directory is created when missing.
    ///
    /// # Errors
    /// When it cannot be written; a file that was there is then untouched.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<PathBuf, WorkspaceError> {
        let path = self.path(name);
        replace(&path, contents)
            .map(|()| path.clone())
            .map_err(|source| WorkspaceError::Write { path, source })
    }

    /// Records the latest transition that this workspace saw.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_transition(
        &self,
        name: &str,
        hash: TransitionHash,
    ) -> Result<PathBuf, WorkspaceError> {
        self.write(name, format!("{hash}\n").as_bytes())
    }

    /// Every transition that this workspace recorded, the one that was recorded last first: `latest-transition` is
    /// written by `set` and `recover`, `verify/latest-transition` by `verify`.
    ///
    /// # Errors
    /// When a file exists and holds no transition hash.
    pub fn known_transitions(&self) -> Result<Vec<KnownTransition>, WorkspaceError> {
        let mut known = Vec::new();
        for name in [
            format!("{VERIFY_DIR}/{LATEST_TRANSITION}"),
            LATEST_TRANSITION.to_owned(),
        ] {
            let path = self.path(&name);
            let Some(bytes) = read_optional("latest transition", &path)? else {
                continue;
            };
            let text = String::from_utf8_lossy(&bytes);
            let hash = text
                .trim()
                .parse()
                .map_err(|source| WorkspaceError::Transition {
                    path: path.clone(),
                    source,
                })?;
            let recorded = fs::metadata(&path)
                .and_then(|metadata| metadata.modified())
                .unwrap_or(SystemTime::UNIX_EPOCH);
            known.push(KnownTransition {
                hash,
                path,
                recorded,
            });
        }
        known.sort_by_key(|transition| std::cmp::Reverse(transition.recorded));
        Ok(known)
    }
}

/// A transition that an earlier command saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTransition {
    /// Its hash.
    pub hash: TransitionHash,
    /// The file that says so.
    pub path: PathBuf,
    /// When the file was written.
    pub recorded: SystemTime,
}

/// Reads a file that must exist. `what` names its purpose and `hint` says what makes it.
///
/// # Errors
/// When the file is missing, unreadable or absurdly large.
pub fn read(
    what: &'static str,
    path: &Path,
    hint: &'static str,
) -> Result<Vec<u8>, WorkspaceError> {
    read_optional(what, path)?.ok_or_else(|| WorkspaceError::Missing {
        what,
        path: path.to_owned(),
        hint,
    })
}

/// Reads a part of a virtual machine's image, at most 2 GiB, that must exist.
///
/// # Errors
/// When the file is missing, unreadable or larger.
pub fn read_image(what: &'static str, path: &Path) -> Result<Vec<u8>, WorkspaceError> {
    read_bounded(what, path, IMAGE_BYTES_MAX)?.ok_or_else(|| WorkspaceError::Missing {
        what,
        path: path.to_owned(),
        hint: "",
    })
}

/// Replaces the file at `path` atomically.
///
/// # Errors
/// When it cannot be written; the file that was there is then untouched.
pub fn overwrite(path: &Path, contents: &[u8]) -> Result<(), WorkspaceError> {
    replace(path, contents).map_err(|source| WorkspaceError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Reads a file that may be missing.
///
/// # Errors
/// When the file exists and is unreadable or absurdly large.
pub fn read_optional(what: &'static str, path: &Path) -> Result<Option<Vec<u8>>, WorkspaceError> {
    read_bounded(what, path, FILE_BYTES_MAX)
}

fn read_bounded(
    what: &'static str,
    path: &Path,
    limit: u64,
) -> Result<Option<Vec<u8>>, WorkspaceError> {
    let failed = |source| WorkspaceError::Read {
        what,
        path: path.to_owned(),
        source,
    };
    let too_large = |found| WorkspaceError::TooLarge {
        what,
        path: path.to_owned(),
        found,
        limit,
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let size = file.metadata().map_err(failed)?.len();
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    // Devices and pipes have no size until they end.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    match u64::try_from(bytes.len()).unwrap_or(u64::MAX) {
        found if found > limit => Err(too_large(found)),
        _ => Ok(Some(bytes)),
    }
}

/// Replaces `path` by `contents` so that a crash leaves either the old file or the new one: temporary file in the same
/// directory, fsync, rename, fsync of the directory.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".contrast-");
    // These files are public; the temporary file would otherwise be readable by the owner only.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut file = builder.tempfile_in(dir)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    #[cfg(unix)]
    fs::File::open(dir)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> (tempfile::TempDir, Workspace) {
        let dir = tempfile::tempdir().expect("directory");
        let workspace = Workspace::open(dir.path()).expect("workspace");
        (dir, workspace)
    }

    #[test]
    fn explicit_path_is_not_moved_into_the_workspace() {
        let (dir, workspace) = workspace();
        assert_eq!(
            workspace.choose(None, MANIFEST),
            dir.path().join("manifest.json")
        );
        assert_eq!(
            workspace.choose(Some(Path::new("x.json")), MANIFEST),
            Path::new("x.json")
        );
        let here = Workspace::open(Path::new(".")).expect("current directory");
        assert_eq!(here.path(MANIFEST), Path::new("manifest.json"));
    }

    #[test]
    fn write_replaces_and_leaves_no_temporary_file() {
        let (dir, workspace) = workspace();
        workspace.write("verify/a", b"one").expect("write");
        workspace.write("verify/a", b"two").expect("write again");
        assert_eq!(fs::read(dir.path().join("verify/a")).expect("read"), b"two");
        assert_eq!(
            fs::read_dir(dir.path().join("verify"))
                .expect("list")
                .count(),
            1
        );
    }

    #[test]
    fn failed_write_leaves_the_old_file() {
        let (dir, workspace) = workspace();
        // A directory in the file's place makes the rename fail after the data was written.
        fs::create_dir(dir.path().join("a")).expect("directory");
        workspace
            .write("a", b"new")
            .expect_err("cannot replace a directory");
        assert!(dir.path().join("a").is_dir());
        assert_eq!(
            fs::read_dir(dir.path()).expect("list").count(),
            1,
            "temporary file is left"
        );
    }

    #[test]
    fn transition_recorded_last_comes_first() {
        let (dir, workspace) = workspace();
        assert!(workspace.known_transitions().expect("none").is_empty());
        let (old, new) = (TransitionHash([1; 32]), TransitionHash([2; 32]));
        let age = |name: &str, seconds: u64| {
            let file = fs::File::options()
                .write(true)
                .open(dir.path().join(name))
                .expect("open");
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(time).expect("set time");
        };
        workspace
            .write_transition(LATEST_TRANSITION, old)
            .expect("write");
        workspace
            .write_transition("verify/latest-transition", new)
            .expect("write");
        age(LATEST_TRANSITION, 1000);
        age("verify/latest-transition", 2000);
        let hashes = |workspace: &Workspace| -> Vec<TransitionHash> {
            workspace
                .known_transitions()
                .expect("known")
                .iter()
                .map(|known| known.hash)
                .collect()
        };
        assert_eq!(hashes(&workspace), [new, old]);
        age(LATEST_TRANSITION, 3000);
        assert_eq!(hashes(&workspace), [old, new]);
    }

    #[cfg(unix)]
    #[test]
    fn a_device_without_end_is_read_up_to_the_limit() {
        let error = read("evidence", Path::new("/dev/zero"), "").expect_err("too large");
        assert!(
            matches!(error, WorkspaceError::TooLarge { found, .. } if found == FILE_BYTES_MAX + 1),
            "{error:?}"
        );
        assert_eq!(
            read("evidence", Path::new("/dev/null"), "").expect("empty"),
            b""
        );
    }

    #[test]
    fn garbage_in_latest_transition_is_refused() {
        let (_dir, workspace) = workspace();
        workspace
            .write(LATEST_TRANSITION, b"not a hash")
            .expect("write");
        let error = workspace.known_transitions().expect_err("garbage");
        assert!(
            matches!(error, WorkspaceError::Transition { .. }),
            "{error:?}"
        );
    }
}
