//! Tests in virtual machines, and the kernel that they boot: Debian's for clouds, unpacked without being installed.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    build_programs,
    process::{cargo, run},
    workspace_root,
};

/// Depends on the package of the newest kernel.
const NEWEST: &str = "linux-image-cloud-amd64";
const UNPACKED: &str = "target/tools/kernel";

/// Builds the programs, fetches the kernel and runs the tests.
pub(crate) fn test(filter: Option<&str>, long: bool) -> Result<()> {
    let kernel = workspace_root().join(UNPACKED);
    if !kernel.is_dir() {
        fetch(&kernel).with_context(|| format!("cannot fetch Debian's package {NEWEST}"))?;
    }
    build_programs()?;
    let mut test = cargo(["test", "--workspace", "--test", "volume", "--"]);
    // Two machines at once are faster than one on two processors, more are slower.
    test.args(["--test-threads=2", "--nocapture"]).args(filter);
    test.env("CONTRAST_VM_TESTS", if long { "long" } else { "1" });
    run(test)
}

fn fetch(kernel: &Path) -> Result<()> {
    let listed = Command::new("apt-cache").args(["depends", NEWEST]).output();
    let listed = listed.context("cannot run apt-cache")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let package = listed
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .context("apt-cache knows no such package; `apt-get update` may help")?;
    let scratch = kernel.with_extension("download");
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir_all(&scratch)?;
    let mut download = Command::new("apt-get");
    download
        .args(["download", "--quiet", package])
        .current_dir(&scratch);
    download.stdout(Stdio::null());
    run(download)?;
    let archives = fs::read_dir(&scratch)?.flatten().map(|entry| entry.path());
    let mut archives = archives.filter(|path| path.extension().is_some_and(|end| end == "deb"));
    let archive = archives.next().context("apt-get downloaded nothing")?;
    let unpacked = scratch.join("kernel");
    let mut unpack = Command::new("dpkg");
    unpack.arg("-x").arg(&archive).arg(&unpacked);
    run(unpack)?;
    let mut versions = fs::read_dir(unpacked.join("lib/modules"))?.flatten();
    let version = versions
        .next()
        .context("the package has no modules")?
        .file_name();
    let mut index = Command::new("depmod");
    index.arg("-b").arg(&unpacked).arg(&version);
    run(index)?;
    fs::rename(&unpacked, kernel)?;
    fs::remove_dir_all(&scratch)?;
    ensure!(kernel.is_dir(), "{} is not there", kernel.display());
    Ok(())
}
