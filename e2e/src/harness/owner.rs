use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{program, programs::workspace_root};

/// An owner's laptop: a workspace directory in which the real `contrast` runs.
#[derive(Debug)]
pub struct Owner {
    workspace: PathBuf,
}

/// What one run of `contrast` printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Owner {
    /// A workspace in `workspace` that holds copies of the sample application's YAML.
    ///
    /// # Errors
    /// When files cannot be copied.
    pub fn with_sample_application(workspace: &Path) -> Result<Self> {
        let resources = workspace.join("resources");
        fs::create_dir_all(&resources)?;
        for entry in fs::read_dir(workspace_root().join("deploy/examples/votes"))? {
            let source = entry?.path();
            let name = source.file_name().context("file name")?;
            fs::copy(&source, resources.join(name))?;
        }
        Ok(Self {
            workspace: workspace.to_owned(),
        })
    }

    /// The workspace directory.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Path of a file in the workspace.
    pub fn file(&self, name: &str) -> PathBuf {
        self.workspace.join(name)
    }

    /// Text of a file in the workspace.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Runs `contrast` with `arguments` in the workspace, whatever the outcome.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_contrast(&self, arguments: &[&str]) -> Result<Output> {
        let output = Command::new(program("contrast")?)
            .args(arguments)
            .current_dir(&self.workspace)
            .output()
            .context("cannot start contrast")?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs `contrast` and expects success.
    ///
    /// # Errors
    /// When it fails; the error shows what it printed.
    pub fn contrast(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.try_contrast(arguments)?;
        ensure!(
            output.code == 0,
            "contrast {} ended with {}\n{}{}",
            arguments.join(" "),
            output.code,
            output.stdout,
            output.stderr
        );
        Ok(output)
    }
}
