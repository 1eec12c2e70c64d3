//! Images in files: OCI layouts, as directories or archives, and archives of `docker save` and `podman save`.

mod archive;
mod files;
mod layout;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use archive::DockerArchive;
use files::{Directory, Files, TarFile};
use layout::Layout;

use crate::{document::DocumentError, origin::Origin, shown::shown};

/// A layout or an archive is unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// Cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither of the formats.
    #[error(
        "{} is neither an OCI layout nor an archive of images; expected a directory or a tar file with `index.json`, or a tar file with `manifest.json`",
        path.display()
    )]
    Format {
        /// The directory or file.
        path: PathBuf,
    },
    /// Compressed as a whole.
    #[error("{} is compressed; unpack it first, for example with `gunzip` or `unzstd`", path.display())]
    Compressed {
        /// The file.
        path: PathBuf,
    },
    /// A document in it is malformed.
    #[error("{} has an unusable `{}`", path.display(), shown(file))]
    Document {
        /// The directory or archive.
        path: PathBuf,
        /// The file in it.
        file: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A file in it is missing.
    #[error("{} has no file `{}`, though it names it", path.display(), shown(file))]
    Missing {
        /// The directory or archive.
        path: PathBuf,
        /// The file that is missing.
        file: String,
    },
}

/// Opens a directory or an archive, whatever it is.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Origin>, LocalError> {
    let read = |source| LocalError::Read {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(read)?;
    if metadata.is_dir() {
        let files = Directory::new(path);
        return match files.has(layout::INDEX) {
            true => Ok(Box::new(Layout::open(files)?)),
            false => Err(LocalError::Format {
                path: path.to_owned(),
            }),
        };
    }
    if !metadata.is_file() {
        return Err(LocalError::Format {
            path: path.to_owned(),
        });
    }
    let files = TarFile::open(path)?;
    // Newer archives of `docker save` are both; only the layout has the digests that references need.
    if files.has(layout::INDEX) {
        Ok(Box::new(Layout::open(files)?))
    } else if files.has(archive::MANIFEST) {
        Ok(Box::new(DockerArchive::open(files)?))
    } else {
        Err(LocalError::Format {
            path: path.to_owned(),
        })
    }
}
