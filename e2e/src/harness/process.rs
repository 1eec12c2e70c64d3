use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const POLL: Duration = Duration::from_millis(10);

/// A running program whose output goes to a log file; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `<logs>/<name>.log`.
    ///
    /// # Errors
    /// When the log cannot be made or the program cannot be started.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything the program printed so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `condition` holds.
    ///
    /// # Errors
    /// When the program ends first or `deadline` passes; the error shows the end of its output.
    pub fn wait_until(
        &mut self,
        what: &str,
        deadline: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !condition(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended with {status} before {what}\n{}",
                    self.name,
                    self.tail()
                );
            }
            if start.elapsed() > deadline {
                bail!(
                    "{}: still waiting for {what} after {deadline:?}\n{}",
                    self.name,
                    self.tail()
                );
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// When `deadline` passes.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > deadline {
                bail!(
                    "{} still runs after {deadline:?}\n{}",
                    self.name,
                    self.tail()
                );
            }
            sleep(POLL);
        }
    }

    /// Whether the program has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends `signal`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Ends the process at once, as a crash or the host would.
    ///
    /// # Errors
    /// When the process cannot be reaped.
    pub fn kill(&mut self) -> Result<()> {
        // Fails only when the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        self.child
            .wait()
            .with_context(|| format!("cannot reap {}", self.name))?;
        Ok(())
    }

    fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        let start = lines.len().saturating_sub(15);
        lines.get(start..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let running = matches!(self.child.try_wait(), Ok(None));
        if running {
            // The service mesh has a child of its own, which only a signal that it can catch reaches.
            let _ = self.signal(Signal::SIGTERM);
            let _ = self.wait(Duration::from_secs(3));
        }
        let _ = self.kill();
    }
}
