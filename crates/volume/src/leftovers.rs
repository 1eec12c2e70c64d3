//! Mappings that a container left behind.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{major, minor};

/// Names of volumes, and what `cryptsetup` calls a device for the moment in which it formats it.
const OURS: [&str; 2] = ["contrast-", "temporary-cryptsetup-"];

/// Names of our mappings that use a block device, in the order in which they can be removed.
pub(crate) fn above(device: &Path) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(found) = fs::metadata(device) {
        let number = found.rdev();
        let path = format!("/sys/dev/block/{}:{}", major(number), minor(number));
        collect(&PathBuf::from(path), &mut names);
    }
    names
}

/// The kernel knows no circles here.
fn collect(device: &Path, names: &mut Vec<String>) {
    let holders = fs::read_dir(device.join("holders"));
    for holder in holders.into_iter().flatten().flatten() {
        collect(&holder.path(), names);
        let name = fs::read_to_string(holder.path().join("dm/name")).unwrap_or_default();
        let name = name.trim_end();
        if OURS.iter().any(|prefix| name.starts_with(prefix)) {
            names.push(name.to_owned());
        }
    }
}
