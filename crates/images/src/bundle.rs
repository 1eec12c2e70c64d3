//! The root file system of a container: an overlay file system over the layers of its image.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, getxattr, openat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
    },
};

use crate::{PulledImage, store::OPAQUE};

const ROOTFS: &str = "rootfs";
const UPPER: &str = "upper";
const WORK: &str = "work";
/// Where an image without layers is mounted from.
const EMPTY: &str = "empty";
const CONFIGURATION: &str = "image.json";
const ROOT_MODE: u32 = 0o755;
const DIRECTORIES: [(&str, u32); 3] = [(ROOTFS, ROOT_MODE), (UPPER, ROOT_MODE), (WORK, 0o700)];
/// What the kernel takes as one option of a file system (fsconfig(2)).
const OPTION_MAX: usize = 255;

/// A directory with the root file system of one container. Without [`Bundle::mount`] it goes away again.
///
/// | path | what |
/// | --- | --- |
/// | `rootfs/` | the file system, mounted |
/// | `upper/`, `work/` | what the container changes |
/// | `image.json` | the image's configuration |
///
/// All of it is reached through the descriptor of the directory, so a name on the way to it that means something else later leads nowhere
/// else. The mount options that the kernel shows name the descriptor too (`upperdir=/proc/self/fd/N/upper`).
#[derive(Debug)]
pub struct Bundle {
    directory: OwnedFd,
    /// For messages and logs.
    path: PathBuf,
    is_mounted: bool,
}

/// No root file system can be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file system refuses something.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is one already.
    #[error("{} holds another bundle; expected a directory without `{ROOTFS}`, `{UPPER}` and `{WORK}`", path.display())]
    Occupied {
        /// The bundle.
        path: PathBuf,
    },
    /// Not a path that the kernel takes.
    #[error("{} cannot be given to an overlay file system: expected at most {OPTION_MAX} bytes of UTF-8 without a backslash", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// The kernel does not mount it.
    #[error("cannot mount an overlay file system at {}; it needs root, and Linux 6.7 or newer with overlayfs", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Bundle {
    /// Makes the directory and what is in it, except for the image. There must be no bundle yet.
    ///
    /// # Errors
    /// When there is one, or the file system refuses something.
    pub fn new(path: &Path) -> Result<Self, BundleError> {
        if !path.is_dir() {
            make(path, path, 0o700, true)?;
        }
        let path = fs::canonicalize(path).map_err(at("find", path))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(CWD, &path, flags, Mode::empty());
        let directory = directory.map_err(|error| at("open", &path)(error.into()))?;
        Self::within(directory, path)
    }

    /// Makes what is in the directory, except for the image, where it is open already. There must be no bundle yet. `path` is what
    /// messages call it.
    ///
    /// # Errors
    /// When there is one, or the file system refuses something. `/proc` has to be there.
    pub fn within(directory: OwnedFd, path: PathBuf) -> Result<Self, BundleError> {
        for (name, mode) in DIRECTORIES {
            let made = inside(&directory, name);
            // Left by a process that died; what is in use is not empty, or busy.
            let _ = fs::remove_dir(&made);
            match make(&made, &path.join(name), mode, false) {
                Err(BundleError::File { source, .. })
                    if source.kind() == io::ErrorKind::AlreadyExists =>
                {
                    return Err(BundleError::Occupied { path });
                }
                other => other?,
            }
        }
        Ok(Self {
            directory,
            path,
            is_mounted: false,
        })
    }

    /// Where the root file system is.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join(ROOTFS)
    }

    /// What is called `name` in the directory.
    fn at(&self, name: &str) -> PathBuf {
        inside(&self.directory, name)
    }

    /// Mounts the image's layers at `rootfs` and writes down its configuration.
    ///
    /// # Errors
    /// When the kernel does not mount it, or the file system refuses something.
    pub fn mount(&mut self, image: &PulledImage) -> Result<(), BundleError> {
        fs::write(self.at(CONFIGURATION), &image.configuration)
            .map_err(at("write", &self.path.join(CONFIGURATION)))?;
        let mut lower = Vec::new();
        // The highest first, down to one that hides all below it.
        for layer in image.layers.iter().rev() {
            lower.push(fs::canonicalize(layer).map_err(at("find", layer))?);
            if is_opaque(layer).map_err(at("read the attributes of", layer))? {
                break;
            }
        }
        if lower.is_empty() {
            let empty = self.at(EMPTY);
            make(&empty, &self.path.join(EMPTY), ROOT_MODE, false)?;
            lower.push(empty);
        }
        let lower: Vec<&str> = lower
            .iter()
            .map(|path| option(path))
            .collect::<Result<_, _>>()?;
        let (upper, work) = (self.at(UPPER), self.at(WORK));
        let options = lower
            .into_iter()
            .map(|layer| ("lowerdir+", layer))
            .chain([("upperdir", option(&upper)?), ("workdir", option(&work)?)])
            // Nothing in a layer may lead to another place than its own.
            .chain([("redirect_dir", "nofollow"), ("metacopy", "off")]);
        mount_overlay(options, &self.at(ROOTFS)).map_err(|error| BundleError::Mount {
            path: self.rootfs(),
            source: error.into(),
        })?;
        self.is_mounted = true;
        Ok(())
    }

    /// Takes the root file system away again, and all that was made for it. For a container that never ran.
    ///
    /// # Errors
    /// When it is in use, or the file system refuses something.
    pub fn remove(mut self) -> Result<(), BundleError> {
        if self.is_mounted {
            unmount(self.at(ROOTFS), UnmountFlags::NOFOLLOW)
                .map_err(|error| at("unmount", &self.rootfs())(error.into()))?;
            self.is_mounted = false;
        }
        // The kernel leaves a directory of its own in it.
        fs::remove_dir_all(self.at(WORK)).map_err(at("remove", &self.path.join(WORK)))
    }
}

