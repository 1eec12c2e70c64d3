//! Programs that change the kernel's tables, each with a deadline.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{MemfdFlags, memfd_create};

/// How long one program may take. They take milliseconds; iptables waits for the lock of another one.
const DEADLINE: Duration = Duration::from_secs(15);
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// How much of what a program says goes into an error, in bytes.
const SAID_MAX: usize = 600;

/// A program did not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The program is not installed.
    #[error("`{program}` is not in PATH")]
    Missing {
        /// The program.
        program: &'static str,
    },
    /// The program cannot be run.
    #[error("cannot run `{program}`")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel, or the program itself, refuses.
    #[error("`{command}` failed: {said}{}", hint(said))]
    Refused {
        /// The program with its arguments.
        command: String,
        /// What it said.
        said: String,
    },
    /// The program did not end.
    #[error("`{command}` did not end within {} s and was killed", DEADLINE.as_secs())]
    Deadline {
        /// The program with its arguments.
        command: String,
    },
}

impl ToolError {
    /// Whether the kernel refused this process, which then knows nothing of the rules.
    pub(crate) fn is_not_permitted(&self) -> bool {
        matches!(self, Self::Refused { said, .. } if is_not_permitted(said))
    }
}

/// What to do about what the kernel said.
fn hint(said: &str) -> &'static str {
    if is_not_permitted(said) {
        " (the process needs CAP_NET_ADMIN in the pod's network namespace)"
    } else {
        ""
    }
}

fn is_not_permitted(said: &str) -> bool {
    let said = said.to_lowercase();
    ["not permitted", "permission denied", "you must be root"]
        .iter()
        .any(|text| said.contains(text))
}

/// Runs `program` with `input` on its standard input and returns what it printed.
pub(crate) fn run(
    program: &'static str,
    arguments: &[&str],
    input: &str,
) -> Result<String, ToolError> {
    let cannot = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ToolError::Missing { program },
        _ => ToolError::Run { program, source },
    };
    // Files in memory instead of pipes: neither side ever waits for the other.
    let file = || memory_file().map_err(|source| ToolError::Run { program, source });
    let (mut standard_input, mut output, mut errors) = (file()?, file()?, file()?);
    let handle = |file: &File| file.try_clone().map(Stdio::from);
    let prepare = || {
        standard_input.write_all(input.as_bytes())?;
        standard_input.rewind()?;
        Ok((handle(&standard_input)?, handle(&output)?, handle(&errors)?))
    };
    let (stdin, stdout, stderr) =
        { prepare }().map_err(|source| ToolError::Run { program, source })?;
    let mut child = Command::new(program)
        .args(arguments)
        // Messages are searched for words, and go into errors.
        .env("LC_ALL", "C")
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(cannot)?;
    let command = || [&[program], arguments].concat().join(" ");
    let end = Instant::now() + DEADLINE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end => thread::sleep(POLL_INTERVAL),
            Ok(None) => {
                // Both fail only for a child that has ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return Err(ToolError::Deadline { command: command() });
            }
            Err(source) => return Err(ToolError::Run { program, source }),
        }
    };
    let read = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (printed, complaints) = read(&mut output)
        .and_then(|printed| Ok((printed, read(&mut errors)?)))
        .map_err(|source| ToolError::Run { program, source })?;
    if status.success() {
        return Ok(printed);
    }
    let mut said = format!("{status}: {}", complaints.trim());
    let cut = said.floor_char_boundary(SAID_MAX);
    said.truncate(cut);
    Err(ToolError::Refused {
        command: command(),
        said,
    })
}

fn memory_file() -> io::Result<File> {
    Ok(File::from(memfd_create(
        "contrast-firewall",
        MemfdFlags::CLOEXEC,
    )?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_gets_its_input_and_gives_its_output() {
        let text = "x".repeat(1 << 20);
        assert_eq!(run("cat", &[], &text).expect("cat"), text);
    }

    #[test]
    fn failures_say_what_was_run_and_what_it_said() {
        let error = run("contrast-no-such-program", &[], "").expect_err("missing");
        assert_eq!(
            error.to_string(),
            "`contrast-no-such-program` is not in PATH"
        );
        let script = "echo Operation not permitted >&2; exit 3";
        let error = run("sh", &["-c", script], "").expect_err("refused");
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("CAP_NET_ADMIN"),
            "{text}"
        );
    }
}
