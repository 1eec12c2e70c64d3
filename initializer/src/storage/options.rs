use std::path::PathBuf;

use clap::Args;
use contrast_volume::{Filesystem, FormatRule, MountOptions, Request, RollbackRule};

/// Smallest volume in a file.
const FILE_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// An encrypted volume. The variables are those that `contrast generate` sets for the annotations `secure-pv` and `secure-pv-*`.
#[derive(Debug, Clone, Args)]
pub struct VolumeOptions {
    /// Block device of the volume, or a file on a file system that the host shares.
    #[arg(
        short = 'd',
        long = "device-path",
        alias = "cryptsetup-device",
        env = "CRYPTSETUP_DEVICE",
        value_name = "DEVICE"
    )]
    pub device: Option<PathBuf>,

    /// Where the volume is mounted.
    #[arg(
        short = 'm',
        long = "mount-point",
        env = "CRYPTSETUP_MOUNT_POINT",
        default_value = "/state",
        value_name = "DIR"
    )]
    pub mount_point: PathBuf,

    /// What a new volume is formatted with.
    #[arg(
        long,
        env = "CRYPTSETUP_FILESYSTEM",
        default_value_t,
        value_name = "ext4|xfs"
    )]
    pub filesystem: Filesystem,

    /// Options of the mount besides nodev and nosuid, with commas between: noatime, noexec, ro, ...
    #[arg(
        long,
        env = "CRYPTSETUP_MOUNT_OPTIONS",
        default_value = "",
        value_name = "LIST",
        hide_default_value = true,
        value_parser = str::parse::<MountOptions>
    )]
    pub mount_options: MountOptions,

    /// When the device is formatted: if it is blank, never, or also if it holds something else, which is lost.
    #[arg(
        long,
        env = "CRYPTSETUP_FORMAT",
        default_value_t,
        value_name = "blank|never|discard"
    )]
    pub format: FormatRule,

    /// What happens when the disk is older than the Coordinator remembers. [default: strict, or off without a Coordinator]
    #[arg(long, env = "CRYPTSETUP_ROLLBACK", value_name = "strict|warn|off")]
    pub rollback: Option<RollbackRule>,

    /// Size of a volume in a file, bytes; a smaller file grows. Without it the volume is a block device.
    #[arg(
        long,
        env = "CRYPTSETUP_FILE_BYTES",
        value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(FILE_BYTES_MIN..)
    )]
    pub file_bytes: Option<u64>,
}

impl VolumeOptions {
    /// What to open, when there is a device.
    pub(crate) fn request(&self, default: RollbackRule) -> Option<Request> {
        let device = self.device.clone()?;
        Some(Request {
            device,
            mount_point: self.mount_point.clone(),
            filesystem: self.filesystem,
            mount_options: self.mount_options,
            format: self.format,
            rollback: self.rollback.unwrap_or(default),
        })
    }
}
