//! The host's file system: everything below one directory, of which no link leads out.
//!
//! Paths are resolved by the kernel as if that directory were the root (`RESOLVE_IN_ROOT`): absolute links of the host stay in the
//! host, and `..` ends at its root. Nothing is written in place: new content gets a name of its own, reaches the disk, and takes the old
//! one's place. Every change is announced as a step, so that each can be logged, and in tests be the last one before the power fails.

mod error;

use std::{
    fmt,
    fs::File,
    io::{self, Read as _, Write},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, StatVfsMountFlags, Uid, fchmod,
        fchown, fstat, fstatvfs, fsync, mkdirat, open, openat, openat2, readlinkat, renameat,
        statat, unlinkat,
    },
    io::Errno,
};

pub use error::TreeError;

use crate::{
    integrity::{self, Content, Integrity},
    path::HostPath,
};

const CONFINED: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;
/// Suffix of files that are not finished.
pub(crate) const UNFINISHED: &str = "contrast-node-installer.tmp";
/// Configurations are small; anything larger is something else.
const TEXT_MAX: u64 = 4 << 20;

/// Told of every change before it happens; may end everything.
pub trait Steps: fmt::Debug + Send + Sync {
    /// The next thing that happens is `step`.
    ///
    /// # Errors
    /// When it must not happen, nor anything after it.
    fn before(&self, step: &str) -> Result<(), Interrupted>;
}

/// Nothing more may happen, as when the power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted; run the installer again")]
pub struct Interrupted;

/// Logs every step.
#[derive(Debug, Clone, Copy)]
pub struct LogSteps;

impl Steps for LogSteps {
    fn before(&self, step: &str) -> Result<(), Interrupted> {
        tracing::debug!("{step}");
        Ok(())
    }
}

/// Who owns a file, and what they may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// Bits, as for `chmod`.
    pub mode: u32,
    /// User and group; `None` is whoever runs the installer.
    pub owner: Option<(u32, u32)>,
}

impl Permissions {
    /// Owned by whoever runs the installer.
    pub const fn of_mode(mode: u32) -> Self {
        Self { mode, owner: None }
    }
}

/// A regular file of the host, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Its permissions.
    pub permissions: Permissions,
}

/// The host's file system.
#[derive(Debug)]
pub struct HostTree {
    root: OwnedFd,
    shown: PathBuf,
    steps: Box<dyn Steps>,
    changes: AtomicUsize,
}

impl HostTree {
    /// Opens the host's root at `path`.
    ///
    /// # Errors
    /// When there is no directory.
    pub fn open(path: &Path, steps: Box<dyn Steps>) -> Result<Self, TreeError> {
        let root = open(path, DIRECTORY, Mode::empty()).map_err(|errno| TreeError::Root {
            path: path.to_owned(),
            source: errno.into(),
        })?;
        Ok(Self {
            root,
            shown: path.to_owned(),
            steps,
            changes: AtomicUsize::new(0),
        })
    }

    /// Where the root is for this process.
    pub fn root(&self) -> &Path {
        &self.shown
    }

    pub(crate) fn step(&self, step: &str) -> Result<(), Interrupted> {
        self.steps.before(step)?;
        self.changes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How many changes were begun.
    pub(crate) fn changes(&self) -> usize {
        self.changes.load(Ordering::Relaxed)
    }

    fn directory(&self, path: Option<&HostPath>) -> Result<OwnedFd, Errno> {
        let relative = path.map_or(".", HostPath::relative);
        openat2(&self.root, relative, DIRECTORY, Mode::empty(), CONFINED)
    }

    fn parent_of(&self, path: &HostPath) -> Result<OwnedFd, Errno> {
        self.directory(path.parent().as_ref())
    }

    /// What is at `path`, without following a link there; `None`: nothing.
    fn entry(&self, path: &HostPath) -> Result<Option<Stat>, TreeError> {
        let stat = self
            .parent_of(path)
            .and_then(|parent| statat(parent, path.name(), AtFlags::SYMLINK_NOFOLLOW));
        absent(stat).map_err(|errno| failed("look at", path)(errno))
    }

    /// Whether something is at `path`, links followed.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn exists(&self, path: &HostPath) -> Result<bool, TreeError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = openat2(&self.root, path.relative(), flags, Mode::empty(), CONFINED);
        absent(found)
            .map(|found| found.is_some())
            .map_err(|errno| failed("look at", path)(errno))
    }

