//! Writes the entries of a layer below a directory, as overlay file systems read them.
//!
//! Nothing is ever replaced, moved or removed: a name that is taken is an error. Every directory is opened from the layer's own one, in
//! a way in which the kernel follows no link and does not leave it, so no name and no link can lead elsewhere.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
        XattrFlags, chownat, fchmod, fchown, fsetxattr, futimens, linkat, makedev, mkdirat,
        mknodat, openat, openat2, symlinkat, utimensat,
    },
    io::Errno,
};

use super::{Room, Taken};
use crate::{
    LayerError,
    layer::{Described, Metadata, Visitor, What},
};

const BUFFER_BYTES: usize = 128 * 1024;
/// What an entry takes besides its content, and what files are rounded up to.
const BLOCK_BYTES: u64 = 4096;
/// Of directories that have no entry of their own, and of the root.
const DIRECTORY_MODE: u32 = 0o755;
/// "Whiteouts and opaque directories" in the kernel's documentation of overlayfs.
pub(crate) const OPAQUE: (&str, &[u8]) = ("trusted.overlay.opaque", b"y");
/// The kernel then looks for whiteouts in a directory also where there is none of that name below: else they would be seen.
const HAS_WHITEOUTS: (&str, &[u8]) = ("trusted.overlay.origin", b"");

/// Writes one layer.
pub(super) struct LayerWriter<'a> {
    root: OwnedFd,
    room: &'a Room,
    /// The directory of the last entry: entries of one directory follow each other.
    current: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, which change whenever something is added.
    directory_times: Vec<(Vec<u8>, Timestamps)>,
    buffer: Vec<u8>,
}

/// Why an entry is not written.
enum Failure {
    Layer(LayerError),
    File(io::Error),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::File(error.into())
    }
}

impl Visitor for LayerWriter<'_> {
    fn entry(&mut self, entry: &Described<'_>, content: &mut dyn Read) -> Result<(), LayerError> {
        let written = self.take(entry, BLOCK_BYTES).and_then(|()| {
            let Some((name, around)) = entry.path.split_last() else {
                return self.root_entry(&entry.what);
            };
            let name = OsStr::from_bytes(name);
            match &entry.what {
                What::Nothing => Ok(()),
                What::Directory => self.directory(&entry.path, around, name, &entry.metadata),
                What::File { size } => self.file(entry, around, name, *size, content),
                What::Symlink { target } => self.symlink(around, name, target, &entry.metadata),
                What::HardLink { target } => self.hard_link(around, name, target),
                What::Whiteout => self.whiteout(around, name),
                What::Opaque => self.mark(&entry.path, OPAQUE),
            }
        });
        written.map_err(|failure| match failure {
            Failure::Layer(error) => error,
            Failure::File(source) => LayerError::Write {
                entry: entry.shown(),
                source,
            },
        })
    }
}

