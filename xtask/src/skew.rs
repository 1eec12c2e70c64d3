//! Two builds in one deployment: builds the programs of an earlier revision, then runs the stories in which they work with those of this one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{
    build_programs,
    process::{cargo, run},
    workspace_root,
};

/// The programs of a deployment. Nobody else speaks their protocols.
const PROGRAMS: [&str; 4] = ["coordinator", "initializer", "service-mesh", "contrast"];
/// Where the stories look for the earlier ones.
const VARIABLE: &str = "CONTRAST_EARLIER_PROGRAMS";
/// Made when all programs are there.
const COMPLETE: &str = "complete";

/// What the other build is.
#[derive(Args)]
pub(crate) struct Skew {
    /// The earlier revision. It must be in the history of this clone.
    // The version before the next release. Move it on when that is out: neighbours are what is supported.
    #[arg(long, default_value = "e558f38")]
    from: String,
    /// Only stories whose name contains it.
    filter: Option<String>,
}

impl Skew {
    /// Builds what is missing and runs the stories.
    pub(crate) fn run(&self) -> Result<()> {
        let root = workspace_root();
        let revision = resolve(&root, &self.from)?;
        let short = revision.get(..12).unwrap_or(&revision);
        let programs = root.join("target/skew").join(short);
        if !programs.join(COMPLETE).is_file() {
            build(&root, &revision, &programs)
                .with_context(|| format!("cannot build revision {short}"))?;
        }
        build_programs()?;
        let mut test = cargo(["test", "--workspace", "--test", "skew", "--"]);
        test.arg("--nocapture").args(&self.filter);
        test.env(VARIABLE, &programs);
        run(test)
    }
}

fn resolve(root: &Path, name: &str) -> Result<String> {
    let commit = format!("{name}^{{commit}}");
    let found = Command::new("git")
        .args(["rev-parse", "--verify", "--quiet", &commit])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    ensure!(
        found.status.success(),
        "this clone has no revision {name}; name another one with `--from`, or get the whole history with `git fetch --unshallow`"
    );
    Ok(String::from_utf8(found.stdout)?.trim().to_owned())
}

/// Builds in a directory of its own, so that no program of this build is ever replaced by an earlier one.
fn build(root: &Path, revision: &str, programs: &Path) -> Result<()> {
    let scratch = root.join("target/skew/build");
    let source = scratch.join("source");
    let target = scratch.join("target");
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir_all(&source)?;
    unpack(root, revision, &source)?;
    for part in ["build", "deps", ".fingerprint"] {
        let compiled = root.join("target/debug").join(part);
        if compiled.is_dir() {
            link(&compiled, &target.join("debug").join(part))?;
        }
    }
    // All members decide about features, so that what others published is compiled as here, that is, already.
    let mut build = cargo(["build", "--workspace"]);
    for program in PROGRAMS {
        build.args(["--bin", program]);
    }
    build
        .current_dir(&source)
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_INCREMENTAL", "0");
    run(build)?;
    if programs.exists() {
        fs::remove_dir_all(programs)?;
    }
    fs::create_dir_all(programs)?;
    for program in PROGRAMS {
        fs::copy(target.join("debug").join(program), programs.join(program))?;
    }
    fs::write(programs.join(COMPLETE), revision)?;
    Ok(fs::remove_dir_all(&scratch)?)
}

/// The files of a revision, without a worktree that git would have to forget later.
fn unpack(root: &Path, revision: &str, into: &Path) -> Result<()> {
    let mut archive = Command::new("git")
        .args(["archive", "--format=tar", revision])
        .current_dir(root)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run git")?;
    let files = archive.stdout.take().context("git prints nothing")?;
    let mut tar = Command::new("tar");
    tar.arg("-x").arg("-C").arg(into).stdin(files);
    run(tar)?;
    let ended = archive.wait()?;
    if !ended.success() {
        bail!("git archive ended with {ended}");
    }
    Ok(())
}

/// Links what this build compiled of others' crates, so that it is not compiled again. Cargo knows artifacts by what they were made from,
/// and takes those of our crates, which have other paths there, for nobody's.
fn link(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let path: PathBuf = to.join(&name);
        if name.to_string_lossy().contains("contrast") {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => link(&entry.path(), &path)?,
            false => fs::hard_link(entry.path(), &path)
                .or_else(|_| fs::copy(entry.path(), &path).map(drop))?,
        }
    }
    Ok(())
}
