//! Runs the real binary in a directory of its own and shows what came out.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

/// A workspace for one test.
pub(crate) struct Context {
    dir: tempfile::TempDir,
}

impl Context {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("directory"),
        }
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        fs::write(&path, contents).expect("write");
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `contrast` in the directory; no registry is asked.
    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        let command = command.env("CONTRAST_OFFLINE", "1");
        command.output().expect("contrast starts")
    }

    /// Runs `contrast` in the directory; registries are asked.
    pub(crate) fn online(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.output().expect("contrast starts")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_contrast"));
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env_clear()
            .env("NO_COLOR", "1")
            .env("HOME", self.dir.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Runs `contrast` and shows exit code and both streams, in the form that snapshots have.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.run_with(&[], arguments)
    }

    /// As [`Self::run`], with environment variables.
    pub(crate) fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> String {
        let mut command = self.command(arguments);
        command.env("CONTRAST_OFFLINE", "1");
        command.envs(variables.iter().copied());
        let output = command.output().expect("contrast starts");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let shown = format!(
            "$ contrast {}\nexit code: {}\n----- stdout -----\n{}----- stderr -----\n{}",
            arguments.join(" "),
            output.status.code().expect("no signal"),
            text(&output.stdout),
            text(&output.stderr),
        );
        let dir = self.dir.path().display().to_string();
        shown
            .replace(&dir, "[DIR]")
            .replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
    }
}
