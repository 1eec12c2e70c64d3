use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{
    Document, Item,
    document::is_of_vendor,
    recognise::{Recognised, recognise},
};

/// Documents in a directory of their own, one file each, named by item. A file that is not what its name says is not there.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    directory: PathBuf,
}

impl Store {
    /// Uses `directory`, which is created when there is something to write.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        if directory.exists() {
            fs::read_dir(directory)?;
        }
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    pub(crate) fn read(&self, item: &Item) -> Option<Document> {
        let bytes = fs::read(self.directory.join(item.file_name())).ok()?;
        match recognise(&bytes)? {
            Recognised::Document(items, document) => {
                let is_it = items.contains(item) && is_of_vendor(item, &document.content);
                is_it.then_some(document)
            }
            Recognised::TcbSigningChain(_) | Recognised::PckChain => None,
        }
    }

    /// Replaces the file of `item` in one step, so that a reader sees the old one or the new one.
    pub(crate) fn write(&self, item: &Item, document: &Document) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let mut file = NamedTempFile::new_in(&self.directory)?;
        file.write_all(document.to_file().as_bytes())?;
        file.as_file().sync_all()?;
        readable_by_all(file.as_file())?;
        file.persist(self.directory.join(item.file_name()))
            .map(drop)
            .map_err(|error| error.error)
    }
}

/// Everything here is public, and a bundle is made to be passed on.
#[cfg(unix)]
fn readable_by_all(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_all(_: &fs::File) -> io::Result<()> {
    Ok(())
}
