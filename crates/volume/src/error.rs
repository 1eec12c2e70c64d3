use std::{io, path::PathBuf};

use contrast_clock::EntropyError;

use crate::{
    RecordError, disk::DiskError, keys::KeysError, luks::LuksError, mounts::MountError,
    seal::SealError, tools::ToolError,
};

/// A volume cannot be opened or closed. Unless formatting was begun, nothing was written to the device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The device.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A program.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The mount point.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// No identity for a new volume.
    #[error("cannot draw the identity of a new volume")]
    Entropy(#[from] EntropyError),
    /// Something else is on the device.
    #[error(
        "{} is not a volume of this program, and not blank: {}byte {offset} is not zero. Nothing was written to it. \
         To lose what it holds and have it formatted, set the annotation contrast.edgeless.systems/secure-pv-format to `discard`",
        path.display(), recognised.as_ref().map(|name| format!("it holds {name}, and ")).unwrap_or_default()
    )]
    Foreign {
        /// The device.
        path: PathBuf,
        /// What `blkid` takes it for.
        recognised: Option<String>,
        /// Where its first content is.
        offset: u64,
    },
    /// A blank device where a volume must be.
    #[error(
        "{} is blank, and secure-pv-format is `never`: the volume that belongs here was replaced, or never made. \
         Nothing was written to it",
        path.display()
    )]
    Missing {
        /// The device.
        path: PathBuf,
    },
    /// The seal is not the workload's.
    #[error("{} cannot be trusted; nothing was written to it", path.display())]
    Seal {
        /// The device.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealError,
    },
    /// The header is not the one that was sealed.
    #[error("the header of {} is not the one that was sealed: it was changed, or taken from another volume; nothing was written to it", path.display())]
    HeaderChanged {
        /// The device.
        path: PathBuf,
    },
    /// The header is not what this program makes.
    #[error("the header of {} cannot be trusted", path.display())]
    Luks {
        /// The device.
        path: PathBuf,
        /// Why.
        #[source]
        source: LuksError,
    },
    /// An older disk.
    #[error(
        "{} was rolled back, or another pod has opened a copy of it: its generation is {found}, and {recorded} is recorded. \
         To go on with what it holds, set the annotation contrast.edgeless.systems/secure-pv-rollback to `warn` for one start",
        path.display()
    )]
    RolledBack {
        /// The device.
        path: PathBuf,
        /// Generation on the device.
        found: u64,
        /// Generation that is recorded.
        recorded: u64,
    },
    /// The record of generations.
    #[error("cannot compare the volume's generation with the Coordinator's record")]
    Record(#[source] RecordError),
    /// A smaller device than before.
    #[error("{} has {found} bytes, and had {expected} when it was last opened: it was cut off", path.display())]
    Shrunk {
        /// The device, or the decrypted one.
        path: PathBuf,
        /// Size.
        found: u64,
        /// Size when it was sealed.
        expected: u64,
    },
    /// Loop devices.
    #[error(
        "cannot make the nodes of loop devices in /dev; a volume in a file needs a kernel with loop devices, and a privileged container"
    )]
    LoopNodes(#[source] io::Error),
    /// The file of a file volume.
    #[error("cannot {what} the volume's file {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
