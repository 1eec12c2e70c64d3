//! A volume for what need not outlive the guest, such as unpacked images.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use contrast_clock::Entropy;
use zeroize::Zeroizing;

use crate::{
    Filesystem, MountOptions, VolumeError,
    disk::{Disk, Filling},
    keys::VOLUME_KEY_BYTES,
    luks, mounts,
    tools::{self, Header, Journal},
};

/// Beginning and end of the decrypted device, bytes each.
const EDGE_BYTES: u64 = 1024 * 1024;

/// An ephemeral volume that is mounted.
#[derive(Debug)]
pub struct EphemeralVolume {
    name: String,
    mount_point: PathBuf,
}

/// Formats a device with a key that is drawn now, and mounts it. The key, and the header without which the key is of no use, stay in memory:
/// what is on the device is lost with the guest, as is what was on it before.
///
/// # Errors
/// When the device is in use or fails.
pub fn open_ephemeral(
    device: &Path,
    mount_point: &Path,
    entropy: &dyn Entropy,
) -> Result<EphemeralVolume, VolumeError> {
    // The device is looked at, and given back for `cryptsetup`.
    drop(Disk::open_alone(device)?);
    let mut key = Zeroizing::new([0; VOLUME_KEY_BYTES]);
    entropy.fill(key.as_mut())?;
    let mut identity = [0; 16];
    entropy.fill(&mut identity)?;
    let uuid = uuid::Builder::from_random_bytes(identity).into_uuid();
    let name = format!("contrast-{}", uuid.simple());
    let mut header = Header::blank()?;
    tools::luks_format(device, &header, uuid, &key)?;
    luks::check(&header.bytes()?, uuid).map_err(|source| VolumeError::Luks {
        path: device.to_owned(),
        source,
    })?;
    let mapped = tools::luks_open(device, &header, &name, &key, Journal::Off)?;
    let opened = EphemeralVolume {
        name,
        mount_point: mount_point.to_owned(),
    };
    let mounted = write_edges(&mapped)
        .and_then(|()| Ok(tools::make_ephemeral_filesystem(&mapped)?))
        .and_then(|()| {
            let options = MountOptions::of_images();
            Ok(mounts::attach(
                &mapped,
                mount_point,
                Filesystem::Ext4,
                options,
            )?)
        });
    match mounted {
        Ok(()) => Ok(opened),
        Err(error) => {
            // The reason is the first error.
            let _ = tools::luks_close(&opened.name);
            Err(error)
        }
    }
}

/// Sectors that were never written cannot be read, and those of the whole device would take long. These are where `mkfs` looks for what was
/// there before.
fn write_edges(mapped: &Path) -> Result<(), VolumeError> {
    let mut beginning = Filling::open(mapped, 0)?;
    beginning.fill(EDGE_BYTES)?;
    let end = beginning.bytes().saturating_sub(EDGE_BYTES);
    Ok(Filling::open(mapped, end)?.fill(EDGE_BYTES)?)
}

impl EphemeralVolume {
    /// Unmounts it; its content is lost. Waits at most for `patience` until nobody uses it.
    ///
    /// # Errors
    /// When it stays in use.
    pub fn close(self, patience: Duration) -> Result<(), VolumeError> {
        mounts::detach(&self.mount_point, patience)?;
        Ok(tools::luks_close(&self.name)?)
    }
}
