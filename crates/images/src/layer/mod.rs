//! A layer, read once from beginning to end and checked against its digests. What is done with its entries is a [`Visitor`]'s to say:
//! they are searched for users and groups, or unpacked.

mod accounts;
mod entry;
mod records;
mod tree;

use std::{
    cell::Cell,
    io::{self, BufReader, Read, Seek, SeekFrom},
    rc::Rc,
};

use accounts::Scan;
use entry::Names;
pub(crate) use entry::{Described, Metadata, What};
use flate2::bufread::MultiGzDecoder;
use records::{Description, Remembering};
use serde::{Deserialize, Serialize};
use tar::Archive;
use tree::Tree;

use crate::{
    Digest, accounts::AccountChanges, digest::HashingReader, document::Descriptor, shown::shown,
};

const BUFFER_BYTES: usize = 128 * 1024;
/// Names, links and extended attributes of one entry.
pub(crate) const METADATA_MAX: u64 = 1024 * 1024;
/// A layer may unpack to this many times its size,
const EXPANSION_MAX: u64 = 100;
/// and to this many bytes more.
const EXPANSION_FREE: u64 = 1024 * 1024 * 1024;
pub(crate) const GZIP: [u8; 2] = [0x1f, 0x8b];
pub(crate) const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// 32 MiB, the largest window of the tools that build images. It is allocated as soon as a layer asks for it.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;

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
    /// An entry that would leave the image's root, or that readers understand differently.
    #[error("its entry `{}` {problem}", shown(entry))]
    Entry {
        /// Name of the entry.
        entry: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The file system refuses an entry.
    #[error("its entry `{}` cannot be written", shown(entry))]
    Write {
        /// Name of the entry.
        entry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store cannot take it.
    #[error("the store cannot take it")]
    Store {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store is too small for it.
    #[error(
        "its entry `{}` does not fit: the store has {left} bytes left beside the {reserve} that stay free; give it more space",
        shown(entry)
    )]
    Room {
        /// Name of the entry.
        entry: String,
        /// Bytes that layers could still take.
        left: u64,
        /// Bytes that stay free for others.
        reserve: u64,
    },
}

impl LayerFacts {
    /// Facts of a layer in memory, compressed with gzip or zstd, or not at all.
    ///
    /// # Errors
    /// When it is no layer.
    pub fn of(layer: &[u8]) -> Result<Self, LayerError> {
        let descriptor = Descriptor::new("", Digest::of(layer), layer.len() as u64);
        Self::read(&descriptor, layer)
    }

    pub(crate) fn read(descriptor: &Descriptor, source: impl Read) -> Result<Self, LayerError> {
        let mut scan = Scan::default();
        let diff_id = read(descriptor, source, &mut scan)?;
        let accounts = scan.changes();
        Ok(Self { diff_id, accounts })
    }
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

/// Is shown the entries of a layer, in their order.
pub(crate) trait Visitor {
    /// An entry that passed all checks, also those against the entries before it. Of its content any part may be read.
    fn entry(&mut self, entry: &Described<'_>, content: &mut dyn Read) -> Result<(), LayerError>;
}

/// Reads a layer from beginning to end and returns its diff id. Only then is what the visitor saw known to be the layer.
pub(crate) fn read(
    descriptor: &Descriptor,
    source: impl Read,
    visitor: &mut dyn Visitor,
) -> Result<Digest, LayerError> {
    let one_too_many = descriptor.size.saturating_add(1);
    let mut compressed = HashingReader::new(source.take(one_too_many));
    let outcome = unpack(descriptor.size, &mut compressed, visitor);
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

fn unpack(
    size: u64,
    mut source: impl Read,
    visitor: &mut dyn Visitor,
) -> Result<Digest, LayerError> {
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
        entries_of(size, MultiGzDecoder::new(buffered), visitor)
    } else if zstd {
        let mut decoder = zstd::Decoder::with_buffer(buffered).map_err(LayerError::Damaged)?;
        decoder
            .window_log_max(ZSTD_WINDOW_LOG_MAX)
            .map_err(LayerError::Damaged)?;
        entries_of(size, decoder, visitor)
    } else {
        entries_of(size, buffered, visitor)
    }
}

fn entries_of(
    size: u64,
    unpacked: impl Read,
    visitor: &mut dyn Visitor,
) -> Result<Digest, LayerError> {
    let limit = size
        .saturating_mul(EXPANSION_MAX)
        .saturating_add(EXPANSION_FREE);
    let mut unpacked = HashingReader::new(unpacked.take(limit.saturating_add(1)));
    let outcome = visit_entries(&mut unpacked, visitor);
    let bomb = |read: u64| match read > limit {
        true => Err(LayerError::Bomb { limit, size }),
        false => Ok(()),
    };
    bomb(unpacked.count())?;
    outcome?;
    let (diff_id, read) = unpacked.finish().map_err(LayerError::Damaged)?;
    bomb(read)?;
    Ok(diff_id)
}

/// Lets the reader of an archive have a limited number of bytes for the description of one entry.
pub(crate) struct Metered<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R> Metered<R> {
    pub(crate) fn new(inner: R, left: &Rc<Cell<u64>>) -> Self {
        let left = Rc::clone(left);
        Self { inner, left }
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
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

fn visit_entries(unpacked: impl Read, visitor: &mut dyn Visitor) -> Result<(), LayerError> {
    let left = Rc::new(Cell::new(METADATA_MAX));
    let description = Description::default();
    let remembering = Remembering {
        inner: unpacked,
        description: &description,
    };
    let mut archive = Archive::new(Metered::new(remembering, &left));
    let mut tree = Tree::default();
    let mut rest = vec![0; BUFFER_BYTES];
    let mut entries = archive.entries().map_err(LayerError::Damaged)?;
    let mut padding = 0;
    loop {
        left.set(METADATA_MAX);
        description.begin();
        let Some(entry) = entries.next() else {
            return Ok(());
        };
        let mut entry = entry.map_err(LayerError::Damaged)?;
        description.end();
        let names = Names::of(&entry);
        description.extended(padding, |extended| {
            let described = Described::read(&names, extended, &mut entry)?;
            tree.add(&described)
                .map_err(|problem| described.refuse(problem))?;
            left.set(u64::MAX);
            visitor.entry(&described, &mut entry)
        })?;
        padding = padding_after(entry.size());
        while entry.read(&mut rest).map_err(LayerError::Damaged)? > 0 {}
    }
}

/// Content is filled up to a multiple of 512 bytes.
fn padding_after(content: u64) -> usize {
    let over = usize::try_from(content % 512).unwrap_or_default();
    over.checked_sub(1).map_or(0, |less| 511 - less)
}
