//! A registry on loopback and a client of it to compare with.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// Whether there is something to compare with.
pub(crate) fn is_installed() -> bool {
    let found = |program: &str| Command::new(program).arg("--version").output().is_ok();
    found("docker-registry") && found("skopeo")
}

/// Seconds.
pub(crate) fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    let middle = times.get(times.len() / 2).copied();
    middle.unwrap_or_default().as_secs_f64()
}

/// A program that ends with the benchmark.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn start_registry(directory: &Path) -> (Running, u16) {
    let free = TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = free.local_addr().expect("address").port();
    drop(free);
    let conf = directory.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
        directory.join("registry").display()
    );
    fs::write(&conf, text).expect("writes");
    let registry = Command::new("docker-registry")
        .arg("serve")
        .arg(&conf)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let registry = Running(registry);
    for _ in 0..100 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return (registry, port);
        }
        thread::sleep(Duration::from_millis(100));
    }
    (registry, port)
}

pub(crate) fn skopeo(arguments: &[&str]) {
    let status = Command::new("skopeo")
        .args(arguments)
        .stdout(Stdio::null())
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "skopeo {arguments:?}"
    );
}
