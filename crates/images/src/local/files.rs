use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Debug,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use tar::{Archive, EntryType};

use super::LocalError;
use crate::{
    document::{DocumentError, MANIFEST_MAX},
    layer::{GZIP, METADATA_MAX, Metered, ZSTD},
    shown::shown,
};

/// Entries of an archive.
const ENTRIES_MAX: usize = 100_000;
/// Bytes of their names and targets.
const NAMES_MAX: usize = 64 * 1024 * 1024;
/// Links to links in an archive.
const LINKS_MAX: usize = 8;

/// Files of a directory or an archive.
pub(super) trait Files: Debug + Send + Sync {
    fn path(&self) -> &Path;

    fn has(&self, file: &str) -> bool {
        self.size(file).is_some()
    }

    /// Bytes of a file; `None` if it is not there.
    fn size(&self, file: &str) -> Option<u64>;

    /// Opens a file; `None` if it is not there.
    fn open(&self, file: &str) -> Result<Option<Box<dyn Read>>, LocalError>;

    /// A whole document.
    fn document(&self, file: &str) -> Result<Option<Vec<u8>>, LocalError> {
        let Some(content) = self.open(file)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        content
            .take(MANIFEST_MAX.saturating_add(1))
            .read_to_end(&mut text)
            .map_err(|source| LocalError::Read {
                path: self.path().join(shown(file)),
                source,
            })?;
        let found = text.len() as u64;
        match found <= MANIFEST_MAX {
            true => Ok(Some(text)),
            false => Err(LocalError::Document {
                path: self.path().to_owned(),
                file: file.to_owned(),
                source: DocumentError::TooLarge {
                    what: "document",
                    found,
                    limit: MANIFEST_MAX,
                },
            }),
        }
    }
}

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }
}

impl Files for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self, file: &str) -> Option<u64> {
        let metadata = fs::metadata(self.path.join(file)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    fn open(&self, file: &str) -> Result<Option<Box<dyn Read>>, LocalError> {
        let path = self.path.join(file);
        // Opening a pipe would wait for somebody to write to it.
        match fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => {
                let source = io::Error::other("it is no regular file");
                return Err(LocalError::Read { path, source });
            }
            _ => {}
        }
        match File::open(&path) {
            Ok(content) => Ok(Some(Box::new(content))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LocalError::Read { path, source }),
        }
    }
}

/// Where a file's content lies in an archive.
#[derive(Debug)]
enum Place {
    Content { offset: u64, size: u64 },
    Link(String),
}

#[derive(Debug)]
pub(super) struct TarFile {
    path: PathBuf,
    entries: BTreeMap<String, Place>,
}

impl TarFile {
    /// Reads the table of contents.
    pub(super) fn open(path: &Path) -> Result<Self, LocalError> {
        let failed = |source| LocalError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = Vec::new();
        (&mut file)
            .take(ZSTD.len() as u64)
            .read_to_end(&mut magic)
            .map_err(failed)?;
        if magic.starts_with(&GZIP) || magic.starts_with(&ZSTD) {
            return Err(LocalError::Compressed {
                path: path.to_owned(),
            });
        }
        file.rewind().map_err(failed)?;
        let mut entries = BTreeMap::new();
        let left = Rc::new(Cell::new(METADATA_MAX));
        let mut archive = Archive::new(Metered::new(file, &left));
        let mut names = 0;
        // Content is passed over by seeking.
        for entry in archive.entries_with_seek().map_err(failed)? {
            let entry = match entry {
                Ok(entry) => entry,
                // Not even the beginning is an archive's.
                Err(_) if entries.is_empty() && left.get() > 0 => {
                    return Err(LocalError::Format {
                        path: path.to_owned(),
                    });
                }
                Err(source) => return Err(failed(source)),
            };
            // For the description of the next one.
            left.set(METADATA_MAX);
            let kind = entry.header().entry_type();
            let Some(name) = normal(&entry.path_bytes()) else {
                continue;
            };
            let place = match kind {
                EntryType::Regular | EntryType::Continuous => Place::Content {
                    offset: entry.raw_file_position(),
                    size: entry.size(),
                },
                EntryType::Symlink | EntryType::Link => {
                    let target = entry.link_name_bytes().unwrap_or_default();
                    let target = String::from_utf8_lossy(&target).into_owned();
                    let parent = match (kind, name.rsplit_once('/')) {
                        (EntryType::Symlink, Some((parent, _))) => parent,
                        _ => "",
                    };
                    let Some(target) = normal(format!("{parent}/{target}").as_bytes()) else {
                        continue;
                    };
                    Place::Link(target)
                }
                _ => continue,
            };
            names += match &place {
                Place::Link(target) => name.len() + target.len(),
                Place::Content { .. } => name.len(),
            };
            if names > NAMES_MAX {
                return Err(failed(io::Error::other(format!(
                    "the names of its entries have more than {NAMES_MAX} bytes"
                ))));
            }
            entries.insert(name, place);
            if entries.len() > ENTRIES_MAX {
                return Err(failed(io::Error::other(format!(
                    "it has more than {ENTRIES_MAX} entries"
                ))));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            entries,
        })
    }

    fn place(&self, file: &str) -> Option<(u64, u64)> {
        let mut name = normal(file.as_bytes())?;
        for _ in 0..LINKS_MAX {
            match self.entries.get(&name)? {
                Place::Content { offset, size } => return Some((*offset, *size)),
                Place::Link(target) => name.clone_from(target),
            }
        }
        None
    }
}

impl Files for TarFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self, file: &str) -> Option<u64> {
        self.place(file).map(|(_, size)| size)
    }

    fn open(&self, file: &str) -> Result<Option<Box<dyn Read>>, LocalError> {
        let Some((offset, size)) = self.place(file) else {
            return Ok(None);
        };
        let failed = |source| LocalError::Read {
            path: self.path.clone(),
            source,
        };
        let mut content = File::open(&self.path).map_err(failed)?;
        content.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(Some(Box::new(content.take(size))))
    }
}

/// `a/./b/../c` as `a/c`; `None` for what is not inside.
fn normal(path: &[u8]) -> Option<String> {
    let path = std::str::from_utf8(path).ok()?.trim_start_matches('/');
    let mut parts: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    match parts.is_empty() {
        true => None,
        false => Some(parts.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(normal(b"./a/b").as_deref(), Some("a/b"));
        assert_eq!(normal(b"a/../c/layer.tar").as_deref(), Some("c/layer.tar"));
        assert_eq!(normal(b"/index.json").as_deref(), Some("index.json"));
        assert_eq!(normal(b"../etc/passwd"), None);
        assert_eq!(normal(b"a/../../x"), None);
        assert_eq!(normal(b"./"), None);
    }
}
