//! The programs that do the work: `cryptsetup`, `dmsetup`, and those of the file systems.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::fs::{MemfdFlags, memfd_create};
use uuid::Uuid;

use crate::{
    Filesystem,
    keys::VOLUME_KEY_BYTES,
    layout::{HEADER_BYTES, KEYSLOTS_BYTES, METADATA_BYTES, SECTOR_BYTES},
    luks,
};

/// How often a mapping that is in use is tried to be removed.
const REMOVALS: u32 = 6;
/// How much of what a program says goes into an error, in bytes.
const SAID_MAX: usize = 600;
/// `cryptsetup(8)`, "RETURN CODES".
const CRYPTSETUP_NO_PERMISSION: i32 = 2;
const CRYPTSETUP_BUSY: i32 = 5;
/// `e2fsck(8)`, "EXIT CODE": bits above these mean that errors are left.
const E2FSCK_CORRECTED: i32 = 0b11;

/// A program did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// Not installed, or not to be run.
    #[error("cannot run `{program}`; is it in the image?")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("`{program}` failed ({status}): {said}")]
    Failed {
        /// The program and what it was to do.
        program: String,
        /// How it ended.
        status: String,
        /// What it said.
        said: String,
    },
    /// The keyslot does not open.
    #[error(
        "the key that the workload secret gives does not open the volume: its keyslot was changed"
    )]
    Key,
    /// Somebody uses the device.
    #[error("the device is in use: {said}")]
    Busy {
        /// What `cryptsetup` said.
        said: String,
    },
    /// The kernel does something else than was asked for.
    #[error("the kernel's table of the opened volume is `{found}`, expected {expected}")]
    Table {
        /// What stands in it.
        found: String,
        /// What should.
        expected: &'static str,
    },
    /// The header in memory.
    #[error("cannot keep the header in memory")]
    Memory(#[source] io::Error),
}

/// A LUKS2 header in memory, which no host changes between the check and the use.
#[derive(Debug)]
pub(crate) struct Header {
    file: File,
}

impl Header {
    pub(crate) fn blank() -> Result<Self, ToolError> {
        Self::of(&vec![0; HEADER_BYTES])
    }

    pub(crate) fn of(bytes: &[u8]) -> Result<Self, ToolError> {
        // Inherited by programs, which reach it as a file descriptor. It holds nothing secret.
        let file = memfd_create("luks-header", MemfdFlags::empty());
        let mut file = File::from(file.map_err(|error| ToolError::Memory(error.into()))?);
        file.write_all(bytes).map_err(ToolError::Memory)?;
        Ok(Self { file })
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, ToolError> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        self.file.rewind().map_err(ToolError::Memory)?;
        let mut limited = (&self.file).take(HEADER_BYTES as u64);
        limited.read_to_end(&mut bytes).map_err(ToolError::Memory)?;
        bytes.resize(HEADER_BYTES, 0);
        Ok(bytes)
    }

    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

/// Whether every sector is written twice, so that data and tag belong together whenever the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Journal {
    On,
    /// For what is written again after a crash anyway.
    Off,
}

/// Makes a LUKS2 header in memory, and the superblock of dm-integrity on the device.
pub(crate) fn luks_format(
    device: &Path,
    header: &Header,
    uuid: Uuid,
    key: &[u8; VOLUME_KEY_BYTES],
) -> Result<(), ToolError> {
    let mut command = Command::new("cryptsetup");
    command
        .args(["luksFormat", "--batch-mode", "--disable-locks"])
        .args(["--type", "luks2", "--use-random"])
        .args(["--cipher", luks::CIPHER])
        .arg(format!("--key-size={}", luks::CIPHER_KEY_BITS))
        .args(["--integrity", luks::INTEGRITY, "--integrity-no-wipe"])
        .arg(format!("--sector-size={SECTOR_BYTES}"))
        .args(["--pbkdf", "pbkdf2", "--hash", "sha256"])
        .arg(format!("--pbkdf-force-iterations={}", luks::ITERATIONS))
        .arg(format!("--luks2-metadata-size={METADATA_BYTES}"))
        .arg(format!("--luks2-keyslots-size={KEYSLOTS_BYTES}"))
        .arg(format!("--offset={}", HEADER_BYTES / 512))
        .arg(format!("--uuid={}", uuid.hyphenated()))
        .arg(format!("--header={}", header.path()))
        .arg(format!("--keyfile-size={VOLUME_KEY_BYTES}"))
        .arg("--key-file=-")
        .arg(device);
    cryptsetup(command, Some(key))
}

