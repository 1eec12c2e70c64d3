//! Where files come from: the image of the installer.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    config::File,
    integrity::{self, Content, Differs, Integrity},
    path::{HostPath, NotPlain},
};

/// Directories may be nested so deep.
const DEPTH_MAX: usize = 32;

/// A file as it is to be on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedFile {
    /// Where it goes.
    pub path: HostPath,
    /// Where it comes from.
    pub source: PathBuf,
    /// What it is.
    pub content: Content,
    /// Its permissions.
    pub mode: u32,
    /// What it must hash to.
    pub integrity: Option<Integrity>,
}

/// A source cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It is not there, or not readable.
    #[error("cannot read the source {}; put it into the image of the installer", path.display())]
    Read {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what the configuration says.
    #[error("the source {} is another file than the configuration wants; build the image of the installer from the files that belong together", path.display())]
    Differs {
        /// Where it is.
        path: PathBuf,
        /// How it differs.
        #[source]
        source: Differs,
    },
    /// A digest of a directory.
    #[error("the source {} is a directory, which has no digest; list its files, each with an `integrity`", path.display())]
    DirectoryDigest {
        /// Where it is.
        path: PathBuf,
    },
    /// Something in a directory that is not copied.
    #[error("the source {} is neither a file nor a directory; put the file itself there", path.display())]
    Kind {
        /// Where it is.
        path: PathBuf,
    },
    /// Two sources go to one place.
    #[error("two sources go to {path}; name one of them only")]
    Twice {
        /// Where they go.
        path: HostPath,
    },
    /// A name that makes no plain path.
    #[error("a file in the source {} cannot be copied", path.display())]
    Name {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: NotPlain,
    },
}

/// Reads every source, and checks it against its digest. With `quick` nothing is read, and the digests are empty.
///
/// # Errors
/// When one is missing, or is not what the configuration says.
pub(crate) fn resolve(files: &[File], quick: bool) -> Result<Vec<WantedFile>, SourceError> {
    let mut all = Vec::new();
    for file in files {
        collect(file, &file.source, &file.path, quick, 0, &mut all)?;
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    for pair in all.windows(2) {
        if let [a, b] = pair
            && a.path == b.path
        {
            return Err(SourceError::Twice {
                path: a.path.clone(),
            });
        }
    }
    Ok(all)
}

fn collect(
    file: &File,
    from: &Path,
    to: &HostPath,
    quick: bool,
    depth: usize,
    all: &mut Vec<WantedFile>,
) -> Result<(), SourceError> {
    let failed = |source| SourceError::Read {
        path: from.to_owned(),
        source,
    };
    let metadata = fs::metadata(from).map_err(failed)?;
    if metadata.is_dir() {
        // A link to a directory could lead back to where it is.
        let linked = fs::symlink_metadata(from).map_err(failed)?.is_symlink();
        if (linked && depth > 0) || depth > DEPTH_MAX {
            return Err(SourceError::Kind {
                path: from.to_owned(),
            });
        }
        if file.integrity.is_some() {
            return Err(SourceError::DirectoryDigest {
                path: from.to_owned(),
            });
        }
        let entries: Result<Vec<_>, _> = fs::read_dir(from).map_err(failed)?.collect();
        for entry in entries.map_err(failed)? {
            let name = entry.file_name();
            let to = to.join(&name.to_string_lossy());
            let to = to.map_err(|source| SourceError::Name {
                path: entry.path(),
                source,
            })?;
            collect(file, &entry.path(), &to, quick, depth + 1, all)?;
        }
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(SourceError::Kind {
            path: from.to_owned(),
        });
    }
    let content = match quick {
        true => Content {
            sha256: String::new(),
            size: metadata.len(),
        },
        false => {
            let opened = fs::File::open(from).map_err(failed)?;
            let (content, verdict) =
                integrity::hash(opened, file.integrity.as_ref(), |_| Ok(())).map_err(failed)?;
            verdict.map_err(|source| SourceError::Differs {
                path: from.to_owned(),
                source,
            })?;
            content
        }
    };
    let executable = metadata.permissions().mode() & 0o111 != 0;
    let default = if executable { 0o755 } else { 0o644 };
    all.push(WantedFile {
        path: to.clone(),
        source: from.to_owned(),
        content,
        mode: file.mode.unwrap_or(default),
        integrity: file.integrity.clone(),
    });
    Ok(())
}