impl<'a> LayerWriter<'a> {
    /// Will write below `root`, an empty directory.
    pub(super) fn new(root: &Path, room: &'a Room) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, root, flags, Mode::empty())?;
        fchmod(&root, Mode::from_raw_mode(DIRECTORY_MODE))?;
        Ok(Self {
            root,
            room,
            current: None,
            directory_times: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Gives directories their times.
    pub(super) fn finish(self) -> io::Result<()> {
        for (path, times) in self.directory_times {
            futimens(open_directory(&self.root, &path)?, &times)?;
        }
        Ok(())
    }

    fn take(&self, entry: &Described<'_>, bytes: u64) -> Result<(), Failure> {
        match self.room.take(bytes).map_err(Failure::File)? {
            Taken::Yes => Ok(()),
            Taken::TooLittle { left } => Err(Failure::Layer(LayerError::Room {
                entry: entry.shown(),
                left,
                reserve: self.room.reserve,
            })),
        }
    }

    /// The root of a container is the same for all images, so of its entry only an opaque mark counts.
    fn root_entry(&self, what: &What<'_>) -> Result<(), Failure> {
        if *what == What::Opaque {
            set_xattr(&self.root, OPAQUE)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        path: &[&[u8]],
        around: &[&[u8]],
        name: &OsStr,
        metadata: &Metadata<'_>,
    ) -> Result<(), Failure> {
        match mkdirat(self.open(around)?, name, Mode::RWXU) {
            // Said twice, or made for what is in it.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let directory = self.open(path)?;
        set_metadata(directory, metadata)?;
        let times = (path.join(&b'/'), times(metadata));
        self.directory_times.push(times);
        Ok(())
    }

    fn file(
        &mut self,
        entry: &Described<'_>,
        around: &[&[u8]],
        name: &OsStr,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), Failure> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(self.open(around)?, name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        let mut written = 0_u64;
        let mut taken = 0_u64;
        loop {
            let read = content.read(&mut self.buffer);
            let count = read.map_err(|error| Failure::Layer(LayerError::Damaged(error)))?;
            let Some(bytes) = self.buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            written = written.saturating_add(count as u64);
            if written > taken {
                let more = (written - taken).next_multiple_of(BLOCK_BYTES);
                self.take(entry, more)?;
                taken = taken.saturating_add(more);
            }
            file.write_all(bytes).map_err(Failure::File)?;
        }
        if written != size {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(Failure::Layer(LayerError::Damaged(error)));
        }
        set_metadata(&file, &entry.metadata)?;
        futimens(&file, &times(&entry.metadata))?;
        Ok(())
    }

    /// Has no attributes: the kernel lets links have none that a layer may set.
    fn symlink(
        &mut self,
        around: &[&[u8]],
        name: &OsStr,
        target: &[u8],
        metadata: &Metadata<'_>,
    ) -> Result<(), Failure> {
        let directory = self.open(around)?;
        symlinkat(OsStr::from_bytes(target), directory, name)?;
        let (uid, gid) = owner(metadata);
        chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        utimensat(directory, name, &times(metadata), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn hard_link(
        &mut self,
        around: &[&[u8]],
        name: &OsStr,
        target: &[&[u8]],
    ) -> Result<(), Failure> {
        let Some((target, around_target)) = target.split_last() else {
            return Err(Errno::PERM.into());
        };
        let there = open_directory(&self.root, &around_target.join(&b'/'))?;
        let here = self.open(around)?;
        // Without a flag a link itself is linked to, not what it leads to.
        linkat(
            there,
            OsStr::from_bytes(target),
            here,
            name,
            AtFlags::empty(),
        )?;
        Ok(())
    }

    fn whiteout(&mut self, around: &[&[u8]], name: &OsStr) -> Result<(), Failure> {
        let directory = self.open(around)?;
        mknodat(
            directory,
            name,
            FileType::CharacterDevice,
            Mode::empty(),
            makedev(0, 0),
        )?;
        if !around.is_empty() {
            self.mark(around, HAS_WHITEOUTS)?;
        }
        Ok(())
    }

    fn mark(&mut self, path: &[&[u8]], mark: (&str, &[u8])) -> Result<(), Failure> {
        set_xattr(self.open(path)?, mark)?;
        Ok(())
    }

    /// Opens a directory of the layer, and makes it if it is not there.
    fn open(&mut self, path: &[&[u8]]) -> Result<&OwnedFd, Errno> {
        let key = path.join(&b'/');
        let opened = match self.current.take() {
            Some((current, directory)) if current == key => directory,
            _ => match open_directory(&self.root, &key) {
                Err(Errno::NOENT) => self.make_directories(path)?,
                other => other?,
            },
        };
        let (_, directory) = self.current.insert((key, opened));
        Ok(directory)
    }

    fn make_directories(&self, path: &[&[u8]]) -> Result<OwnedFd, Errno> {
        let mut directory = open_directory(&self.root, b"")?;
        for part in path {
            let name = OsStr::from_bytes(part);
            let is_new = match mkdirat(&directory, name, Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error),
            };
            directory = open_directory(&directory, part)?;
            if is_new {
                // Not by the mode above, which the process's mask changes.
                fchmod(&directory, Mode::from_raw_mode(DIRECTORY_MODE))?;
            }
        }
        Ok(directory)
    }
}

/// Opens a directory below another one, or that one. The kernel refuses links on the way, other file systems, and to leave it.
fn open_directory(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = match path {
        b"" => b".",
        path => path,
    };
    openat2(
        root,
        OsStr::from_bytes(path),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

/// Owner first and attributes last: a change of the owner takes set-user-id bits and capabilities away.
fn set_metadata(file: &impl std::os::fd::AsFd, metadata: &Metadata<'_>) -> Result<(), Errno> {
    let (uid, gid) = owner(metadata);
    fchown(file, uid, gid)?;
    fchmod(file, Mode::from_raw_mode(metadata.permissions))?;
    for (name, value) in &metadata.xattrs {
        fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty())?;
    }
    Ok(())
}

fn set_xattr(file: &OwnedFd, (name, value): (&str, &[u8])) -> Result<(), Errno> {
    fsetxattr(file, name, value, XattrFlags::empty())
}

fn owner(metadata: &Metadata<'_>) -> (Option<Uid>, Option<Gid>) {
    // Descriptions have no ids that mean something else than a user or group.
    (
        Some(Uid::from_raw(metadata.uid)),
        Some(Gid::from_raw(metadata.gid)),
    )
}

fn times(metadata: &Metadata<'_>) -> Timestamps {
    let (seconds, nanoseconds) = metadata.modified;
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
