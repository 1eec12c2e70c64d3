//! What the installer did on a node, written down before it is done, so that an interrupted run is completed and everything can be
//! taken back.

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    integrity::Content,
    path::{HostPath, NotPlain},
    tree::{HostTree, Permissions, TreeError},
};

/// Where records are on the host.
pub(crate) const DIRECTORY: &str = "/var/lib/contrast-node-installer";
const FORMAT: u32 = 1;

/// A record of one handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: u32,
    /// Whose record it is.
    pub handler: String,
    /// How far it is.
    pub stage: Stage,
    /// Files that are there or may be.
    pub files: Vec<RecordedFile>,
    /// Directories that were not there before, outermost first.
    pub directories: Vec<HostPath>,
    /// The changes of containerd's configuration, one for each file. Which file it is may change when somebody adds an import.
    #[serde(deserialize_with = "changes")]
    pub containerd: Vec<Change>,
}

/// What a record of any format says.
#[derive(Deserialize)]
struct Said {
    format: u32,
}

/// Earlier releases wrote down one change, or none.
fn changes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Change>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Changes {
        All(Vec<Change>),
        One(Change),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Changes::One(change)) => vec![change],
        Some(Changes::All(all)) => all,
    })
}

/// How far an installation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Something may be missing.
    Installing,
    /// All is there.
    Installed,
    /// Something may be gone.
    Uninstalling,
}

/// A file that was put on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedFile {
    /// Where.
    pub path: HostPath,
    /// What was put there, now and in runs before that may not have been completed.
    pub contents: Vec<Content>,
}

/// A change of containerd's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The file.
    pub file: HostPath,
    /// Whether it was there before; then its content is in the backup.
    pub existed: bool,
    /// What it is after the change.
    pub after: Content,
    /// Whether containerd has still to be restarted.
    pub restart: bool,
}

impl Change {
    /// Where the content from before is.
    pub fn backup(&self, handler: &str) -> HostPath {
        backup(&self.file, handler)
    }
}

/// Where the content of `file` from before `handler` was installed is.
pub(crate) fn backup(file: &HostPath, handler: &str) -> HostPath {
    file.beside(&format!("{handler}.bak"))
}

/// One of these records that lists `path`: its handler needs the file there.
pub(crate) fn user<'a>(records: &'a [Record], path: &HostPath) -> Option<&'a Record> {
    records.iter().find(|record| record.of_file(path).is_some())
}

/// A record cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It is not understood.
    #[error(
        "{path} on the host is no record of this release of the installer; uninstall with the release that wrote it, or remove the file if nothing of it is installed"
    )]
    Format {
        /// Where it is.
        path: HostPath,
        /// Why.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// A later release wrote it.
    #[error(
        "{path} on the host has format {found}, this release of the installer reads {FORMAT}: a later release wrote it, and it was not modified; \
         use that release"
    )]
    Newer {
        /// Where it is.
        path: HostPath,
        /// Its format.
        found: u32,
    },
    /// The handler's name makes no path.
    #[error(transparent)]
    Path(#[from] NotPlain),
    /// The host's files are unreadable.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

impl Record {
    /// Nothing is there yet.
    pub fn new(handler: &str) -> Self {
        Self {
            format: FORMAT,
            handler: handler.to_owned(),
            stage: Stage::Installing,
            files: Vec::new(),
            directories: Vec::new(),
            containerd: Vec::new(),
        }
    }

    /// Where the record of a handler is.
    ///
    /// # Errors
    /// When its name makes no path.
    pub fn path(handler: &str) -> Result<HostPath, NotPlain> {
        HostPath::new(format!("{DIRECTORY}/{handler}.json"))
    }

    /// Reads the record of a handler; `None`: there is none.
    ///
    /// # Errors
    /// When it is of another release.
    pub fn read(tree: &HostTree, handler: &str) -> Result<Option<Self>, RecordError> {
        let path = Self::path(handler)?;
        let Some(text) = tree.read(&path)? else {
            return Ok(None);
        };
        let broken = |source| RecordError::Format {
            path: path.clone(),
            source,
        };
        // Before all else: the rest may be anything in a later format.
        let Said { format: found } =
            serde_json::from_slice(&text.bytes).map_err(|error| broken(Some(error)))?;
        if found > FORMAT {
            return Err(RecordError::Newer { path, found });
        }
        let record: Self =
            serde_json::from_slice(&text.bytes).map_err(|error| broken(Some(error)))?;
        if record.format != FORMAT || record.handler != handler {
            return Err(broken(None));
        }
        Ok(Some(record))
    }

    /// The records of all other handlers.
    ///
    /// # Errors
    /// When one of them is of another release.
    pub fn others(tree: &HostTree, handler: &str) -> Result<Vec<Self>, RecordError> {
        let mut all = Vec::new();
        for name in tree.names(&HostPath::new(DIRECTORY)?)? {
            match name.strip_suffix(".json") {
                Some(other) if other != handler && !other.starts_with('.') => {
                    all.extend(Self::read(tree, other)?);
                }
                _ => {}
            }
        }
        Ok(all)
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the host refuses it.
    pub fn write(&self, tree: &HostTree) -> Result<(), RecordError> {
        let path = Self::path(&self.handler)?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|source| RecordError::Format {
            path: path.clone(),
            source: Some(source),
        })?;
        bytes.push(b'\n');
        tree.replace(&path, Permissions::of_mode(0o600), &*bytes, None)?;
        Ok(())
    }

    /// The change of a file of containerd's configuration.
    pub fn change_of(&self, file: &HostPath) -> Option<&Change> {
        self.containerd.iter().find(|change| change.file == *file)
    }

    /// Forgets what was written down of this file, and writes down `change` if there is one.
    pub(crate) fn set_change(&mut self, file: &HostPath, change: Option<Change>) {
        self.containerd.retain(|known| known.file != *file);
        self.containerd.extend(change);
    }

    /// The files that were changed and are not the one to change any more.
    pub fn outdated<'a>(&'a self, file: &'a HostPath) -> impl Iterator<Item = &'a HostPath> {
        let files = self.containerd.iter().map(|change| &change.file);
        files.filter(move |known| *known != file)
    }

    /// Whether containerd has still to be restarted.
    pub fn restarts(&self) -> bool {
        self.containerd.iter().any(|change| change.restart)
    }

    /// What was put at `path`.
    pub fn of_file(&self, path: &HostPath) -> Option<&RecordedFile> {
        self.files.iter().find(|file| file.path == *path)
    }
}
