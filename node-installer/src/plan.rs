//! What is to be changed: from what is wanted and what is there. Pure.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use serde::{Serialize, Serializer};

use crate::{
    containerd::Target,
    integrity::Content,
    path::HostPath,
    record::{self, Record, Stage},
    source::WantedFile,
    tree::Permissions,
};

/// What is on the host.
#[derive(Debug)]
pub struct Observed {
    /// What is at the place of each wanted file.
    pub files: Vec<Option<(Content, Permissions)>>,
    /// Files that an earlier run put there and that are wanted no more.
    pub stale: Vec<HostPath>,
    /// Directories that are not there, outermost first.
    pub missing: Vec<HostPath>,
    /// What earlier runs wrote down.
    pub record: Option<Record>,
    /// What was written down for other handlers.
    pub others: Vec<Record>,
    /// The configuration of containerd.
    pub target: Target,
    /// What the configuration is to be.
    pub edited: String,
    /// Whether contents were only compared by their size.
    pub quick: bool,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Change {
    /// A directory is made.
    MakeDirectory {
        /// Where.
        path: HostPath,
    },
    /// A file is copied.
    PutFile {
        /// Where it goes.
        path: HostPath,
        /// What it is.
        #[serde(flatten)]
        content: Content,
        /// Its permissions.
        #[serde(serialize_with = "octal")]
        mode: u32,
        /// What is there.
        why: Why,
    },
    /// A file of an earlier run is removed.
    RemoveFile {
        /// Where it is.
        path: HostPath,
    },
    /// The configuration of containerd is changed.
    EditContainerd {
        /// The file.
        file: HostPath,
        /// Lines that are added.
        added: Vec<String>,
        /// Lines that are removed.
        removed: Vec<String>,
    },
    /// The runtime is taken out of a file that is not the one to change any more.
    CleanContainerd {
        /// The file.
        file: HostPath,
    },
    /// containerd is restarted.
    Restart {
        /// One of these units.
        units: Vec<String>,
    },
    /// An earlier run is completed.
    Complete,
}

/// Why a file is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Nothing is there.
    Missing,
    /// Something else is there.
    Differs,
    /// Its permissions are others.
    Mode,
}

fn octal<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format!("{mode:04o}"))
}

/// What is to be changed, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Name of the runtime handler.
    pub handler: String,
    /// The changes.
    pub changes: Vec<Change>,
}

/// Something is in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InTheWay {
    /// A file of somebody else.
    #[error(
        "{path} on the host is another file, which this installer did not put there; move it away, or choose another path"
    )]
    Foreign {
        /// Where it is.
        path: HostPath,
    },
    /// A file that another handler uses as well.
    #[error(
        "{path} on the host is another file, which the handler `{handler}` uses as well; uninstall that one, or choose a path with {{handler}} in it"
    )]
    Shared {
        /// Where it is.
        path: HostPath,
        /// Whose it is, too.
        handler: String,
    },
}

impl Plan {
    /// Compares what is wanted with what is there.
    ///
    /// # Errors
    /// When a file of somebody else is where one is to be put.
    pub fn make(
        handler: &str,
        wanted: &[WantedFile],
        observed: &Observed,
    ) -> Result<Self, InTheWay> {
        let record = observed.record.as_ref();
        let mut changes: Vec<Change> = observed
            .missing
            .iter()
            .map(|path| Change::MakeDirectory { path: path.clone() })
            .collect();
        for (file, found) in wanted.iter().zip(&observed.files) {
            let ours = record.is_some_and(|record| record.of_file(&file.path).is_some());
            let why = match found {
                None => Why::Missing,
                Some((content, permissions)) => {
                    let same = content.size == file.content.size
                        && (observed.quick || content.sha256 == file.content.sha256);
                    match (same, permissions.mode == file.mode) {
                        (true, true) => continue,
                        _ if !ours => {
                            return Err(InTheWay::Foreign {
                                path: file.path.clone(),
                            });
                        }
                        _ if let Some(other) = record::user(&observed.others, &file.path) => {
                            return Err(InTheWay::Shared {
                                path: file.path.clone(),
                                handler: other.handler.clone(),
                            });
                        }
                        (true, false) => Why::Mode,
                        (false, _) => Why::Differs,
                    }
                }
            };
            changes.push(Change::PutFile {
                path: file.path.clone(),
                content: file.content.clone(),
                mode: file.mode,
                why,
            });
        }
        let stale = observed.stale.iter();
        changes.extend(stale.map(|path| Change::RemoveFile { path: path.clone() }));
        let current = observed.target.current.as_ref();
        let current = current.map(|text| text.bytes.as_slice());
        let edit = current != Some(observed.edited.as_bytes());
        if edit {
            let before = String::from_utf8_lossy(current.unwrap_or_default());
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
            let (old, new) = (lines(&before), lines(&observed.edited));
            let only = |text: &str, other: &BTreeSet<String>| {
                let lines = text.lines().filter(|line| !other.contains(*line));
                lines.map(str::to_owned).collect()
            };
            changes.push(Change::EditContainerd {
                file: observed.target.file.clone(),
                added: only(&observed.edited, &old),
                removed: only(&before, &new),
            });
        }
        let outdated = record
            .into_iter()
            .flat_map(|record| record.outdated(&observed.target.file));
        changes.extend(outdated.map(|file| Change::CleanContainerd { file: file.clone() }));
        let pending = record.is_some_and(Record::restarts);
        if (edit || pending) && !observed.target.units.is_empty() {
            changes.push(Change::Restart {
                units: observed.target.units.clone(),
            });
        }
        if changes.is_empty() && record.is_some_and(|record| record.stage != Stage::Installed) {
            changes.push(Change::Complete);
        }
        Ok(Self {
            handler: handler.to_owned(),
            changes,
        })
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.changes.is_empty() {
            return writeln!(out, "{}: nothing to change", self.handler);
        }
        writeln!(out, "{}:", self.handler)?;
        for change in &self.changes {
            writeln!(out, "  {change}")?;
            if let Change::EditContainerd { added, removed, .. } = change {
                for line in removed {
                    writeln!(out, "    - {line}")?;
                }
                for line in added {
                    writeln!(out, "    + {line}")?;
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MakeDirectory { path } => write!(f, "make directory {path}"),
            Self::PutFile {
                path,
                content,
                mode,
                why,
            } => {
                let why = match why {
                    Why::Missing => "is not there",
                    Why::Differs => "is another one",
                    Why::Mode => "has other permissions",
                };
                let digest = content.sha256.get(..12).unwrap_or_default();
                let size = content.size;
                write!(
                    f,
                    "put file {path} ({size} bytes, sha256 {digest}..., mode {mode:04o}): {why}"
                )
            }
            Self::RemoveFile { path } => write!(f, "remove file {path}: wanted no more"),
            Self::EditContainerd { file, .. } => write!(f, "edit {file}"),
            Self::CleanContainerd { file } => {
                write!(
                    f,
                    "take the runtime out of {file}: it is in another file now"
                )
            }
            Self::Restart { units } => write!(f, "restart {}", units.join(" or ")),
            Self::Complete => write!(f, "complete an earlier run"),
        }
    }
}