    /// Opens a regular file, links followed.
    fn open_file(&self, path: &HostPath) -> Result<Option<(File, Stat)>, TreeError> {
        // A pipe or device would block without this.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = openat2(&self.root, path.relative(), flags, Mode::empty(), CONFINED);
        let Some(file) = absent(opened).map_err(|errno| failed("open", path)(errno))? else {
            return Ok(None);
        };
        let stat = fstat(&file).map_err(failed("look at", path))?;
        match kind(&stat) {
            None => Ok(Some((file.into(), stat))),
            Some(found) => Err(TreeError::NotAFile {
                path: path.clone(),
                found,
            }),
        }
    }

    /// Reads a small file; `None`: it is not there.
    ///
    /// # Errors
    /// When it is no regular file, too large, or unreadable.
    pub fn read(&self, path: &HostPath) -> Result<Option<Text>, TreeError> {
        let Some((file, stat)) = self.open_file(path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(TEXT_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| io_failed("read", path, source))?;
        if bytes.len() as u64 > TEXT_MAX {
            return Err(TreeError::TooLarge {
                path: path.clone(),
                found: u64::try_from(stat.st_size).unwrap_or(u64::MAX),
            });
        }
        Ok(Some(Text {
            bytes,
            permissions: permissions(&stat),
        }))
    }

    /// What the file at `path` is, and its permissions; `None`: nothing is there. Links are not followed. With `quick` its content is not
    /// read, and the digest is empty.
    ///
    /// # Errors
    /// When something else than a regular file is there, or it is unreadable.
    pub fn content(
        &self,
        path: &HostPath,
        quick: bool,
    ) -> Result<Option<(Content, Permissions)>, TreeError> {
        let Some(stat) = self.entry(path)? else {
            return Ok(None);
        };
        if let Some(found) = kind(&stat) {
            return Err(TreeError::NotAFile {
                path: path.clone(),
                found,
            });
        }
        if quick {
            let content = Content {
                sha256: String::new(),
                size: u64::try_from(stat.st_size).unwrap_or_default(),
            };
            return Ok(Some((content, permissions(&stat))));
        }
        let Some((file, stat)) = self.open_file(path)? else {
            return Ok(None);
        };
        let (content, _) = integrity::hash(file, None, |_| Ok(()))
            .map_err(|source| io_failed("read", path, source))?;
        Ok(Some((content, permissions(&stat))))
    }

    /// Where a link at `path` leads in the end, whether something is there or not; without a link, `path`.
    ///
    /// # Errors
    /// When links lead in circles, or to a place that has no plain name.
    pub fn follow(&self, path: &HostPath) -> Result<HostPath, TreeError> {
        let mut path = path.clone();
        for _ in 0..LINKS_MAX {
            let Some(stat) = self.entry(&path)? else {
                return Ok(path);
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                return Ok(path);
            }
            let target = self
                .parent_of(&path)
                .and_then(|parent| readlinkat(parent, path.name(), Vec::new()))
                .map_err(failed("read the link", &path))?;
            let target = target.to_string_lossy().into_owned();
            path = self.plain(&path, &target)?;
        }
        Err(failed("follow the link", &path)(Errno::LOOP))
    }

    /// The plain path of what a link at `link` names. Directories on the way may be links themselves, so `..` is asked of the kernel.
    fn plain(&self, link: &HostPath, target: &str) -> Result<HostPath, TreeError> {
        let joined = match target.starts_with('/') {
            true => target.to_owned(),
            false => {
                let parent = link.parent();
                format!("{}/{target}", parent.as_ref().map_or("", HostPath::as_str))
            }
        };
        let strange = || failed("follow the link", link)(Errno::INVAL);
        let trimmed = joined.trim_end_matches('/');
        let (directory, name) = trimmed.rsplit_once('/').ok_or_else(strange)?;
        if matches!(name, "" | "." | "..") {
            return Err(strange());
        }
        let directory = if directory.is_empty() { "/" } else { directory };
        let opened = openat2(&self.root, directory, DIRECTORY, Mode::empty(), CONFINED)
            .map_err(failed("follow the link", link))?;
        let place = |descriptor: &OwnedFd| {
            let number = std::os::fd::AsRawFd::as_raw_fd(descriptor);
            std::fs::read_link(format!("/proc/self/fd/{number}"))
        };
        let root = place(&self.root).map_err(|source| io_failed("name", link, source))?;
        let directory = place(&opened).map_err(|source| io_failed("name", link, source))?;
        let directory = directory.strip_prefix(root).map_err(|_| strange())?;
        let path = Path::new("/").join(directory).join(name);
        HostPath::new(path.to_string_lossy()).map_err(|_| strange())
    }

    /// The directories above `path` that are not there, outermost first.
    ///
    /// # Errors
    /// When something else is where a directory is needed.
    pub fn missing_directories(&self, path: &HostPath) -> Result<Vec<HostPath>, TreeError> {
        let all = path.ancestors();
        for (index, directory) in all.iter().enumerate() {
            match self.directory(Some(directory)) {
                Ok(_) => {}
                Err(Errno::NOENT) => {
                    // A link to nothing looks the same, and a directory cannot take its place.
                    if self.entry(directory)?.is_some() {
                        return Err(TreeError::NotADirectory {
                            path: directory.clone(),
                        });
                    }
                    return Ok(all.get(index..).unwrap_or_default().to_vec());
                }
                Err(Errno::NOTDIR) => {
                    return Err(TreeError::NotADirectory {
                        path: directory.clone(),
                    });
                }
                Err(errno) => return Err(failed("open the directory", directory)(errno)),
            }
        }
        Ok(Vec::new())
    }

    /// The file system in which a file at `path` would be: its number, and how many bytes are free.
    ///
    /// # Errors
    /// When it is read-only.
    pub fn file_system(&self, path: &HostPath) -> Result<(u64, u64), TreeError> {
        // Directories that are not there yet will be in that of the one above them. The root is always there.
        let mut directories = path.ancestors().into_iter().rev();
        let there = directories.find_map(|directory| self.directory(Some(&directory)).ok());
        let state = match &there {
            Some(directory) => fstatvfs(directory),
            None => fstatvfs(&self.root),
        };
        let state = state.map_err(failed("look at", path))?;
        if state.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(TreeError::ReadOnly { path: path.clone() });
        }
        Ok((state.f_fsid, state.f_bavail.saturating_mul(state.f_frsize)))
    }

