//! All files or none: everything is on the disk under other names before the first rename.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile};
use zeroize::Zeroizing;

use super::GenerateError;

/// A file's new content.
#[derive(Debug)]
pub(super) struct Change {
    path: PathBuf,
    content: Zeroizing<Vec<u8>>,
    private: bool,
    with_parents: bool,
}

impl Change {
    /// Readable by everybody (0644 at most, as the umask says), or as the file was.
    pub(super) fn public(path: PathBuf, content: Vec<u8>) -> Self {
        Self {
            path,
            content: Zeroizing::new(content),
            private: false,
            with_parents: false,
        }
    }

    /// The same, in directories that are made when they are missing.
    pub(super) fn below(path: PathBuf, content: Vec<u8>) -> Self {
        Self {
            with_parents: true,
            ..Self::public(path, content)
        }
    }

    /// Readable by the owner only (0600).
    pub(super) fn private(path: PathBuf, content: Zeroizing<Vec<u8>>) -> Self {
        Self {
            path,
            content,
            private: true,
            with_parents: false,
        }
    }
}

impl Change {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is on the disk, if it is not what it would be.
    pub(super) fn outdated(&self) -> Option<Vec<u8>> {
        match fs::read(&self.path) {
            Ok(old) if *old == **self.content => None,
            old => Some(old.unwrap_or_default()),
        }
    }

    /// The difference for people, as a unified diff; of a private file only that it would be made.
    pub(super) fn diff(&self) -> Option<String> {
        let old = self.outdated()?;
        let path = self.path.display();
        if self.private {
            return Some(format!("new private file {path}\n"));
        }
        let (old, new) = (
            String::from_utf8_lossy(&old),
            String::from_utf8_lossy(&self.content),
        );
        let before = if old.is_empty() {
            "/dev/null".to_owned()
        } else {
            path.to_string()
        };
        let diff = similar::TextDiff::from_lines(old.as_ref(), new.as_ref());
        Some(
            diff.unified_diff()
                .header(&before, &path.to_string())
                .to_string(),
        )
    }
}

/// Writes what differs and returns the paths of these files.
pub(super) fn all(changes: Vec<Change>) -> Result<Vec<PathBuf>, GenerateError> {
    let mut staged = Vec::new();
    for mut change in changes {
        if change.outdated().map(Zeroizing::new).is_some() {
            let shown = change.path.clone();
            // A link stays one, and what it leads to is changed.
            if let Ok(real) = fs::canonicalize(&change.path) {
                change.path = real;
            }
            make_parent(&change)?;
            let file = stage(&change).map_err(|source| failed(&change.path, source))?;
            staged.push((file, change.path, shown));
        }
    }
    let mut written = Vec::new();
    for (file, path, shown) in staged {
        file.persist(&path)
            .map_err(|error| failed(&path, error.error))?;
        sync_directory(&path).map_err(|source| failed(&path, source))?;
        written.push(shown);
    }
    Ok(written)
}

/// Below an output directory there may be directories to make. They are no harm when another file cannot be written.
fn make_parent(change: &Change) -> Result<(), GenerateError> {
    match change.with_parents {
        true => {
            fs::create_dir_all(parent(&change.path)).map_err(|source| failed(&change.path, source))
        }
        false => Ok(()),
    }
}

fn stage(change: &Change) -> io::Result<NamedTempFile> {
    let mut file = Builder::new()
        .prefix(".contrast-")
        .tempfile_in(parent(&change.path))?;
    file.write_all(&change.content)?;
    if !change.private {
        let permissions = match fs::metadata(&change.path) {
            Ok(old) => old.permissions(),
            Err(_) => public_permissions(file.as_file().metadata()?.permissions()),
        };
        file.as_file().set_permissions(permissions)?;
    }
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(unix)]
fn public_permissions(mut permissions: Permissions) -> Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    permissions.set_mode(0o644);
    permissions
}

#[cfg(not(unix))]
fn public_permissions(permissions: Permissions) -> Permissions {
    permissions
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(parent(path))?.sync_all(),
        false => Ok(()),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn failed(path: &Path, source: io::Error) -> GenerateError {
    GenerateError::File {
        action: "write",
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_that_cannot_be_written_leaves_the_others_as_they_were() {
        let directory = tempfile::tempdir().expect("directory");
        let first = directory.path().join("first");
        fs::write(&first, "old").expect("writes");
        let changes = vec![
            Change::public(first.clone(), b"new".to_vec()),
            Change::public(directory.path().join("missing/second"), b"new".to_vec()),
        ];
        let error = all(changes).expect_err("no such directory").to_string();
        assert!(error.ends_with("missing/second"), "{error}");
        assert_eq!(fs::read_to_string(&first).expect("reads"), "old");
        assert_eq!(fs::read_dir(directory.path()).expect("reads").count(), 1);
    }

    #[test]
    fn unchanged_file_is_not_written() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("file");
        let write = || all(vec![Change::public(path.clone(), b"text".to_vec())]).expect("writes");
        assert_eq!(write(), std::slice::from_ref(&path));
        assert!(write().is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn private_file_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("key.pem");
        all(vec![Change::private(
            path.clone(),
            Zeroizing::new(b"key".to_vec()),
        )])
        .expect("writes");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
