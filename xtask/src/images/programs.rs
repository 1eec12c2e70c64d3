//! Our own programs: static, and with nothing in them of the directory in which they were built.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{Profile, spec::Image};
use crate::process::run;

pub(super) const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds the programs of `images` in one go and returns the directory that they are in.
pub(super) fn build(
    root: &Path,
    target: &Path,
    images: &[Image],
    profile: Profile,
) -> Result<PathBuf> {
    let mut build = Command::new(env!("CARGO"));
    build
        .current_dir(root)
        .args(["build", "--locked", "--target", TARGET])
        .args(["--profile", profile.name()])
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_INCREMENTAL", "0");
    for image in images {
        build.args(["--package", &image.package, "--bin", &image.name]);
    }
    let places = [
        (cargo_home()?, "/cargo"),
        (root.to_owned(), "/contrast"),
        // Inside of the one before, and the last that fits counts.
        (target.to_owned(), "/target"),
    ];
    let flags: Vec<_> = places
        .iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect();
    let c_flags: Vec<_> = places
        .iter()
        .rev()
        .map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()))
        .collect();
    build
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env(
            format!("CFLAGS_{}", TARGET.replace('-', "_")),
            c_flags.join(" "),
        );
    run(build).with_context(|| {
        format!(
            "cannot build for {TARGET}; it needs `rustup target add {TARGET}` and Debian's musl-tools"
        )
    })?;
    Ok(target.join(TARGET).join(profile.directory()))
}

/// Refuses programs that are not static or that name a directory of this machine.
pub(super) fn check(program: &Path, places: &[&Path]) -> Result<()> {
    let bytes =
        fs::read(program).with_context(|| format!("{} was not built", program.display()))?;
    let read = Command::new("readelf")
        .args(["--wide", "--program-headers"])
        .arg(program)
        .output()
        .context("cannot start readelf, of Debian's binutils")?;
    let headers = String::from_utf8_lossy(&read.stdout).into_owned();
    ensure!(
        read.status.success() && headers.contains("LOAD"),
        "readelf does not read {}: {}",
        program.display(),
        String::from_utf8_lossy(&read.stderr)
    );
    ensure!(
        !headers.contains("INTERP"),
        "{} is linked dynamically; expected a static program",
        program.display()
    );
    let home = cargo_home()?;
    for place in places.iter().copied().chain([home.as_path()]) {
        let text = place.display().to_string();
        let found = bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes());
        ensure!(
            !found,
            "{} has `{text}` in it: its digest would depend on where it is built",
            program.display()
        );
    }
    Ok(())
}

fn cargo_home() -> Result<PathBuf> {
    let of_user = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(of_user)
        .context("neither CARGO_HOME nor HOME is set")
}
