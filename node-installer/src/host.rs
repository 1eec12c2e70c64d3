//! Programs of the host: run in its mount namespace, with bounds.

use std::{
    fs, io,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where programs of hosts are, NixOS included.
const PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin";
const POLL: Duration = Duration::from_millis(20);
/// Exit code of [`enter_and_exec`] when the program was not started.
pub const NOT_STARTED: u8 = 126;

/// What a program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it succeeded.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// The last line that it said, of either stream.
    pub(crate) fn last_words(&self) -> String {
        let all = [&self.stdout, &self.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let mut lines = all.iter().rev().flat_map(|text| text.lines().rev());
        let line = lines.find(|line| !line.trim().is_empty());
        line.map_or_else(|| "it said nothing".into(), |line| line.trim().into())
    }
}

/// A program of the host could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// It did not start.
    #[error("cannot run `{program}` on the host")]
    Start {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("`{program}` on the host took more than {seconds} s and was ended; look at its log on the node", seconds = limit.as_secs())]
    TooLong {
        /// Which.
        program: String,
        /// What it may take.
        limit: Duration,
    },
    /// The namespaces of the host are out of reach.
    #[error(
        "cannot enter the host; the pod needs `hostPID: true` and a container with `privileged: true`"
    )]
    Enter(#[source] io::Error),
}

/// The host as something that runs programs.
pub trait Host: Send {
    /// Runs a program of the host to its end.
    ///
    /// # Errors
    /// When it does not start, or takes more than `limit`.
    fn run(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<Output, HostError>;

    /// Waits.
    fn pause(&self, duration: Duration);
}

/// The host whose process 1 this process sees.
#[derive(Debug, Clone, Copy)]
pub struct ThisHost {
    enter: bool,
}

impl ThisHost {
    /// The host whose root is at `root`: with `/` this process is on it, otherwise in a pod.
    pub fn new(root: &Path) -> Self {
        Self {
            enter: root != Path::new("/"),
        }
    }
}

impl Host for ThisHost {
    fn run(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<Output, HostError> {
        let mut command = if self.enter {
            if same_mounts().map_err(HostError::Enter)? {
                return Err(HostError::Enter(io::Error::other(
                    "process 1 is not the host's",
                )));
            }
            let mut command = Command::new("/proc/self/exe");
            command.args(["host-exec", "--", program]);
            command
        } else {
            Command::new(program)
        };
        command.args(arguments).env_clear().env("PATH", PATH);
        let output = run_bounded(program, &mut command, limit)?;
        if self.enter && output.code == Some(i32::from(NOT_STARTED)) {
            return Err(HostError::Start {
                program: program.to_owned(),
                source: io::Error::other(output.last_words()),
            });
        }
        Ok(output)
    }

    fn pause(&self, duration: Duration) {
        thread::sleep(duration);
    }
}

fn same_mounts() -> io::Result<bool> {
    Ok(fs::read_link("/proc/1/ns/mnt")? == fs::read_link("/proc/self/ns/mnt")?)
}

/// Runs `command` to its end and keeps what it says.
pub(crate) fn run_bounded(
    program: &str,
    command: &mut Command,
    limit: Duration,
) -> Result<Output, HostError> {
    let failed = |source| HostError::Start {
        program: program.to_owned(),
        source,
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let drained = [
        child.stdout.take().map(|stream| drain(Box::new(stream))),
        child.stderr.take().map(|stream| drain(Box::new(stream))),
    ];
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if start.elapsed() >= limit {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            return Err(HostError::TooLong {
                program: program.to_owned(),
                limit,
            });
        }
        thread::sleep(POLL);
    };
    let [stdout, stderr] = drained.map(|stream| {
        let read = stream.and_then(|stream| stream.join().ok());
        read.unwrap_or_default()
    });
    Ok(Output {
        code: status.code(),
        stdout,
        stderr,
    })
}

/// Both streams are read at once, or a program that fills one of them would wait forever.
fn drain(mut stream: Box<dyn io::Read + Send>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// Enters the mount namespace of process `pid` and becomes `program` there. Returns only if that fails.
///
/// The process must have one thread: the kernel refuses others a new mount namespace.
pub fn enter_and_exec(pid: u32, program: &str, arguments: &[String]) -> HostError {
    let enter = || {
        let namespace = fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        std::env::set_current_dir("/")
    };
    if let Err(source) = enter() {
        return HostError::Enter(source);
    }
    HostError::Start {
        program: program.to_owned(),
        source: Command::new(program).args(arguments).exec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<Output, HostError> {
        run_bounded("sh", Command::new("sh").args(["-c", script]), limit)
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let start = Instant::now();
        let error = sh("exec sleep 60", Duration::from_millis(100)).expect_err("too long");
        assert!(matches!(error, HostError::TooLong { .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    /// More than a pipe holds, on both streams at once.
    #[test]
    fn everything_that_is_said_is_kept() {
        let script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; echo >&2; echo last >&2; exit 3";
        let output = sh(script, Duration::from_secs(60)).expect("runs");
        assert_eq!((output.stdout.len(), output.code), (300_000, Some(3)));
        assert_eq!(output.last_words(), "last");
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let mut command = Command::new("/nowhere/program");
        let error = run_bounded("program", &mut command, Duration::from_secs(1));
        assert!(
            error
                .expect_err("no program")
                .to_string()
                .contains("`program`")
        );
    }
}
