//! A volume in a file of a directory that the host shares: `volumeMode: Filesystem`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};

use crate::{FormatRule, VolumeError, tools};

/// Linux `Documentation/admin-guide/devices.txt`: major and minor number.
const LOOP_CONTROL: (u32, u32) = (10, 237);
const LOOP_MAJOR: u32 = 7;

/// A file that serves as a block device until this is detached.
#[derive(Debug)]
pub struct LoopFile {
    device: PathBuf,
}

impl LoopFile {
    /// Attaches `path` to a loop device. A file that is missing is made, with `bytes` and without content, unless `format` is
    /// [`FormatRule::Never`]; a smaller one grows to `bytes`.
    ///
    /// # Errors
    /// When the file cannot be made or opened, is missing and must not be, is a link, was exchanged meanwhile, or there is no loop device.
    pub fn attach(path: &Path, bytes: u64, format: FormatRule) -> Result<Self, VolumeError> {
        let failed = |what| {
            move |source| VolumeError::File {
                what,
                path: path.to_owned(),
                source,
            }
        };
        let file = match open(path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if format == FormatRule::Never {
                    let path = path.to_owned();
                    return Err(VolumeError::Missing { path });
                }
                open(path, true).map_err(failed("make"))?
            }
            opened => opened.map_err(failed("open"))?,
        };
        let found = file.metadata().map_err(failed("look at"))?;
        if !found.is_file() {
            let source = io::Error::other("it is not a file");
            return Err(failed("use")(source));
        }
        if found.len() < bytes {
            let grown = file.set_len(bytes).and_then(|()| file.sync_all());
            grown.map_err(failed("grow"))?;
        }
        make_nodes().map_err(VolumeError::LoopNodes)?;
        let device = tools::attach_loop(path)?;
        let attached = Self { device };
        match tools::file_of_loop(&attached.device)? == (found.ino(), found.dev()) {
            true => Ok(attached),
            false => {
                attached.detach()?;
                let source = io::Error::other("it is another file than a moment ago");
                Err(failed("use")(source))
            }
        }
    }

    /// The block device.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Gives the loop device back.
    ///
    /// # Errors
    /// When it is in use.
    pub fn detach(self) -> Result<(), VolumeError> {
        Ok(tools::detach_loop(&self.device)?)
    }
}

/// The host names the file, so a link is not followed to one of the guest.
fn open(path: &Path, new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(new).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options.open(path)
}

/// A container has no loop devices in its `/dev`, and no `udev` that would make them.
fn make_nodes() -> io::Result<()> {
    make_node(
        Path::new("/dev/loop-control"),
        FileType::CharacterDevice,
        LOOP_CONTROL,
    )?;
    // From now on the kernel has a free one.
    tools::free_loop().map_err(io::Error::other)?;
    for entry in fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if let Some(Ok(minor)) = name.strip_prefix("loop").map(str::parse) {
            let path = Path::new("/dev").join(&*name);
            make_node(&path, FileType::BlockDevice, (LOOP_MAJOR, minor))?;
        }
    }
    Ok(())
}

fn make_node(path: &Path, kind: FileType, (major, minor): (u32, u32)) -> io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    match mknodat(CWD, path, kind, mode, makedev(major, minor)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
