//! Encrypted volumes on disks that the host owns.
//!
//! The host can read a disk, change it, swap it for another one and put back what was there yesterday. A volume of this crate gives it
//! nothing to read, and makes the rest noticed:
//!
//! - Data is LUKS2 over `dm-crypt` and `dm-integrity`: AES-256-XTS, and HMAC-SHA-256 of each sector with its number. The kernel checks each
//!   sector that it reads; a changed one, or one from another place, is an I/O error.
//! - LUKS2 does not authenticate its own header. It is read once, compared with the one header that this program makes ([`luks`]), and
//!   `cryptsetup` opens the copy in memory that was compared, never the one on the disk.
//! - A [`Seal`] beside it, authenticated with a key of the workload, binds that header and counts generations, so that an older disk is
//!   noticed: each opening and each closing makes a new one, and [`GenerationRecord`] remembers the newest.
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 512 KiB | LUKS2 header and keyslot, written once |
//! | 512 KiB | 2 × 4 KiB | seals; the one with the higher generation counts |
//! | 520 KiB | 504 KiB | zeros |
//! | 1 MiB | the rest | superblock and journal of `dm-integrity`; tags and data, interleaved |
//!
//! Keys come from the workload secret and the volume's UUID ([`VolumeKeys`]). What is not noticed: sectors that are put back to an earlier
//! content of the same place since the volume was last opened, and a whole disk that was copied since then, if it was not closed.
//! `docs/threat-model.md` says what follows from that.

mod disk;
mod ephemeral;
mod error;
mod filesystem;
mod keys;
pub mod layout;
mod leftovers;
mod loop_file;
pub mod luks;
mod mounts;
mod open;
mod record;
mod seal;
mod tools;
mod volume;

pub use disk::DiskError;
pub use ephemeral::{EphemeralVolume, open_ephemeral};
pub use error::VolumeError;
pub use filesystem::{Filesystem, FilesystemError};
pub use keys::{KeysError, VOLUME_KEY_BYTES, VolumeKeys};
pub use loop_file::LoopFile;
pub use mounts::{MountError, MountOptions, MountOptionsError};
pub use record::{Advanced, FormatRule, GenerationRecord, RecordError, RollbackRule, RuleError};
pub use seal::{Seal, SealError, State, header_digest};
pub use tools::ToolError;
pub use volume::{OpenVolume, Opener, Request};

use std::path::Path;

/// Whether a volume of this crate is mounted there.
pub fn is_mounted(mount_point: &Path) -> bool {
    mounts::mapped_at(mount_point).is_some_and(|name| name.starts_with("contrast-"))
}
