//! What the tests with a real Envoy share: certificates as the Coordinator issues them, sidecars as
//! processes, and an application that echoes.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

pub(crate) mod certificates;

pub(crate) use contrast_testbed::envoy;

/// Longer than a TLS record header, or a TLS server would wait for more before it refuses.
const PING: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "{what}: not after {} s",
            PATIENCE.as_secs()
        );
        thread::sleep(Duration::from_millis(50));
    }
}

/// A port that is free on `ip` now.
pub(crate) fn free_port(ip: Ipv4Addr) -> u16 {
    TcpListener::bind((ip, 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}

/// A sidecar as a process, with a directory of its own.
pub(crate) struct Sidecar {
    directory: TempDir,
    child: Child,
}

impl Sidecar {
    /// Starts the sidecar with `environment`; its base directory is filled by `install` first.
    pub(crate) fn start(
        envoy: &Path,
        environment: &[(&str, String)],
        install: impl FnOnce(&Path),
    ) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        for name in ["base", "base/tls-config", "run"] {
            fs::create_dir(path(name)).expect("directory");
        }
        install(&path("base/tls-config"));
        let log = fs::File::create(path("log")).expect("log");
        let output = fs::File::create(path("output")).expect("output");
        let child = Command::new(env!("CARGO_BIN_EXE_service-mesh"))
            .env_clear()
            .env("CONTRAST_INGRESS_MODE", "explicit")
            .env("CONTRAST_ENVOY_BINARY", envoy)
            .env("CONTRAST_ENVOY_CONCURRENCY", "1")
            .env("CONTRAST_BASE_DIR", path("base"))
            .env("CONTRAST_RUNTIME_DIR", path("run"))
            .env("CONTRAST_READY_FILE", path("ready"))
            .envs(
                environment
                    .iter()
                    .map(|(name, value)| (*name, value.as_str())),
            )
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .spawn()
            .expect("the sidecar starts");
        Self { directory, child }
    }

    /// Like [`Sidecar::start`], and waits until it is ready.
    pub(crate) fn ready(
        envoy: &Path,
        environment: &[(&str, String)],
        install: impl FnOnce(&Path),
    ) -> Self {
        let mut sidecar = Self::start(envoy, environment, install);
        sidecar.wait_until_ready();
        sidecar
    }

    pub(crate) fn wait_until_ready(&mut self) {
        eventually("the sidecar is ready", || {
            let ended = self.child.try_wait().expect("the sidecar's state");
            assert!(
                ended.is_none(),
                "the sidecar ended with {ended:?}:\n{}",
                self.log()
            );
            self.is_ready()
        });
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.directory.path().join("ready").exists()
    }

    pub(crate) fn tls_config(&self) -> PathBuf {
        self.directory.path().join("base/tls-config")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("log")
    }

    /// Standard output: lines of the connection log.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).expect("output")
    }

    /// Names in the directory that holds the private runtime directory.
    pub(crate) fn runtime_directories(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path().join("run")).expect("directory");
        entries.map(|entry| entry.expect("entry").path()).collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(self.child.id().try_into().expect("pid")),
            signal,
        )
        .expect("signal");
    }

    /// Sends a signal to the Envoy that the log says was started.
    pub(crate) fn signal_envoy(&self, signal: Signal) {
        let log = self.log();
        let (_, rest) = log
            .split_once("Envoy started pid=")
            .expect("the log tells Envoy's pid");
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        kill(Pid::from_raw(digits.parse().expect("pid")), signal).expect("signal");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the sidecar ends", || {
            status = self.child.try_wait().expect("the sidecar's state");
            status.is_some()
        });
        status.expect("it ended")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::SIGINT);
            thread::sleep(Duration::from_millis(100));
            let _ = kill(
                Pid::from_raw(self.child.id().try_into().expect("pid")),
                Signal::SIGINT,
            );
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("log of a sidecar:\n{}", self.log());
        }
    }
}

/// An application that echoes, on a loopback port; it serves until the test ends.
pub(crate) fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("address").port();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = connection.try_clone().expect("connection");
                let mut writer = connection;
                io::copy(&mut reader, &mut writer)
            });
        }
    });
    port
}

/// Connects with deadlines, so that a test never hangs.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// Sends `text` on an open connection and reads it back.
pub(crate) fn echo_on(stream: &mut TcpStream, text: &str) -> io::Result<String> {
    stream.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether a new connection to `address` echoes. Refusal must be a closed connection, not silence.
pub(crate) fn echoes(address: SocketAddr) -> bool {
    match connect(address).and_then(|mut stream| echo_on(&mut stream, PING)) {
        Ok(answer) => {
            assert_eq!(answer, PING);
            true
        }
        Err(error) => {
            let silent = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
            assert!(
                !silent.contains(&error.kind()),
                "no answer instead of a refusal: {error}"
            );
            false
        }
    }
}

/// Sum of Envoy's counters and gauges whose names end in `suffix`.
pub(crate) fn statistic(admin: SocketAddr, suffix: &str) -> u64 {
    let mut stream = connect(admin).expect("admin interface");
    stream
        .write_all(b"GET /stats HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n")
        .expect("request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answer");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    text.lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| name.ends_with(suffix))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}
