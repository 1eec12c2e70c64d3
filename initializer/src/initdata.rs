//! `check-initdata`: before the agent of the guest starts, the document on the host's device is compared with what the hardware says that this
//! guest was started with, and only then becomes the agent's policy.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use contrast_attestation::{IssuerConfig, PlatformError, ReportData};
use contrast_clock::{Entropy, EntropyError};
use contrast_initdata::{DEVICE_MAGIC, DeviceError, Initdata, read_device};
use contrast_telemetry::exposure::PUBLIC;

/// Beginnings of names of disks in a guest of Kata: virtio-blk and virtio-scsi.
const DISKS: [&str; 2] = ["vd", "sd"];
/// How long the kernel may take to find the device.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// Parts of the document that other programs of the guest read.
const CONFIGURATION: [&str; 2] = ["aa.toml", "cdh.toml"];

/// Where the document is, and where it goes.
#[derive(Debug, Clone, Args)]
pub struct CheckInitdata {
    /// Device or file with the document. [default: the one disk that begins with `initdata`]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<PathBuf>,

    /// Directory that is made, with `initdata.toml`, `policy.rego`, and `aa.toml` and `cdh.toml` if the document has them.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/confidential-containers/initdata"
    )]
    pub output: PathBuf,
}

/// The agent must not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckInitdataError {
    /// Nothing begins so.
    #[error("no disk begins with `initdata`, after {} s; a pod of Contrast has the annotation that `contrast generate` writes, and a runtime that hands it over", APPEARS_WITHIN.as_secs())]
    NoDevice,
    /// Which one?
    #[error("{} and {} both begin with `initdata`, expected one disk", one.display(), other.display())]
    Ambiguous {
        /// One disk.
        one: PathBuf,
        /// Another disk.
        other: PathBuf,
    },
    /// The device.
    #[error("{} holds no usable document", path.display())]
    Device {
        /// The device.
        path: PathBuf,
        /// Why.
        #[source]
        source: DeviceError,
    },
    /// The device or the directory.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The hardware cannot be asked.
    #[error("cannot ask the hardware what this guest was started with")]
    Platform(#[from] PlatformError),
    /// No nonce.
    #[error("cannot draw a nonce for the report")]
    Entropy(#[from] EntropyError),
    /// The host's document is another one.
    #[error("the document on {} has the SHA-256 {found}, and this guest was started with {expected}: the host handed over another policy", path.display())]
    Mismatch {
        /// The device.
        path: PathBuf,
        /// Hash of what is on it, hexadecimal.
        found: String,
        /// HOSTDATA or MRCONFIGID, hexadecimal.
        expected: String,
    },
}

/// Compares, and writes what the agent reads; all of it or nothing.
///
/// # Errors
/// When there is no document, it is not the one that the guest was started with, or it cannot be written. The guest must end then.
pub fn check_initdata(
    options: &CheckInitdata,
    tee: &IssuerConfig,
    entropy: &dyn Entropy,
) -> Result<(), CheckInitdataError> {
    let path = match &options.device {
        Some(path) => path.clone(),
        None => wait_for_device()?,
    };
    let device = File::open(&path).map_err(|error| failed("open", &path, error))?;
    let document = read_device(device).map_err(|source| CheckInitdataError::Device {
        path: path.clone(),
        source,
    })?;
    let mut nonce = ReportData([0; 64]);
    entropy.fill(&mut nonce.0)?;
    let expected = tee.own_policy_hash(&nonce)?.0;
    let found = document.hash();
    if found != expected {
        return Err(CheckInitdataError::Mismatch {
            path,
            found: hex::encode(found),
            expected: hex::encode(expected),
        });
    }
    write(&options.output, &document)?;
    tracing::info!(
        hash = hex::encode(found),
        exposure = PUBLIC,
        "the document is the one that this guest was started with"
    );
    Ok(())
}

fn wait_for_device() -> Result<PathBuf, CheckInitdataError> {
    let begun = Instant::now();
    loop {
        if let Some(device) = find_device(Path::new("/sys/block"), Path::new("/dev"))? {
            return Ok(device);
        }
        if begun.elapsed() > APPEARS_WITHIN {
            return Err(CheckInitdataError::NoDevice);
        }
        thread::sleep(POLL);
    }
}

/// The one disk that begins so. A second one would let the host choose after the check.
fn find_device(list: &Path, devices: &Path) -> Result<Option<PathBuf>, CheckInitdataError> {
    let entries = fs::read_dir(list).map_err(|error| failed("list", list, error))?;
    let mut found: Option<PathBuf> = None;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !DISKS.iter().any(|beginning| name.starts_with(beginning)) {
            continue;
        }
        let path = devices.join(name.as_ref());
        let mut magic = [0; DEVICE_MAGIC.len()];
        let read = File::open(&path).and_then(|mut device| device.read_exact(&mut magic));
        if read.is_err() || magic != *DEVICE_MAGIC {
            continue;
        }
        if let Some(one) = found {
            return Err(CheckInitdataError::Ambiguous { one, other: path });
        }
        found = Some(path);
    }
    Ok(found)
}

/// Beside the directory first, so that it is there with all files or not at all.
fn write(directory: &Path, document: &Initdata) -> Result<(), CheckInitdataError> {
    let scratch = directory.with_extension("new");
    let at = |what: &'static str| move |path: &Path, error| failed(what, path, error);
    if scratch.exists() {
        fs::remove_dir_all(&scratch).map_err(|error| at("remove")(&scratch, error))?;
    }
    fs::create_dir_all(&scratch).map_err(|error| at("make")(&scratch, error))?;
    let permissions = Permissions::from_mode(0o755);
    fs::set_permissions(&scratch, permissions).map_err(|error| at("make")(&scratch, error))?;
    let configuration = CONFIGURATION
        .iter()
        .filter_map(|name| Some((*name, document.others().get(*name)?.as_bytes())));
    let files = [
        ("initdata.toml", document.bytes()),
        ("policy.rego", document.policy().as_bytes()),
    ];
    for (name, content) in files.into_iter().chain(configuration) {
        let path = scratch.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o444);
        options
            .open(&path)
            .and_then(|mut file| file.write_all(content))
            .map_err(|error| at("write")(&path, error))?;
    }
    fs::rename(&scratch, directory).map_err(|error| at("make")(directory, error))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> CheckInitdataError {
    CheckInitdataError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_disk_may_begin_so() {
        let directory = tempfile::tempdir().expect("directory");
        let [list, devices] = ["list", "devices"].map(|name| directory.path().join(name));
        for (name, content) in [
            ("vda", "ext4"),
            ("vdb", "initdata and more"),
            ("loop0", "initdata"),
            ("sda", "init"),
        ] {
            fs::create_dir_all(list.join(name)).expect("directory");
            fs::create_dir_all(&devices).expect("directory");
            fs::write(devices.join(name), content).expect("file");
        }
        let found = find_device(&list, &devices).expect("finds");
        assert_eq!(found, Some(devices.join("vdb")));
        fs::write(devices.join("sda"), "initdata").expect("file");
        let error = find_device(&list, &devices).expect_err("two");
        assert!(matches!(error, CheckInitdataError::Ambiguous { .. }));
        fs::write(devices.join("sda"), "").expect("file");
        fs::write(devices.join("vdb"), "").expect("file");
        assert_eq!(find_device(&list, &devices).expect("finds"), None);
    }
}
