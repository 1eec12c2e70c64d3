use std::{
    env::{current_exe, var_os},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// The programs of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    directory: PathBuf,
}

impl Build {
    /// The programs that were built beside the running executable.
    ///
    /// # Errors
    /// When the running executable cannot be found.
    pub fn this() -> Result<Self> {
        let own = current_exe().context("cannot find the running executable")?;
        let directory = own
            .ancestors()
            .skip(1)
            .find(|directory| !directory.ends_with("deps"))
            .context("the running executable has no directory")?;
        let directory = directory.to_owned();
        Ok(Self { directory })
    }

    /// The programs of an earlier revision, in the directory that `CONTRAST_EARLIER_PROGRAMS` names. `cargo xtask skew` builds them.
    pub fn earlier() -> Option<Self> {
        let directory = var_os("CONTRAST_EARLIER_PROGRAMS").filter(|value| !value.is_empty())?;
        let directory = PathBuf::from(directory);
        Some(Self { directory })
    }

    /// Path of one of the programs, or of `examples/NAME`.
    ///
    /// # Errors
    /// When it was not built.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        ensure!(
            path.is_file(),
            "{} is not built; run `cargo build --workspace --bins --examples`, for an earlier build `cargo xtask skew`",
            path.display()
        );
        Ok(path)
    }
}

/// Path of one of the workspace's programs, or of `examples/NAME`, built beside the running executable.
///
/// # Errors
/// When it was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    Build::this()?.program(name)
}

/// Path of the Envoy executable, if there is one: `CONTRAST_ENVOY_BINARY`, else `target/tools/envoy`.
pub fn envoy() -> Option<PathBuf> {
    let configured = var_os("CONTRAST_ENVOY_BINARY").map(PathBuf::from);
    let fetched = workspace_root().join("target/tools/envoy");
    configured.or(Some(fetched)).filter(|path| path.is_file())
}

/// Root of the repository.
pub(crate) fn workspace_root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}