/// Opens the device by the header in memory, and looks at what the kernel made of it.
pub(crate) fn luks_open(
    device: &Path,
    header: &Header,
    name: &str,
    key: &[u8; VOLUME_KEY_BYTES],
    journal: Journal,
) -> Result<PathBuf, ToolError> {
    let mut command = Command::new("cryptsetup");
    command
        .args(["open", "--batch-mode", "--disable-locks"])
        .args(["--type", "luks2"])
        .arg(format!("--header={}", header.path()))
        .arg(format!("--keyfile-size={VOLUME_KEY_BYTES}"))
        .arg("--key-file=-");
    if journal == Journal::Off {
        command.arg("--integrity-no-journal");
    }
    command.arg(device).arg(name);
    cryptsetup(command, Some(key))?;
    if let Err(error) = check_table(name, journal) {
        // Nothing was written through it yet; that it stays open would be worse than a second error.
        let _ = luks_close(name);
        return Err(error);
    }
    Ok(mapped(name))
}

pub(crate) fn luks_close(name: &str) -> Result<(), ToolError> {
    let mut command = Command::new("cryptsetup");
    command.args(["close", "--batch-mode", "--disable-locks", name]);
    cryptsetup(command, None)
}

/// Where the kernel offers the decrypted device.
pub(crate) fn mapped(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}

/// Removes a mapping that nobody uses, or will not use any more in half a minute: what an earlier container started, such as a program
/// that formats, may outlive it.
pub(crate) fn remove_mapping(name: &str) -> Result<(), ToolError> {
    // Each time `dmsetup` itself tries for five seconds.
    for _ in 1..REMOVALS {
        match succeed("dmsetup", ["remove", "--retry"], name) {
            Err(ToolError::Failed { said, .. }) if said.contains("busy") => {
                tracing::info!(name, "still in use; trying again to remove it");
            }
            outcome => return outcome,
        }
    }
    succeed("dmsetup", ["remove", "--retry"], name)
}

/// What the kernel encrypts with, whatever header and program said: `dm-crypt` and `dm-integrity`, kernel's
/// `Documentation/admin-guide/device-mapper`.
fn check_table(name: &str, journal: Journal) -> Result<(), ToolError> {
    // Of all devices at once: to start a program takes longer than anything else here.
    let mut command = Command::new("dmsetup");
    command.arg("table");
    let output = run(command, None)?;
    if !output.status.success() {
        return Err(failed("dmsetup table", &output));
    }
    let tables = String::from_utf8_lossy(&output.stdout).into_owned();
    let table = |name: &str| {
        let mut lines = tables.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(found, _)| *found == name);
        found.map(|(_, table)| table.trim()).unwrap_or_default()
    };
    let demand = |table: &str, expected: &'static str, holds: bool| match holds {
        true => Ok(()),
        false => Err(ToolError::Table {
            found: table.to_owned(),
            expected,
        }),
    };
    let crypt = table(name);
    let fields: Vec<&str> = crypt.split_ascii_whitespace().collect();
    let expected = "`crypt` with `capi:authenc(hmac(sha256),xts(aes))-plain64`, `integrity:32:aead` and `sector_size:4096`";
    let holds = fields.get(2) == Some(&"crypt")
        && fields.get(3) == Some(&"capi:authenc(hmac(sha256),xts(aes))-plain64")
        && fields.contains(&"integrity:32:aead")
        && fields.contains(&"sector_size:4096");
    demand(crypt, expected, holds)?;
    let integrity = table(&format!("{name}_dif"));
    let fields: Vec<&str> = integrity.split_ascii_whitespace().collect();
    let (mode, expected) = match journal {
        Journal::On => ("J", "`integrity` with tags of 32 bytes and mode `J`"),
        Journal::Off => ("D", "`integrity` with tags of 32 bytes and mode `D`"),
    };
    let holds = fields.get(2) == Some(&"integrity")
        && fields.get(5) == Some(&"32")
        && fields.get(6) == Some(&mode);
    demand(integrity, expected, holds)
}

fn cryptsetup(command: Command, key: Option<&[u8]>) -> Result<(), ToolError> {
    let what = format!("cryptsetup {}", first_argument(&command));
    let output = run(command, key)?;
    match output.status.code() {
        Some(0) => Ok(()),
        Some(CRYPTSETUP_NO_PERMISSION) => Err(ToolError::Key),
        Some(CRYPTSETUP_BUSY) => Err(ToolError::Busy {
            said: said(&output),
        }),
        _ => Err(failed(&what, &output)),
    }
}

/// Makes a file system on a device whose every sector can be read.
pub(crate) fn make_filesystem(device: &Path, filesystem: Filesystem) -> Result<(), ToolError> {
    match filesystem {
        Filesystem::Ext4 => succeed(
            "mkfs.ext4",
            // The host would see discarded sectors, and reading them fails.
            [
                "-q",
                "-F",
                "-b",
                "4096",
                "-e",
                "remount-ro",
                "-E",
                "nodiscard",
            ],
            device,
        ),
        Filesystem::Xfs => succeed("mkfs.xfs", ["-q", "-f", "-K"], device),
    }
}

