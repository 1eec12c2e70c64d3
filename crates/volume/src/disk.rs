//! The device that the host offers.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::layout::{DEVICE_BYTES_MIN, HEADER_BYTES};

/// What is written at once to a device that is filled; direct I/O wants whole pages of memory.
const CHUNK_BYTES: usize = 1024 * 1024;
const PAGE_BYTES: usize = 4096;
/// What is read to see whether a device is blank: its beginning, its end, and samples between.
const BEGINNING_BYTES: u64 = 4 * 1024 * 1024;
const END_BYTES: u64 = 1024 * 1024;
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 64 * 1024;

/// The device cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// It is not there, or somebody else has it.
    #[error("cannot open the device {}", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file or a directory.
    #[error("{} is no block device; a volume of a pod is one with `volumeMode: Block`", path.display())]
    NoBlockDevice {
        /// What it is not.
        path: PathBuf,
    },
    /// No room.
    #[error("the device {} has {found} bytes, expected at least {DEVICE_BYTES_MIN}", path.display())]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// It fails.
    #[error("cannot {what} the device {} at byte {offset}", path.display())]
    Io {
        /// The device.
        path: PathBuf,
        /// Read or write.
        what: &'static str,
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl DiskError {
    /// Whether somebody else has the device.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == io::ErrorKind::ResourceBusy)
    }
}

/// A block device.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Disk {
    /// Opens a device that nobody uses; nobody else can use it until this is dropped.
    pub(crate) fn open_alone(path: &Path) -> Result<Self, DiskError> {
        Self::open(path, OFlags::EXCL)
    }

    /// Opens a device that is in use: by an opened volume, whose data lies behind the header.
    pub(crate) fn open_shared(path: &Path) -> Result<Self, DiskError> {
        Self::open(path, OFlags::empty())
    }

    fn open(path: &Path, flags: OFlags) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Open {
            path: path.to_owned(),
            source,
        };
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_block_device() {
            let path = path.to_owned();
            return Err(DiskError::NoBlockDevice { path });
        }
        let flags = flags.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(flags);
        let mut file = options.open(path).map_err(failed)?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        if bytes < DEVICE_BYTES_MIN {
            return Err(DiskError::TooSmall {
                path: path.to_owned(),
                found: bytes,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn read_header(&self) -> Result<Vec<u8>, DiskError> {
        self.read(0, HEADER_BYTES)
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        let mut bytes = vec![0; length];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(source) => Err(self.failed("read", offset, source)),
        }
    }

    /// Writes, and returns when it is on the disk.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file
            .write_all_at(bytes, offset)
            .and_then(|()| self.file.sync_all())
            .map_err(|source| self.failed("write", offset, source))
    }

    /// First byte that is not zero, among those that are looked at.
    pub(crate) fn first_content(&self) -> Result<Option<u64>, DiskError> {
        let end = self.bytes.saturating_sub(END_BYTES);
        let samples = (0..SAMPLES).map(|sample| {
            let offset = (self.bytes / SAMPLES).saturating_mul(sample);
            (offset, SAMPLE_BYTES)
        });
        let places = std::iter::once((0, BEGINNING_BYTES))
            .chain(samples)
            .chain(std::iter::once((end, END_BYTES)));
        for (offset, length) in places {
            let length = length.min(self.bytes.saturating_sub(offset));
            let bytes = self.read(offset, usize::try_from(length).unwrap_or_default())?;
            if let Some(position) = bytes.iter().position(|byte| *byte != 0) {
                return Ok(Some(offset.saturating_add(position as u64)));
            }
        }
        Ok(None)
    }

    fn failed(&self, what: &'static str, offset: u64, source: io::Error) -> DiskError {
        DiskError::Io {
            path: self.path.clone(),
            what,
            offset,
            source,
        }
    }
}

/// A decrypted device whose sectors are written for the first time: until then reading them fails, because they have no tags.
#[derive(Debug)]
pub(crate) struct Filling {
    path: PathBuf,
    file: File,
    bytes: u64,
    done: u64,
}

impl Filling {
    pub(crate) fn open(path: &Path, done: u64) -> Result<Self, DiskError> {
        let failed = |source| DiskError::Open {
            path: path.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        let direct = OFlags::DIRECT.bits().cast_signed();
        options.write(true).custom_flags(direct);
        let mut file = options.open(path).map_err(failed)?;
        let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            done: done - done % PAGE_BYTES as u64,
        })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Fills the next `most` bytes, or what is left; returns when they are on the disk.
    pub(crate) fn fill(&mut self, most: u64) -> Result<(), DiskError> {
        let end = self.done.saturating_add(most).min(self.bytes);
        let memory = vec![0; CHUNK_BYTES + PAGE_BYTES];
        let start = memory.as_ptr().align_offset(PAGE_BYTES);
        while self.done < end {
            let length = usize::try_from(end - self.done).unwrap_or(CHUNK_BYTES);
            let length = length.min(CHUNK_BYTES);
            let zeros = memory.get(start..start.saturating_add(length));
            self.file
                .write_all_at(zeros.unwrap_or_default(), self.done)
                .map_err(|source| self.failed(source))?;
            self.done = self.done.saturating_add(length as u64);
        }
        self.file.sync_all().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> DiskError {
        DiskError::Io {
            path: self.path.clone(),
            what: "write",
            offset: self.done,
            source,
        }
    }
}
