//! First process of the virtual machine of the tests: loads what the kernel needs, and runs what the test outside asks for.
//!
//! One request is one line, a JSON array of program and arguments; one answer is one line, a JSON object with `status`, `stdout`, `stderr`.

use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
};
use serde_json::json;

/// Kernel modules, in an order in which each finds those that it needs; a file of the image names them.
const MODULES: &str = "/etc/modules";
const PORT: &str = "org.contrast.agent";
const PORTS: &str = "/sys/class/virtio-ports";
const POLL: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the console is where the test outside finds it"
)]
fn complain(error: &io::Error) {
    eprintln!("vm-agent: {error}");
}

fn serve() -> io::Result<()> {
    for (source, target) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("tmpfs", "/tmp"),
    ] {
        fs::create_dir_all(target)?;
        let nothing = None::<&str>;
        mount(
            Some(source),
            target,
            Some(source),
            MsFlags::empty(),
            nothing,
        )?;
    }
    for module in fs::read_to_string(MODULES)?.lines() {
        let image = fs::File::open(module)?;
        let flags = nix::kmod::ModuleInitFlags::empty();
        match nix::kmod::finit_module(image, &CString::default(), flags) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(io::Error::other(format!("{module}: {error}"))),
        }
    }
    let port = OpenOptions::new().read(true).write(true).open(port())?;
    let mut answers = port.try_clone()?;
    for request in BufReader::new(port).lines() {
        reap_orphans();
        let answer = answer(&request?);
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}

/// The first process is the parent of those whose own has ended. No command runs now.
fn reap_orphans() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

fn port() -> PathBuf {
    loop {
        for entry in fs::read_dir(PORTS).into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name"));
            if name.is_ok_and(|name| name.trim() == PORT) {
                return PathBuf::from("/dev").join(entry.file_name());
            }
        }
        thread::sleep(POLL);
    }
}

fn answer(request: &str) -> serde_json::Value {
    let words: Vec<String> = match serde_json::from_str(request) {
        Ok(words) => words,
        Err(error) => return json!({"status": 255, "stdout": "", "stderr": error.to_string()}),
    };
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).stdin(Stdio::null());
    command.env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin");
    match command.output() {
        Ok(output) => json!({
            "status": output.status.code().unwrap_or(255),
            "stdout": String::from_utf8_lossy(&output.stdout),
            "stderr": String::from_utf8_lossy(&output.stderr),
        }),
        Err(error) => json!({"status": 255, "stdout": "", "stderr": error.to_string()}),
    }
}