/// As [`make_filesystem`], for a device most of which cannot be read, and which nobody checks or grows: what ext4 reads, it wrote before.
pub(crate) fn make_ephemeral_filesystem(device: &Path) -> Result<(), ToolError> {
    let extended = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
    let options = [
        "-q",
        "-F",
        "-b",
        "4096",
        "-O",
        "^has_journal",
        "-E",
        extended,
    ];
    succeed("mkfs.ext4", options, device)
}

/// Repairs what can be repaired without losing anything. XFS does that itself when it is mounted.
pub(crate) fn check_filesystem(device: &Path, filesystem: Filesystem) -> Result<(), ToolError> {
    if filesystem == Filesystem::Xfs {
        return Ok(());
    }
    let mut command = Command::new("e2fsck");
    command.arg("-p").arg(device);
    let output = run(command, None)?;
    match output.status.code() {
        Some(code) if code & !E2FSCK_CORRECTED == 0 => Ok(()),
        _ => Err(failed("e2fsck", &output)),
    }
}

/// Lets a mounted file system have the whole device.
pub(crate) fn grow_filesystem(
    device: &Path,
    mount_point: &Path,
    filesystem: Filesystem,
) -> Result<(), ToolError> {
    match filesystem {
        Filesystem::Ext4 => succeed("resize2fs", [], device),
        Filesystem::Xfs => succeed("xfs_growfs", ["-d"], mount_point),
    }
}

/// What `blkid` takes the content of a device for; nothing when it does not know.
pub(crate) fn recognise(device: &Path) -> Option<String> {
    let mut command = Command::new("blkid");
    command.args(["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "value"]);
    command.arg(device);
    let output = run(command, None).ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let name = text.split_ascii_whitespace().next()?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    Some(
        name.chars()
            .filter(|letter| plain(*letter))
            .take(32)
            .collect(),
    )
}

/// Attaches a file to a loop device, past the page cache of the file system below.
pub(crate) fn attach_loop(file: &Path) -> Result<PathBuf, ToolError> {
    let mut command = Command::new("losetup");
    command.args(["--find", "--show", "--nooverlap", "--direct-io=on"]);
    command.arg(file);
    let output = run(command, None)?;
    let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.success() && device.starts_with("/dev/loop") {
        true => Ok(PathBuf::from(device)),
        false => Err(failed("losetup", &output)),
    }
}

/// Has the kernel make a loop device if none is free.
pub(crate) fn ensure_free_loop() -> Result<(), ToolError> {
    let mut command = Command::new("losetup");
    command.arg("--find");
    let output = run(command, None)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed("losetup", &output)),
    }
}

/// Inode and device number of the file behind a loop device.
pub(crate) fn file_of_loop(device: &Path) -> Result<(u64, u64), ToolError> {
    let mut command = Command::new("losetup");
    command.args(["--noheadings", "--output", "BACK-INO,BACK-MAJ:MIN"]);
    command.arg(device);
    let output = run(command, None)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = || {
        let (inode, device) = text.trim().split_once(char::is_whitespace)?;
        let (major, minor) = device.trim().split_once(':')?;
        let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
        Some((inode.parse().ok()?, device))
    };
    numbers().ok_or_else(|| failed("losetup", &output))
}

/// Gives a loop device the size that its file has now.
pub(crate) fn resize_loop(device: &Path) -> Result<(), ToolError> {
    succeed("losetup", ["--set-capacity"], device)
}

pub(crate) fn detach_loop(device: &Path) -> Result<(), ToolError> {
    succeed("losetup", ["--detach"], device)
}

fn succeed<const N: usize>(
    program: &str,
    arguments: [&str; N],
    last: impl AsRef<OsStr>,
) -> Result<(), ToolError> {
    let mut command = Command::new(program);
    command.args(arguments).arg(last);
    let output = run(command, None)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(program, &output)),
    }
}

fn run(mut command: Command, input: Option<&[u8]>) -> Result<Output, ToolError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| ToolError::Run {
        program: program.clone(),
        source,
    };
    // Nobody makes device nodes for device mapper in a container; libdevmapper does it itself then.
    command.env("DM_DISABLE_UDEV", "1").env("LC_ALL", "C");
    command.stdin(match input {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ended before it read says why itself.
        let _ = stdin.write_all(input);
    }
    child.wait_with_output().map_err(failed)
}

fn first_argument(command: &Command) -> String {
    let first = command.get_args().next().map(OsString::from);
    first.unwrap_or_default().to_string_lossy().into_owned()
}

fn failed(program: &str, output: &Output) -> ToolError {
    ToolError::Failed {
        program: program.to_owned(),
        status: output.status.to_string(),
        said: said(output),
    }
}

/// The end of what it said, which has the reason.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let text = text.trim();
    let text = match text.is_empty() {
        true => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        false => text.to_owned(),
    };
    let start = text.len().saturating_sub(SAID_MAX);
    let start = (start..=text.len()).find(|start| text.is_char_boundary(*start));
    text.get(start.unwrap_or_default()..)
        .unwrap_or_default()
        .replace('\n', "; ")
}
