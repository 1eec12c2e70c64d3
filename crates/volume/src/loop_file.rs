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
    path: PathBuf,
    file: File,
    device: PathBuf,
}

impl LoopFile {
    /// Attaches `path` to a loop device. A file that is missing, or empty, is made, with `bytes` and without content, unless `format` is
    /// [`FormatRule::Never`]; another one stays as large as it is.
    ///
    /// # Errors
    /// When the file cannot be made or opened, is missing and must not be, is a link, was exchanged meanwhile, or there is no loop device.
    pub fn attach(path: &Path, bytes: u64, format: FormatRule) -> Result<Self, VolumeError> {
        let failed = |what| failed(path, what);
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
        if found.len() == 0 && format != FormatRule::Never {
            resize(&file, bytes).map_err(failed("make"))?;
        }
        make_nodes().map_err(VolumeError::LoopNodes)?;
        let attached = Self {
            path: path.to_owned(),
            file,
            device: tools::attach_loop(path)?,
        };
        let reason = match tools::file_of_loop(&attached.device) {
            Ok(numbers) if numbers == (found.ino(), found.dev()) => return Ok(attached),
            Ok(_) => failed("use")(io::Error::other("it is another file than a moment ago")),
            Err(error) => error.into(),
        };
        // The reason is the first error.
        let _ = attached.detach();
        Err(reason)
    }

    /// The block device.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Whether the file has less than `bytes`.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn is_shorter_than(&self, bytes: u64) -> Result<bool, VolumeError> {
        let found = self
            .file
            .metadata()
            .map_err(failed(&self.path, "look at"))?;
        Ok(found.len() < bytes)
    }

    /// Makes file and block device as large as that.
    ///
    /// # Errors
    /// When there is no room.
    pub fn grow(&self, bytes: u64) -> Result<(), VolumeError> {
        resize(&self.file, bytes).map_err(failed(&self.path, "grow"))?;
        Ok(tools::resize_loop(&self.device)?)
    }

    /// Gives the loop device back.
    ///
    /// # Errors
    /// When it is in use.
    pub fn detach(self) -> Result<(), VolumeError> {
        Ok(tools::detach_loop(&self.device)?)
    }
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::File { what, path, source }
}

fn resize(file: &File, bytes: u64) -> io::Result<()> {
    file.set_len(bytes)?;
    file.sync_all()
}

/// The host makes what is there: a link is not followed to a file of the guest, and a device is not waited for.
fn open(path: &Path, new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(new).mode(0o600);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    options.custom_flags(flags.bits().cast_signed());
    options.open(path)
}

/// A container has no loop devices in its `/dev`, and no `udev` that would make them.
fn make_nodes() -> io::Result<()> {
    make_node(
        Path::new("/dev/loop-control"),
        FileType::CharacterDevice,
        LOOP_CONTROL,
    )?;
    tools::ensure_free_loop().map_err(io::Error::other)?;
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("loop") {
            let text = fs::read_to_string(entry.path().join("dev"))?;
            let minor = text.trim().strip_prefix("7:").map(str::parse);
            if let Some(Ok(minor)) = minor {
                let path = Path::new("/dev").join(name);
                make_node(&path, FileType::BlockDevice, (LOOP_MAJOR, minor))?;
            }
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
