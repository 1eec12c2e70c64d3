use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{
    image::{find, libraries},
    write_log::{SECTOR, WriteLog},
};

/// Size of a disk with programs.
const PROGRAMS_MIB: u64 = 256;

/// A disk of a machine: a sparse file, which the test changes as a host would.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    log: Option<PathBuf>,
}

impl Disk {
    /// A blank disk.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn blank(directory: &Path, name: &str, mebibytes: u64) -> Result<Self> {
        let path = directory.join(name);
        let file = File::create(&path)?;
        file.set_len(mebibytes * 1024 * 1024)?;
        Ok(Self { path, log: None })
    }

    /// A file system, ext4, with programs of this machine in `bin` and their libraries in `lib`, for what is not in the image.
    ///
    /// # Errors
    /// When there is no such program, or no `mkfs.ext4`.
    pub fn of_programs(directory: &Path, name: &str, programs: &[&str]) -> Result<Self> {
        let tree = directory.join(format!("{name}.tree"));
        for part in ["bin", "lib"] {
            fs::create_dir_all(tree.join(part))?;
        }
        for program in programs {
            let source = find(program).with_context(|| format!("there is no `{program}`"))?;
            fs::copy(&source, tree.join("bin").join(program))?;
            for library in libraries(&source)? {
                let name = library.file_name().context("name of a library")?;
                fs::copy(&library, tree.join("lib").join(name))?;
            }
        }
        let disk = Self::blank(directory, name, PROGRAMS_MIB)?;
        let status = std::process::Command::new("mkfs.ext4")
            .args(["-q", "-F", "-d"])
            .args([&tree, &disk.path])
            .status()?;
        anyhow::ensure!(status.success(), "cannot make {}", disk.path.display());
        Ok(disk)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A copy of what it holds now.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn copy(&self, name: &str) -> Result<Self> {
        let path = self.path.with_file_name(name);
        copy_sparse(&self.path, &path)?;
        Ok(Self { path, log: None })
    }

    /// Has everything logged that machines which boot from now on write to it; one machine for one log.
    ///
    /// # Errors
    /// When the log cannot be made.
    pub fn log_writes(&mut self) -> Result<WriteLog> {
        let path = self.path.with_extension("log");
        File::create(&path)?;
        self.log = Some(path.clone());
        Ok(WriteLog { path })
    }

    /// Block devices of QEMU, of which the last one is `name`.
    pub(super) fn block_devices(&self, name: &str) -> Vec<String> {
        let file = |name: &str, path: &Path| {
            format!("driver=file,node-name={name},filename={}", path.display())
        };
        match &self.log {
            None => vec![file(name, &self.path)],
            Some(log) => vec![
                file("logged", &self.path),
                file("log", log),
                format!(
                    "driver=blklogwrites,node-name={name},file=logged,log=log,log-sector-size={SECTOR}"
                ),
            ],
        }
    }

    /// Puts back what `other` holds.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn restore(&self, other: &Self) -> Result<()> {
        copy_sparse(&other.path, &self.path)
    }

    /// Makes it larger or smaller.
    ///
    /// # Errors
    /// When the file cannot be changed.
    pub fn resize(&self, mebibytes: u64) -> Result<()> {
        Ok(self.file()?.set_len(mebibytes * 1024 * 1024)?)
    }

    /// Some of its bytes.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.file()?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Replaces some of its bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.file()?.write_all_at(bytes, offset)?)
    }

    /// Turns over bits of one byte.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn flip(&self, offset: u64, bits: u8) -> Result<()> {
        let before = self.read(offset, 1)?;
        let after: Vec<u8> = before.iter().map(|byte| byte ^ bits).collect();
        self.write(offset, &after)
    }

    /// SHA-256 of everything on it, to see whether anything was written.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn digest(&self) -> Result<String> {
        let content = fs::read(&self.path)?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &content);
        Ok(hex::encode(digest))
    }

    fn file(&self) -> Result<File> {
        Ok(OpenOptions::new().read(true).write(true).open(&self.path)?)
    }
}

/// A new file, so that the old one's blocks do not stay where the source has holes.
fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let status = std::process::Command::new("cp")
        .args(["--sparse=always", "--"])
        .args([from, to])
        .status()?;
    anyhow::ensure!(status.success(), "cannot copy {}", from.display());
    Ok(())
}
