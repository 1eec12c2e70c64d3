use std::{
    ffi::CString,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{major, minor},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use crate::Filesystem;

/// Options of `mount(8)` that volumes may have. None of them weakens anything.
const OPTIONS: [(&str, MountFlags); 8] = [
    ("noatime", MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME),
    ("relatime", MountFlags::RELATIME),
    ("strictatime", MountFlags::STRICTATIME),
    ("lazytime", MountFlags::LAZYTIME),
    ("noexec", MountFlags::NOEXEC),
    ("ro", MountFlags::RDONLY),
    ("sync", MountFlags::SYNCHRONOUS),
];
const UNMOUNT_POLL: Duration = Duration::from_millis(100);

/// An option that volumes cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{found}` is no mount option of volumes; expected a list of {}",
    names()
)]
pub struct MountOptionsError {
    found: String,
}

fn names() -> String {
    OPTIONS.map(|(name, _)| name).join(", ")
}

/// A file system cannot be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct MountError {
    /// What was tried.
    what: &'static str,
    /// Where.
    path: PathBuf,
    /// Why.
    #[source]
    source: io::Error,
}

/// How a volume is mounted, besides `nodev` and `nosuid`, which always hold: `noatime,noexec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountOptions(MountFlags);

impl Default for MountOptions {
    fn default() -> Self {
        Self(MountFlags::NODEV | MountFlags::NOSUID)
    }
}

impl MountOptions {
    /// For file systems of images, which may have programs that change their user. Device nodes stay without effect.
    pub(crate) fn of_images() -> Self {
        Self(MountFlags::NODEV)
    }
}

impl FromStr for MountOptions {
    type Err = MountOptionsError;

    fn from_str(text: &str) -> Result<Self, MountOptionsError> {
        let mut options = Self::default();
        for name in text.split(',').filter(|name| !name.is_empty()) {
            let known = OPTIONS.iter().find(|(known, _)| *known == name);
            let (_, flag) = known.ok_or_else(|| MountOptionsError {
                found: name.to_owned(),
            })?;
            options.0 |= *flag;
        }
        Ok(options)
    }
}

/// Owner, group and permissions of a directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    owner: u32,
    group: u32,
    mode: u32,
}

pub(crate) fn access(directory: &Path) -> Result<Access, MountError> {
    let found = fs::metadata(directory);
    let found = found.map_err(|source| failed("look at", directory, source))?;
    Ok(Access {
        owner: found.uid(),
        group: found.gid(),
        mode: found.mode() & 0o7777,
    })
}

/// Gives the root of a new file system what the directory had that it is mounted on: a pod's `fsGroup` is for that one.
pub(crate) fn set_access(directory: &Path, access: Access) -> Result<(), MountError> {
    chown(directory, Some(access.owner), Some(access.group))
        .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(access.mode)))
        .map_err(|source| failed("set the owner of", directory, source))
}

pub(crate) fn attach(
    device: &Path,
    mount_point: &Path,
    filesystem: Filesystem,
    options: MountOptions,
) -> Result<(), MountError> {
    fs::create_dir_all(mount_point).map_err(|source| failed("make", mount_point, source))?;
    // What the file system does with errors of the device: nothing is written any more.
    let data = match filesystem {
        Filesystem::Ext4 => Some(CString::from(c"errors=remount-ro")),
        Filesystem::Xfs => None,
    };
    let name = filesystem.name();
    mount(device, mount_point, name, options.0, data.as_deref())
        .map_err(|error| failed("mount the volume at", mount_point, error.into()))
}

/// Waits until nobody uses it, at most for `patience`.
pub(crate) fn detach(mount_point: &Path, patience: Duration) -> Result<(), MountError> {
    let begun = Instant::now();
    loop {
        match unmount(mount_point, UnmountFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::BUSY) if begun.elapsed() < patience => {
                thread::sleep(UNMOUNT_POLL);
            }
            Err(error) => return Err(failed("unmount", mount_point, error.into())),
        }
    }
}

/// Name of the device-mapper device that is mounted there, if it is one.
pub(crate) fn mapped_at(mount_point: &Path) -> Option<String> {
    let device = fs::metadata(mount_point).ok()?.dev();
    let path = format!("/sys/dev/block/{}:{}/dm/name", major(device), minor(device));
    let name = fs::read_to_string(path).ok()?;
    Some(name.trim_end().to_owned())
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> MountError {
    MountError {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_known_or_refused() {
        let plain = MountOptions::default();
        assert_eq!("".parse(), Ok(plain));
        let parsed: MountOptions = "noatime,noexec".parse().expect("options");
        assert_eq!(parsed.0, plain.0 | MountFlags::NOATIME | MountFlags::NOEXEC);
        for refused in ["suid", "dev", "noatime, noexec", "data=journal", "remount"] {
            let error = refused.parse::<MountOptions>().expect_err(refused);
            assert!(error.to_string().contains("expected a list of noatime"));
        }
    }
}
