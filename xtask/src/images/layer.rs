//! Layers whose bytes follow from their content alone: sorted, root's, at the epoch.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// Files by their path without a leading slash; directories above them come by themselves.
#[derive(Debug, Default)]
pub(super) struct Layer(BTreeMap<String, Entry>);

#[derive(Debug)]
enum Entry {
    Directory { mode: u32 },
    Bytes { content: Vec<u8>, mode: u32 },
    File { source: PathBuf, mode: u32 },
    Link { target: PathBuf },
}

/// A compressed layer, and what image configurations say of it.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) gzip: Vec<u8>,
    /// Of the uncompressed archive, `sha256:…`.
    pub(super) diff_id: String,
}

impl Layer {
    pub(super) fn directory(&mut self, path: &str, mode: u32) {
        self.put(path, Entry::Directory { mode });
    }

    pub(super) fn bytes(&mut self, path: &str, content: Vec<u8>, mode: u32) {
        self.put(path, Entry::Bytes { content, mode });
    }

    pub(super) fn file(&mut self, path: &str, source: PathBuf, mode: u32) {
        self.put(path, Entry::File { source, mode });
    }

    pub(super) fn link(&mut self, path: &str, target: &Path) {
        let target = target.to_owned();
        self.put(path, Entry::Link { target });
    }

    /// Everything below `source`, with its permissions.
    pub(super) fn tree(&mut self, path: &str, source: &Path) -> Result<()> {
        let listed = fs::read_dir(source)
            .with_context(|| format!("cannot read the directory {}", source.display()))?;
        self.directory(path, 0o755);
        for entry in listed {
            let (source, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let path = format!("{path}/{}", name.display());
            let facts = source.symlink_metadata()?;
            if facts.is_dir() {
                self.tree(&path, &source)?;
            } else if facts.is_symlink() {
                let target = fs::read_link(&source)?;
                self.link(&path, &target);
            } else {
                let mode = mode(&facts);
                self.file(&path, source, mode);
            }
        }
        Ok(())
    }

    pub(super) fn holds(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    fn put(&mut self, path: &str, entry: Entry) {
        for (end, _) in path.match_indices('/') {
            let parent = path[..end].to_owned();
            self.0
                .entry(parent)
                .or_insert(Entry::Directory { mode: 0o755 });
        }
        self.0.insert(path.to_owned(), entry);
    }

    /// The layer as a compressed archive.
    pub(super) fn pack(&self) -> Result<Packed> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &self.0 {
            entry
                .append(path, &mut archive)
                .with_context(|| format!("cannot put `{path}` into the layer"))?;
        }
        let archive = archive.into_inner()?;
        let diff_id = digest(&archive);
        let mut gzip = GzBuilder::new()
            .mtime(0)
            .write(Vec::new(), Compression::new(6));
        io::copy(&mut archive.as_slice(), &mut gzip)?;
        Ok(Packed {
            gzip: gzip.finish()?,
            diff_id,
        })
    }
}

impl Entry {
    fn append(&self, path: &str, archive: &mut tar::Builder<Vec<u8>>) -> Result<()> {
        match self {
            Self::Directory { mode } => {
                let mut header = header(EntryType::Directory, *mode, 0);
                archive.append_data(&mut header, format!("{path}/"), io::empty())?;
            }
            Self::Link { target } => {
                let mut header = header(EntryType::Symlink, 0o777, 0);
                archive.append_link(&mut header, path, target)?;
            }
            Self::Bytes { content, mode } => append(archive, path, content, *mode)?,
            Self::File { source, mode } => {
                let Ok(content) = fs::read(source) else {
                    bail!("cannot read {}", source.display());
                };
                append(archive, path, &content, *mode)?;
            }
        }
        Ok(())
    }
}

/// Appends one regular file, in the same way wherever it comes from.
pub(super) fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    content: &[u8],
    mode: u32,
) -> Result<()> {
    let size = u64::try_from(content.len())?;
    let mut header = header(EntryType::Regular, mode, size);
    Ok(archive.append_data(&mut header, path, content)?)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Permissions of a file in an image: whether it can be run is its own, the rest is the same for all. Who unpacked it, and with which
/// umask, must not show, and none needs set-user-ID.
#[cfg(unix)]
pub(super) fn mode(facts: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    match facts.permissions().mode() & 0o100 {
        0 => 0o644,
        _ => 0o755,
    }
}

#[cfg(not(unix))]
pub(super) fn mode(_: &fs::Metadata) -> u32 {
    0o755
}

/// SHA-256, 64 hex digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `sha256:…`.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_do_not_depend_on_the_order_in_which_files_come() {
        let mut one = Layer::default();
        one.bytes("usr/bin/b", b"b".to_vec(), 0o755);
        one.link("bin", Path::new("usr/bin"));
        one.directory("tmp", 0o1777);
        let mut other = Layer::default();
        other.directory("tmp", 0o1777);
        other.link("bin", Path::new("usr/bin"));
        other.bytes("usr/bin/b", b"b".to_vec(), 0o755);
        let (one, other) = (one.pack().expect("packs"), other.pack().expect("packs"));
        assert_eq!(one.gzip, other.gzip);
        assert_eq!(one.diff_id, other.diff_id);
    }

    #[test]
    fn nothing_of_the_building_machine_is_in_the_headers() {
        let directory = std::env::temp_dir();
        let source = directory.join(format!("contrast-layer-{}", std::process::id()));
        fs::write(&source, b"x").expect("written");
        let mut layer = Layer::default();
        layer.file("a/x", source.clone(), 0o644);
        let packed = layer.pack().expect("packs");
        fs::remove_file(source).expect("removed");
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.gzip.as_slice()));
        let entries = archive.entries().expect("an archive");
        let seen: Vec<_> = entries
            .map(|entry| {
                let entry = entry.expect("an entry");
                let header = entry.header();
                let path = entry.path().expect("a path").display().to_string();
                let numbers = [header.uid(), header.gid(), header.mtime()];
                (path, numbers.map(|number| number.expect("a number")))
            })
            .collect();
        assert_eq!(
            seen,
            [("a/".to_owned(), [0; 3]), ("a/x".to_owned(), [0; 3])]
        );
    }
}
