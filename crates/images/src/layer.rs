//! A layer, read once from beginning to end: checked against its digests, and searched for users and groups.

use std::{
    cell::Cell,
    io::{self, BufReader, Read},
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use tar::{Archive, EntryType};

use crate::{
    Digest,
    accounts::{AccountChanges, FileChange, groups, users},
    digest::HashingReader,
    document::Descriptor,
};

const BUFFER_BYTES: usize = 128 * 1024;
/// Names, links and extended attributes of one entry.
const METADATA_MAX: u64 = 1024 * 1024;
/// `/etc/passwd` and `/etc/group`.
const ACCOUNTS_MAX: u64 = 4 * 1024 * 1024;
/// A layer may unpack to this many times its size,
const EXPANSION_MAX: u64 = 100;
/// and to this many bytes more.
const EXPANSION_FREE: u64 = 1024 * 1024 * 1024;
pub(crate) const GZIP: [u8; 2] = [0x1f, 0x8b];
pub(crate) const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct LayerFacts {
    /// Digest of the unpacked layer.
    pub diff_id: Digest,
    /// What it does to the image's users and groups.
    #[serde(flatten)]
    pub accounts: AccountChanges,
}

/// A layer is not what it is said to be, or is malicious.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// Reading it failed; another attempt may not.
    #[error("it could not be read to its end")]
    Read(#[source] io::Error),
    /// Too short or too long.
    #[error("it has {found} bytes, expected {expected}")]
    Size {
        /// Bytes that came; one more than expected when there are more.
        found: u64,
        /// Bytes that the manifest names.
        expected: u64,
    },
    /// Another content.
    #[error("its content has the digest {found}")]
    Digest {
        /// Digest of what came.
        found: Digest,
    },
    /// Unpacks to something else than the configuration says.
    #[error("it unpacks to {}, but the image's configuration names the diff id {expected}", found.map_or_else(|| "nothing".to_owned(), |found| found.to_string()))]
    DiffId {
        /// What it unpacks to.
        found: Option<Digest>,
        /// What the configuration says.
        expected: Digest,
    },
    /// Not a compressed tar archive.
    #[error("it is damaged")]
    Damaged(#[source] io::Error),
    /// A decompression bomb.
    #[error("it unpacks to more than {limit} bytes, which no honest layer of {size} bytes does")]
    Bomb {
        /// Bytes that were read.
        limit: u64,
        /// Compressed size.
        size: u64,
    },
    /// An entry that would leave the image's root.
    #[error("its entry `{entry}` {problem}")]
    Entry {
        /// Name of the entry.
        entry: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl LayerError {
    /// Whether it was the transfer, so that another one may be right.
    pub(crate) fn is_of_transfer(&self) -> bool {
        matches!(
            self,
            Self::Read(_) | Self::Size { .. } | Self::Digest { .. }
        )
    }
}

/// Reads a layer from beginning to end.
pub(crate) fn read(descriptor: &Descriptor, source: impl Read) -> Result<LayerFacts, LayerError> {
    let one_too_many = descriptor.size.saturating_add(1);
    let mut compressed = HashingReader::new(source.take(one_too_many));
    let outcome = unpack(descriptor.size, &mut compressed);
    // A wrong size or digest explains whatever went wrong inside, so they are looked at first.
    let (digest, found) = compressed.finish().map_err(LayerError::Read)?;
    if found != descriptor.size {
        return Err(LayerError::Size {
            found,
            expected: descriptor.size,
        });
    }
    if digest != descriptor.digest {
        return Err(LayerError::Digest { found: digest });
    }
    outcome
}

fn unpack(size: u64, mut source: impl Read) -> Result<LayerFacts, LayerError> {
    let mut magic = Vec::with_capacity(ZSTD.len());
    (&mut source)
        .take(ZSTD.len() as u64)
        .read_to_end(&mut magic)
        .map_err(LayerError::Damaged)?;
    // Media types are wrong too often; container runtimes look at the first bytes as well.
    let (gzip, zstd) = (magic.starts_with(&GZIP), magic.starts_with(&ZSTD));
    let whole = io::Cursor::new(magic).chain(source);
    let buffered = BufReader::with_capacity(BUFFER_BYTES, whole);
    if gzip {
        scan(size, MultiGzDecoder::new(buffered))
    } else if zstd {
        let decoder = zstd::Decoder::with_buffer(buffered).map_err(LayerError::Damaged)?;
        scan(size, decoder)
    } else {
        scan(size, buffered)
    }
}

fn scan(size: u64, unpacked: impl Read) -> Result<LayerFacts, LayerError> {
    let limit = size
        .saturating_mul(EXPANSION_MAX)
        .saturating_add(EXPANSION_FREE);
    let mut unpacked = HashingReader::new(unpacked.take(limit.saturating_add(1)));
    let outcome = scan_entries(&mut unpacked);
    let bomb = |read: u64| match read > limit {
        true => Err(LayerError::Bomb { limit, size }),
        false => Ok(()),
    };
    bomb(unpacked.count())?;
    let accounts = outcome?;
    let (diff_id, read) = unpacked.finish().map_err(LayerError::Damaged)?;
    bomb(read)?;
    Ok(LayerFacts { diff_id, accounts })
}

/// Lets the reader of the archive have a limited number of bytes for the description of one entry.
struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other(format!(
                "the description of an entry has more than {METADATA_MAX} bytes"
            )));
        }
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = self
            .inner
            .read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left.set(left.saturating_sub(count as u64));
        Ok(count)
    }
}