    /// Makes one directory; one that is there already is fine.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_directory(&self, path: &HostPath) -> Result<(), TreeError> {
        self.step(&format!("make the directory {path}"))?;
        let parent = self
            .parent_of(path)
            .map_err(failed("open the directory of", path))?;
        match mkdirat(&parent, path.name(), Mode::from_raw_mode(0o755)) {
            // Also one that an interrupted run made.
            Ok(()) | Err(Errno::EXIST) => {
                fsync(&parent).map_err(failed("write the directory of", path))
            }
            Err(errno) => Err(failed("make the directory", path)(errno)),
        }
    }

    /// Puts what is read from `from` at `path`, all of it or nothing.
    ///
    /// # Errors
    /// When it is not what it must be, or cannot be written.
    pub fn replace(
        &self,
        path: &HostPath,
        permissions: Permissions,
        from: impl io::Read,
        expected: Option<&Integrity>,
    ) -> Result<Content, TreeError> {
        let parent = self
            .parent_of(path)
            .map_err(failed("open the directory of", path))?;
        let unfinished = path.beside(UNFINISHED);
        self.step(&format!("write {unfinished}"))?;
        // Left by a run that was interrupted.
        absent(unlinkat(&parent, unfinished.name(), AtFlags::empty()))
            .map_err(|errno| failed("remove", &unfinished)(errno))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(
            &parent,
            unfinished.name(),
            flags,
            Mode::from_raw_mode(0o600),
        )
        .map_err(failed("write", path))?;
        let mut file = File::from(file);
        let (content, verdict) = integrity::hash(from, expected, |chunk| file.write_all(chunk))
            .map_err(|source| io_failed("write", path, source))?;
        if let Err(source) = verdict {
            self.remove(&unfinished)?;
            return Err(TreeError::Differs {
                path: path.clone(),
                source,
            });
        }
        if let Some((user, group)) = permissions.owner {
            fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
                .map_err(failed("give the owner to", path))?;
        }
        fchmod(&file, Mode::from_raw_mode(permissions.mode))
            .map_err(failed("set the permissions of", path))?;
        fsync(&file).map_err(failed("write", path))?;
        self.step(&format!("rename {unfinished} to {path}"))?;
        renameat(&parent, unfinished.name(), &parent, path.name())
            .map_err(failed("put the new content in place of", path))?;
        fsync(&parent).map_err(failed("write the directory of", path))?;
        Ok(content)
    }

    /// Removes a file; `false`: there was none.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, path: &HostPath) -> Result<bool, TreeError> {
        if self.entry(path)?.is_none() {
            return Ok(false);
        }
        self.step(&format!("remove {path}"))?;
        let parent = self
            .parent_of(path)
            .map_err(failed("open the directory of", path))?;
        unlinkat(&parent, path.name(), AtFlags::empty()).map_err(failed("remove", path))?;
        fsync(&parent).map_err(failed("write the directory of", path))?;
        Ok(true)
    }

    /// Removes a directory if it is there and empty.
    ///
    /// # Errors
    /// When the kernel refuses it for another reason.
    pub fn remove_directory(&self, path: &HostPath) -> Result<bool, TreeError> {
        if self.entry(path)?.is_none() {
            return Ok(false);
        }
        self.step(&format!("remove the directory {path}"))?;
        let parent = self
            .parent_of(path)
            .map_err(failed("open the directory of", path))?;
        match unlinkat(&parent, path.name(), AtFlags::REMOVEDIR) {
            Ok(()) => {
                fsync(&parent).map_err(failed("write the directory of", path))?;
                Ok(true)
            }
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR | Errno::BUSY) => {
                Ok(false)
            }
            Err(errno) => Err(failed("remove the directory", path)(errno)),
        }
    }

    /// Names in a directory, sorted; none if it is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self, directory: &HostPath) -> Result<Vec<String>, TreeError> {
        let opened = absent(self.directory(Some(directory)))
            .map_err(|errno| failed("open the directory", directory)(errno))?;
        let Some(opened) = opened else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&opened).map_err(failed("list", directory))? {
            let entry = entry.map_err(failed("list", directory))?;
            if let Ok(name) = entry.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Opens a file to lock it, and makes it if it is not there.
    pub(crate) fn open_lock(&self, path: &HostPath) -> Result<OwnedFd, TreeError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.parent_of(path)
            .and_then(|parent| openat(parent, path.name(), flags, Mode::from_raw_mode(0o600)))
            .map_err(failed("open the lock", path))
    }

    /// Whether the file that is open is still the one at `path`.
    pub(crate) fn is_at(&self, file: &OwnedFd, path: &HostPath) -> Result<bool, TreeError> {
        let open = fstat(file.as_fd()).map_err(failed("look at", path))?;
        let there = self.entry(path)?;
        Ok(there.is_some_and(|there| (there.st_dev, there.st_ino) == (open.st_dev, open.st_ino)))
    }
}

/// What something is that is no regular file.
fn kind(stat: &Stat) -> Option<&'static str> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("a directory"),
        FileType::Symlink => Some("a symbolic link"),
        _ => Some("a device, pipe or socket"),
    }
}

fn permissions(stat: &Stat) -> Permissions {
    Permissions {
        mode: stat.st_mode & 0o7777,
        owner: Some((stat.st_uid, stat.st_gid)),
    }
}

/// Nothing there is an answer.
fn absent<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn failed(action: &'static str, path: &HostPath) -> impl Fn(Errno) -> TreeError {
    let path = path.clone();
    move |errno| io_failed(action, &path, errno.into())
}

fn io_failed(action: &'static str, path: &HostPath, source: io::Error) -> TreeError {
    match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => TreeError::ReadOnly { path: path.clone() },
        _ => TreeError::Io {
            action,
            path: path.clone(),
            source,
        },
    }
}