impl Drop for Bundle {
    /// Without a root file system nothing stays.
    fn drop(&mut self) {
        if self.is_mounted {
            return;
        }
        for (name, _) in DIRECTORIES.iter().chain([&(EMPTY, ROOT_MODE)]) {
            let _ = fs::remove_dir(self.at(name));
        }
        let _ = fs::remove_file(self.at(CONFIGURATION));
    }
}

fn inside(directory: &OwnedFd, name: &str) -> PathBuf {
    let number = directory.as_raw_fd();
    PathBuf::from(format!("/proc/self/fd/{number}/{name}"))
}

fn mount_overlay<'a>(
    options: impl Iterator<Item = (&'a str, &'a str)>,
    at: &Path,
) -> Result<(), Errno> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&overlay, "source", "overlay")?;
    for (key, value) in options {
        fsconfig_set_string(&overlay, key, value)?;
    }
    fsconfig_create(&overlay)?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mounted = fsmount(&overlay, flags, MountAttrFlags::empty())?;
    // Opened once and for all, without a link at its end.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let at = openat(CWD, at, flags, Mode::empty())?;
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mounted, "", at, "", both)
}

/// The kernel looks for this mark in all directories but the roots of layers.
fn is_opaque(layer: &Path) -> io::Result<bool> {
    let (name, value) = OPAQUE;
    let mut found = [0; 8];
    match getxattr(layer, name, &mut found) {
        Ok(count) => Ok(found.get(..count) == Some(value)),
        Err(Errno::NODATA) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn option(path: &Path) -> Result<&str, BundleError> {
    let text = path.to_str();
    let text = text.filter(|text| text.len() <= OPTION_MAX && !text.contains('\\'));
    text.ok_or_else(|| BundleError::Path {
        path: path.to_owned(),
    })
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::File {
        action,
        path,
        source,
    }
}

/// Makes the directory `path`, which messages call `shown`.
fn make(path: &Path, shown: &Path, mode: u32, recursive: bool) -> Result<(), BundleError> {
    let made = DirBuilder::new().recursive(recursive).create(path);
    // Not when it is made, because the process's mask would change it.
    made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(at("make the directory", shown))
}