fn scan_entries(unpacked: impl Read) -> Result<AccountChanges, LayerError> {
    let left = Rc::new(Cell::new(METADATA_MAX));
    let mut archive = Archive::new(Metered {
        inner: unpacked,
        left: Rc::clone(&left),
    });
    let mut scan = Scan::default();
    let mut rest = vec![0; BUFFER_BYTES];
    let mut entries = archive.entries().map_err(LayerError::Damaged)?;
    loop {
        left.set(METADATA_MAX);
        let Some(entry) = entries.next() else {
            return Ok(scan.changes());
        };
        let mut entry = entry.map_err(LayerError::Damaged)?;
        left.set(u64::MAX);
        scan.entry(&mut entry)?;
        while entry.read(&mut rest).map_err(LayerError::Damaged)? > 0 {}
    }
}

/// What a layer does to one file.
#[derive(Default)]
struct Change {
    /// Of the layers below.
    hidden: bool,
    own: Option<FileChange<Vec<u8>>>,
}

#[derive(Default)]
struct Scan {
    passwd: Change,
    group: Change,
}

impl Scan {
    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), LayerError> {
        let kind = entry.header().entry_type();
        let name = entry.path_bytes().into_owned();
        let refuse = |problem| LayerError::Entry {
            entry: String::from_utf8_lossy(&name).into_owned(),
            problem,
        };
        let path = components(&name).map_err(refuse)?;
        if kind.is_gnu_sparse() {
            return Err(refuse("is a sparse file, which layers must not have"));
        }
        if kind.is_hard_link() {
            let target = entry.link_name_bytes().unwrap_or_default();
            components(&target)
                .map_err(|_| refuse("is a hard link with an absolute target, or one with `..`"))?;
        }
        match path.as_slice() {
            [OPAQUE] | [b".wh.etc"] | [b"etc", OPAQUE] => {
                self.passwd.hidden = true;
                self.group.hidden = true;
            }
            [b"etc", b".wh.passwd"] => self.passwd.hidden = true,
            [b"etc", b".wh.group"] => self.group.hidden = true,
            [b"etc"] if !kind.is_dir() => {
                self.passwd.own = Some(FileChange::Unknown);
                self.group.own = Some(FileChange::Unknown);
            }
            [b"etc", b"passwd"] => self.passwd.own = Some(content(kind, entry, &refuse)?),
            [b"etc", b"group"] => self.group.own = Some(content(kind, entry, &refuse)?),
            _ => {}
        }
        Ok(())
    }

    fn changes(self) -> AccountChanges {
        AccountChanges {
            users: self.passwd.parsed(users),
            groups: self.group.parsed(groups),
        }
    }
}

impl Change {
    fn parsed<T>(self, parse: fn(&[u8]) -> T) -> FileChange<T> {
        match (self.own, self.hidden) {
            (Some(FileChange::Replaced(text)), _) => FileChange::Replaced(parse(&text)),
            (Some(FileChange::Unknown), _) => FileChange::Unknown,
            (Some(FileChange::Removed), _) | (_, true) => FileChange::Removed,
            (Some(FileChange::Kept) | None, false) => FileChange::Kept,
        }
    }
}

fn content(
    kind: EntryType,
    entry: &mut impl Read,
    refuse: &impl Fn(&'static str) -> LayerError,
) -> Result<FileChange<Vec<u8>>, LayerError> {
    if !kind.is_file() && !kind.is_contiguous() {
        return Ok(match kind {
            EntryType::Link | EntryType::Symlink => FileChange::Unknown,
            _ => FileChange::Removed,
        });
    }
    let mut text = Vec::new();
    entry
        .take(ACCOUNTS_MAX.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(LayerError::Damaged)?;
    match text.len() as u64 <= ACCOUNTS_MAX {
        true => Ok(FileChange::Replaced(text)),
        false => Err(refuse("has more than 4 MiB")),
    }
}

/// Components of a path below the image's root; `/` and `./` are the root itself.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.starts_with(b"/") && path.iter().any(|byte| *byte != b'/') {
        return Err("has an absolute path");
    }
    let parts: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    match parts.contains(&b"..".as_slice()) {
        true => Err("leaves the image's root with `..`"),
        false => Ok(parts),
    }
}
