//! The real containerd takes what is installed, and serves Kubernetes with it.
//!
//! Debian has containerd 1 (configuration version 2). Skipped, with a message, where there is no `containerd`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says when it skips"
)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::sleep,
    time::{Duration, Instant},
};

use common::{FakeNode, HANDLER};
use contrast_node_installer::{
    apply, chain,
    host::{Host, HostError, Output},
    node::Node,
    tree::{HostTree, LogSteps},
    uninstall,
};
use serde_json::json;

const CONFIG: &str = "etc/containerd/config.toml";
const LIMIT: Duration = Duration::from_secs(60);

fn binary() -> Option<PathBuf> {
    let found = ["/usr/bin/containerd", "/usr/local/bin/containerd"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    if found.is_none() {
        println!("skipped: no `containerd`; install the Debian package containerd");
    }
    found
}

/// systemd's part: containerd as a process of the test, with directories of its own.
#[derive(Default)]
struct Service {
    process: Option<Child>,
    starts: usize,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Service {
    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[derive(Clone)]
struct RealHost {
    binary: PathBuf,
    root: PathBuf,
    service: Arc<Mutex<Service>>,
}

impl RealHost {
    fn log(&self) -> PathBuf {
        self.root.with_extension("log")
    }

    fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Waits until containerd serves, or ends.
    fn start(&self) -> bool {
        let mut service = self.service.lock().expect("a lock");
        service.stop();
        service.starts += 1;
        let log = fs::File::create(self.log()).expect("a log");
        let child = Command::new(&self.binary)
            .arg("--config")
            .arg(self.root.join(CONFIG))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("starts");
        let process = service.process.insert(child);
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            if process.try_wait().expect("waits").is_some() {
                return false;
            }
            if self.logged().contains("containerd successfully booted") {
                return true;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("containerd neither serves nor ends:\n{}", self.logged());
    }
}

impl Host for RealHost {
    fn run(&self, program: &str, arguments: &[&str], _: Duration) -> Result<Output, HostError> {
        let said = |code: i32, text: &str| {
            Ok(Output {
                code: Some(code),
                stdout: text.into(),
                stderr: Vec::new(),
            })
        };
        match (program, arguments) {
            ("systemctl", ["show", ..]) => {
                let mut service = self.service.lock().expect("a lock");
                let process = service.process.as_mut();
                let up =
                    process.is_some_and(|process| process.try_wait().expect("waits").is_none());
                let active = if up { "active" } else { "failed" };
                said(
                    0,
                    &format!("LoadState=loaded\nActiveState={active}\nNRestarts=0\n"),
                )
            }
            ("systemctl", ["restart", _]) => match self.start() {
                true => said(0, ""),
                false => said(1, "Job for containerd.service failed"),
            },
            ("/usr/bin/ctr", arguments) => {
                let output = Command::new(program)
                    .args(arguments)
                    .output()
                    .expect("runs");
                Ok(Output {
                    code: output.status.code(),
                    stdout: output.stdout,
                    stderr: output.stderr,
                })
            }
            (_, arguments) => {
                let inside = |argument: &&str| match argument.starts_with('/') {
                    true => format!("{}{argument}", self.root.display()),
                    false => (*argument).to_owned(),
                };
                let output = Command::new(&self.binary)
                    .args(arguments.iter().map(inside))
                    .output()
                    .expect("runs");
                Ok(Output {
                    code: output.status.code(),
                    stdout: output.stdout,
                    stderr: output.stderr,
                })
            }
        }
    }

    fn pause(&self, _: Duration) {
        sleep(Duration::from_millis(20));
    }
}

/// What every configuration of the test has: nothing of it is outside of its directory.
fn isolated(root: &Path, rest: &str) -> String {
    let base = root.with_extension("d");
    let base = base.display();
    format!(
        "version = 2 # of containerd 1\nroot = \"{base}/root\"\nstate = \"{base}/state\"\n{rest}\n[grpc]\n  address = \"{base}/containerd.sock\"\n[ttrpc]\n  address = \"{base}/ttrpc.sock\"\n[plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{base}/opt\"\n"
    )
}

fn node(host: &RealHost) -> Node {
    Node {
        tree: HostTree::open(&host.root, Box::new(LogSteps)).expect("a root"),
        host: Box::new(host.clone()),
    }
}

fn host(fake: &FakeNode, binary: PathBuf) -> RealHost {
    RealHost {
        binary,
        root: fake.root().to_owned(),
        service: Arc::default(),
    }
}

fn version(host: &RealHost) -> String {
    let output = host.run("containerd", &["--version"], LIMIT).expect("runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether the plugin that serves the kubelet is there.
fn serves_kubernetes(host: &RealHost) -> bool {
    let log = host.logged();
    let failed = log
        .lines()
        .any(|line| line.contains("failed to load plugin io.containerd.grpc.v1.cri"));
    log.contains("loading plugin \\\"io.containerd.grpc.v1.cri\\\"") && !failed
}

#[test]
fn containerd_takes_the_runtime_and_serves_with_it() {
    let Some(binary) = binary() else { return };
    let fake = FakeNode::with_containerd("");
    if Path::new("/usr/bin/ctr").exists() {
        fake.write("usr/bin/ctr", "");
    }
    let host = host(&fake, binary);
    let config_text = isolated(&host.root, "");
    fake.write(CONFIG, &config_text);
    let config = fake.config();
    if !version(&host).contains(" 1.") && !version(&host).contains(" v1.") {
        println!("skipped: {} is no containerd 1", version(&host));
        return;
    }
    let untouched = fake.snapshot();
    if !host.start() || !serves_kubernetes(&host) {
        println!(
            "starting is not tested: this machine does not let containerd serve: {}",
            host.logged()
        );
        return;
    }
    apply(&node(&host), &config, 1).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(host.service.lock().expect("a lock").starts, 2);
    assert!(serves_kubernetes(&host), "{}", host.logged());
    // In the log is what the plugin was configured with.
    assert!(host.logged().contains(HANDLER), "{}", host.logged());
    let findings = node(&host).findings(&config, false).expect("checks");
    assert_eq!(findings, Vec::<String>::new());
    assert!(
        apply(&node(&host), &config, 1)
            .expect("applies")
            .changes
            .is_empty()
    );
    assert_eq!(host.service.lock().expect("a lock").starts, 2);
    uninstall(&node(&host), &config, 1).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(host.service.lock().expect("a lock").starts, 3);
    assert!(serves_kubernetes(&host), "{}", host.logged());
    assert_eq!(fake.snapshot(), untouched);
}

#[test]
fn containerd_that_cannot_start_gets_its_configuration_back() {
    let Some(binary) = binary() else { return };
    let fake = FakeNode::with_containerd("");
    let host = host(&fake, binary);
    let text = isolated(
        &host.root,
        "required_plugins = [\"io.containerd.grpc.v1.none\"]",
    );
    fake.write(CONFIG, &text);
    let error = apply(&node(&host), &fake.config(), 1).expect_err("does not start");
    assert_eq!(error.exit_code(), 5, "{}", chain(&error));
    assert_eq!(host.service.lock().expect("a lock").starts, 2);
    assert_eq!(fake.read(CONFIG), text);
}

/// systemd calls a containerd active whose plugin for the kubelet did not load; its client knows better.
#[test]
fn containerd_that_does_not_serve_the_kubelet_is_found_out() {
    let Some(binary) = binary() else { return };
    if !Path::new("/usr/bin/ctr").exists() {
        println!("skipped: no `ctr`");
        return;
    }
    let fake = FakeNode::with_containerd("");
    fake.write("usr/bin/ctr", "");
    let host = host(&fake, binary);
    let text = isolated(
        &host.root,
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"none\"",
    );
    fake.write(CONFIG, &text);
    let error = apply(&node(&host), &fake.config(), 1).expect_err("does not serve");
    let shown = chain(&error);
    assert!(
        shown.contains(
            "does not serve the kubelet: io.containerd.grpc.v1.cri is in the state `error`"
        ),
        "{shown}"
    );
    assert_eq!(error.exit_code(), 5);
    assert_eq!(fake.read(CONFIG), text);
}

/// A snapshotter for one runtime came with containerd 1.7; older ones ignore it, and would start pods with the wrong one.
#[test]
fn what_containerd_ignores_is_found_out_before_a_restart() {
    let Some(binary) = binary() else { return };
    let fake = FakeNode::with_containerd("");
    let host = host(&fake, binary);
    if !version(&host).contains(" 1.6") {
        println!("skipped: {} is no containerd 1.6", version(&host));
        return;
    }
    let text = isolated(&host.root, "");
    fake.write(CONFIG, &text);
    let mut document = fake.document();
    document["runtime"]["snapshotter"] = json!({"name": "nydus", "address": "/run/nydus.sock"});
    let error = apply(&node(&host), &fake.config_of(&document), 1).expect_err("ignored");
    let text_of_error = chain(&error);
    assert!(
        text_of_error.contains("found nothing as `snapshotter`")
            || text_of_error.contains("has nothing as `snapshotter`"),
        "{text_of_error}"
    );
    assert_eq!(error.exit_code(), 5);
    assert_eq!(host.service.lock().expect("a lock").starts, 0);
    assert_eq!(fake.read(CONFIG), text);
}

/// containerd 1 takes the whole plugin from the last file that it imports.
#[test]
fn imports_do_not_hide_the_runtime() {
    let Some(binary) = binary() else { return };
    let fake = FakeNode::with_containerd("");
    let host = host(&fake, binary);
    let directory = host.root.join("etc/containerd/conf.d");
    // The path for containerd is that of this test; for the installer it is one in the tree.
    let imports = format!("imports = [\"{}/*.toml\"]", directory.display());
    fake.write(CONFIG, &isolated(&host.root, &imports));
    let tables = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n";
    fake.write("etc/containerd/conf.d/50-cri.toml", tables);
    let seen = directory.display().to_string();
    fs::create_dir_all(host.root.join(seen.trim_start_matches('/'))).expect("a directory");
    fs::remove_dir(host.root.join(seen.trim_start_matches('/'))).expect("removes");
    std::os::unix::fs::symlink(
        "/etc/containerd/conf.d",
        host.root.join(seen.trim_start_matches('/')),
    )
    .expect("links");
    let mut document = fake.document();
    document["containerd"] = json!({"units": []});
    let config = fake.config_of(&document);
    apply(&node(&host), &config, 1).unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(
        fake.read("etc/containerd/conf.d/50-cri.toml")
            .contains(HANDLER)
    );
    assert!(!fake.read(CONFIG).contains(HANDLER));
    let findings = node(&host).findings(&config, false).expect("checks");
    assert_eq!(findings, Vec::<String>::new());
    // An import that comes later and hides everything is found by looking.
    fake.write("etc/containerd/conf.d/60-other.toml", tables);
    let findings = node(&host).findings(&config, false).expect("checks");
    assert!(!findings.is_empty());
}

/// The entry for `runc` came with ours, and containerd 1 serves no pod beside another runtime without it.
#[test]
fn containerd_serves_runtimes_that_were_added_since_it_was_installed() {
    let Some(binary) = binary() else { return };
    let fake = FakeNode::with_containerd("");
    if Path::new("/usr/bin/ctr").exists() {
        fake.write("usr/bin/ctr", "");
    }
    let host = host(&fake, binary);
    if !version(&host).contains(" 1.") && !version(&host).contains(" v1.") {
        println!("skipped: {} is no containerd 1", version(&host));
        return;
    }
    let text = isolated(
        &host.root,
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"",
    );
    fake.write(CONFIG, &text);
    if !host.start() || !serves_kubernetes(&host) {
        println!(
            "skipped: this machine does not let containerd serve: {}",
            host.logged()
        );
        return;
    }
    let config = fake.config();
    apply(&node(&host), &config, 1).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let other = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.other]\nruntime_type = \"io.containerd.runc.v2\"\n";
    fake.write(CONFIG, &format!("{}{other}", fake.read(CONFIG)));
    uninstall(&node(&host), &config, 1).unwrap_or_else(|error| panic!("{}", chain(&error)));
    let left = fake.read(CONFIG);
    assert!(!left.contains(HANDLER) && left.contains(other), "{left}");
    assert!(serves_kubernetes(&host), "{}", host.logged());
}
