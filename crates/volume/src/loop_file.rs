//! A volume in a file of a directory that the host shares: `volumeMode: Filesystem`.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::{FormatRule, VolumeError, tools};

/// A file that serves as a block device until this is detached.
#[derive(Debug)]
pub struct LoopFile {
    device: PathBuf,
}

impl LoopFile {
    /// Attaches `file` to a loop device. A file that is missing is made, with `bytes` and without content, unless `format` is
    /// [`FormatRule::Never`]; a smaller one grows to `bytes`.
    ///
    /// # Errors
    /// When the file cannot be made or opened, is missing and must not be, or there is no loop device.
    pub fn attach(file: &Path, bytes: u64, format: FormatRule) -> Result<Self, VolumeError> {
        let failed = |what| {
            let path = file.to_owned();
            move |source| VolumeError::File { what, path, source }
        };
        match fs::symlink_metadata(file) {
            Ok(found) if !found.is_file() => {
                let source = io::Error::other("it is not a file");
                return Err(failed("use")(source));
            }
            Ok(found) => {
                if found.len() < bytes {
                    resize(file, bytes, false).map_err(failed("grow"))?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if format == FormatRule::Never {
                    let path = file.to_owned();
                    return Err(VolumeError::Missing { path });
                }
                resize(file, bytes, true).map_err(failed("make"))?;
            }
            Err(error) => return Err(failed("look at")(error)),
        }
        let device = tools::attach_loop(file)?;
        Ok(Self { device })
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

fn resize(file: &Path, bytes: u64, new: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(new).mode(0o600);
    let file = options.open(file)?;
    file.set_len(bytes)?;
    file.sync_all()
}
