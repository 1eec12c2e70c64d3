//! A node in a directory: its files, and programs that behave like systemd, containerd and k3s.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared by tests that use parts of it"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use contrast_node_installer::{
    Error, apply, chain,
    config::Config,
    host::{Host, HostError, Output},
    node::Node,
    plan::Plan,
    tree::{HostTree, Interrupted, Steps},
    uninstall,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const HANDLER: &str = "contrast-cc-metal-qemu-snp-0a1b2c3d";
pub(crate) const K3S: &str = "var/lib/rancher/k3s/agent/etc/containerd";
pub(crate) const RKE2: &str = "var/lib/rancher/rke2/agent/etc/containerd";
pub(crate) const CONFIG: &str = "etc/containerd/config.toml";
pub(crate) const V2: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n";
const LOCK_SECONDS: u64 = 2;

/// Asked with the configuration of containerd.
type Question = Box<dyn Fn(&str) -> bool + Send>;

/// What the programs of the host do, and what they were asked to.
#[derive(Default)]
pub(crate) struct Behaviour {
    pub(crate) restarts: usize,
    /// Whether containerd comes up, asked with its configuration.
    pub(crate) comes_up: Option<Question>,
    /// Whether containerd is active between restarts of its own.
    pub(crate) crash_loops: bool,
    /// What containerd refuses, asked with its configuration.
    pub(crate) refuses: Option<Question>,
    /// Whether the pod does not see the host's process 1.
    pub(crate) outside: bool,
    /// Whether the plugin for the kubelet is running, asked with the configuration of containerd.
    pub(crate) serves: Option<Question>,
    /// Whether k3s renders its template.
    pub(crate) renders_nothing: bool,
    /// What `containerd --version` says.
    pub(crate) version: Option<String>,
    /// Seconds that were waited.
    pub(crate) waited: u64,
    /// Units that are there.
    pub(crate) units: Option<Vec<String>>,
    /// What every command is answered with first, to find out what was run.
    pub(crate) commands: Vec<String>,
    polls: usize,
}

#[derive(Clone)]
pub(crate) struct FakeHost {
    root: PathBuf,
    pub(crate) behaviour: Arc<Mutex<Behaviour>>,
}

fn said(code: i32, stdout: impl Into<Vec<u8>>, stderr: &str) -> Result<Output, HostError> {
    Ok(Output {
        code: Some(code),
        stdout: stdout.into(),
        stderr: stderr.into(),
    })
}

impl FakeHost {
    fn dump(&self, path: &str) -> String {
        let read = |path: &Path| -> toml::Table {
            let text = fs::read_to_string(path).expect("a configuration");
            text.parse().expect("a configuration that is TOML")
        };
        let mut all = read(&self.root.join(path.trim_start_matches('/')));
        if all.contains_key("imports") {
            let directory = self.root.join("etc/containerd/conf.d");
            let entries = fs::read_dir(directory).expect("conf.d");
            let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            files.sort();
            for file in files {
                if file.extension().is_none_or(|extension| extension != "toml") {
                    continue;
                }
                // As containerd 1 does it: plugin by plugin, the last one wins.
                let imported = read(&file).remove("plugins");
                let plugins = all.get_mut("plugins").and_then(toml::Value::as_table_mut);
                if let (Some(toml::Value::Table(imported)), Some(plugins)) = (imported, plugins) {
                    plugins.extend(imported);
                }
            }
        }
        built_in(&mut all);
        toml::to_string(&all).expect("TOML")
    }

    /// k3s and RKE2 render their configuration when they start.
    pub(crate) fn render(&self) {
        for directory in [K3S, RKE2] {
            let directory = self.root.join(directory);
            let rendered = directory.join("config.toml");
            let Ok(old) = fs::read_to_string(&rendered) else {
                continue;
            };
            let three = old.contains("version = 3");
            let name = if three {
                "config-v3.toml.tmpl"
            } else {
                "config.toml.tmpl"
            };
            let base = base(if three { 3 } else { 2 });
            let new = match fs::read_to_string(directory.join(name)) {
                Ok(template) => template
                    .replace("{{ template \"base\" . }}\n", &base)
                    .lines()
                    // Conditions, all of which are true.
                    .filter(|line| !line.starts_with("{{"))
                    .fold(String::new(), |text, line| text + line + "\n"),
                Err(_) => base,
            };
            fs::write(rendered, new).expect("renders");
        }
    }

    fn configuration(&self) -> String {
        let all = [
            "etc/containerd/config.toml".to_owned(),
            format!("{K3S}/config.toml"),
            format!("{RKE2}/config.toml"),
        ];
        all.iter()
            .filter_map(|path| fs::read_to_string(self.root.join(path)).ok())
            .collect()
    }
}

/// As containerd does it: `runc` is there as long as the configuration names no runtime.
fn built_in(all: &mut toml::Table) {
    let version = all.get("version").and_then(toml::Value::as_integer);
    let plugin = match version {
        Some(3) => "io.containerd.cri.v1.runtime",
        _ => "io.containerd.grpc.v1.cri",
    };
    let mut table = all;
    for key in ["plugins", plugin, "containerd", "runtimes"] {
        let inner = table
            .entry(key)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = inner.as_table_mut().expect("a table");
    }
    if table.is_empty() {
        let runc = toml::toml! { runtime_type = "io.containerd.runc.v2" };
        table.insert("runc".into(), toml::Value::Table(runc));
    }
}

/// What k3s renders without a template.
pub(crate) fn base(version: u8) -> String {
    let plugin = match version {
        2 => "io.containerd.grpc.v1.cri",
        _ => "io.containerd.cri.v1.runtime",
    };
    format!(
        "# File generated by k3s. DO NOT EDIT.\nversion = {version}\n\n[plugins.'{plugin}'.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n"
    )
}

impl Host for FakeHost {
    fn run(&self, program: &str, arguments: &[&str], _: Duration) -> Result<Output, HostError> {
        let mut behaviour = self.behaviour.lock().expect("a lock");
        behaviour
            .commands
            .push(format!("{program} {}", arguments.join(" ")));
        if behaviour.outside {
            return Err(HostError::Enter(std::io::Error::other("not the host")));
        }
        match (program, arguments) {
            ("systemctl", ["show", _, "--", unit]) => {
                let units = &behaviour.units;
                let there = units
                    .as_ref()
                    .is_none_or(|units| units.iter().any(|one| one == unit));
                behaviour.polls += 1;
                let load = if there { "loaded" } else { "not-found" };
                let active = if there { "active" } else { "inactive" };
                let restarts = if behaviour.crash_loops {
                    behaviour.polls
                } else {
                    0
                };
                said(
                    0,
                    format!("LoadState={load}\nActiveState={active}\nNRestarts={restarts}\n"),
                    "",
                )
            }
            ("systemctl", ["restart", _]) => {
                behaviour.restarts += 1;
                if !behaviour.renders_nothing {
                    self.render();
                }
                let config = self.configuration();
                match behaviour.comes_up.as_ref().is_none_or(|up| up(&config)) {
                    true => said(0, "", ""),
                    false => said(1, "", "Job for containerd.service failed.\n"),
                }
            }
            (_, ["--version"]) => {
                let version = behaviour.version.clone().unwrap_or_default();
                said(
                    0,
                    format!("containerd github.com/containerd/containerd {version} abc\n"),
                    "",
                )
            }
            (_, ["--config", path, "config", "dump"]) => {
                let dump = self.dump(path);
                match behaviour
                    .refuses
                    .as_ref()
                    .is_some_and(|refuses| refuses(&dump))
                {
                    true => said(1, "", "containerd: failed to load TOML: no\n"),
                    false => said(0, dump, ""),
                }
            }
            (_, ["config", "default"]) => {
                let mut all = toml::toml! { grpc.address = "/run/containerd/containerd.sock" };
                built_in(&mut all);
                said(0, toml::to_string(&all).expect("TOML"), "")
            }
            (_, ["--address", _, "plugins", "ls"]) => {
                let config = self.configuration();
                let state = match behaviour.serves.as_ref().is_none_or(|ask| ask(&config)) {
                    true => "ok",
                    false => "error",
                };
                said(0, format!("io.containerd.grpc.v1 cri - {state}\n"), "")
            }
            other => panic!("unexpected program {other:?}"),
        }
    }

    fn pause(&self, duration: Duration) {
        self.behaviour.lock().expect("a lock").waited += duration.as_secs();
    }
}

/// The power fails at a step, and nothing happens after it.
#[derive(Debug)]
pub(crate) struct PowerCut {
    at: usize,
    steps: Arc<Mutex<Vec<String>>>,
}

impl Steps for PowerCut {
    fn before(&self, step: &str) -> Result<(), Interrupted> {
        let mut steps = self.steps.lock().expect("a lock");
        if steps.len() >= self.at {
            return Err(Interrupted);
        }
        steps.push(step.to_owned());
        Ok(())
    }
}

/// Somebody else writes a file when the installer comes to a step.
#[derive(Debug)]
struct SomebodyElse {
    at: String,
    file: PathBuf,
    text: String,
    done: Mutex<bool>,
}

impl Steps for SomebodyElse {
    fn before(&self, step: &str) -> Result<(), Interrupted> {
        let mut done = self.done.lock().expect("a lock");
        if !*done && step.contains(&self.at) {
            fs::write(&self.file, &self.text).expect("writes");
            *done = true;
        }
        Ok(())
    }
}

/// A node, and the image of the installer.
pub(crate) struct FakeNode {
    pub(crate) directory: TempDir,
    pub(crate) host: FakeHost,
}

impl FakeNode {
    /// A node with SEV-SNP and nothing else.
    pub(crate) fn bare() -> Self {
        // The installer waits for the disk after every step, which costs the tests of thousands of steps half a minute.
        let directory = match tempfile::tempdir_in("/dev/shm") {
            Ok(directory) => directory,
            Err(_) => tempfile::tempdir().expect("a directory"),
        };
        let root = directory.path().join("host");
        let node = Self {
            host: FakeHost {
                root,
                behaviour: Arc::default(),
            },
            directory,
        };
        node.write("sys/module/kvm_amd/parameters/sev_snp", "Y\n");
        for path in ["run", "opt", "etc", "var/lib"] {
            fs::create_dir_all(node.root().join(path)).expect("a directory");
        }
        node.payload("bin/shim", "#!shim\n", 0o755);
        node.payload("etc/kata.toml", &kata("/opt/edgeless"), 0o644);
        node.payload("share/qemu", "qemu", 0o755);
        node.payload("share/firmware/OVMF.fd", "firmware", 0o644);
        node
    }

    /// A node whose containerd has this configuration.
    pub(crate) fn with_containerd(config: &str) -> Self {
        let node = Self::bare();
        node.write("etc/containerd/config.toml", config);
        node.write("usr/bin/containerd", "");
        node
    }

    /// A node with k3s or RKE2, which rendered a configuration of this version.
    pub(crate) fn with_rancher(directory: &str, version: u8) -> Self {
        let node = Self::bare();
        node.write(&format!("{directory}/config.toml"), &base(version));
        node
    }

    pub(crate) fn root(&self) -> &Path {
        &self.host.root
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("writes");
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        symlink(target, path).expect("links");
    }

    pub(crate) fn read(&self, path: &str) -> String {
        let path = self.path(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub(crate) fn payload(&self, path: &str, text: &str, mode: u32) {
        let path = self.directory.path().join("payload").join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, text).expect("writes");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    }

    pub(crate) fn document(&self) -> Value {
        let source =
            |path: &str| format!("file://{}/payload/{path}", self.directory.path().display());
        json!({
            "handler": HANDLER,
            "files": [
                {"source": source("bin/shim"), "path": "/opt/edgeless/{handler}/bin/shim", "mode": "0755"},
                {"source": source("etc/kata.toml"), "path": "/opt/edgeless/{handler}/etc/kata.toml"},
                {"source": source("share"), "path": "/opt/edgeless/{handler}/share"},
            ],
            "runtime": {
                "type": "io.containerd.contrast-cc.v2",
                "shim": "/opt/edgeless/{handler}/bin/shim",
                "config": "/opt/edgeless/{handler}/etc/kata.toml",
            },
        })
    }

    /// Writes a document, and reads it as the installer does.
    pub(crate) fn config_of(&self, document: &Value) -> Config {
        Config::read(&self.config_file(document)).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn config_file(&self, document: &Value) -> PathBuf {
        let path = self.directory.path().join("config.json");
        fs::write(&path, document.to_string()).expect("writes");
        path
    }

    pub(crate) fn config(&self) -> Config {
        self.config_of(&self.document())
    }

    /// The node as the installer sees it, until the power fails at this step.
    pub(crate) fn node(&self, at: usize) -> (Node, Arc<Mutex<Vec<String>>>) {
        let steps = Arc::default();
        let cut = PowerCut {
            at,
            steps: Arc::clone(&steps),
        };
        let tree = HostTree::open(self.root(), Box::new(cut)).expect("a root");
        let host = Box::new(self.host.clone());
        (Node { tree, host }, steps)
    }

    /// The node as the installer sees it, while somebody else writes `file` once, at the first step with `at` in it.
    pub(crate) fn node_of_two(&self, at: &str, file: &str, text: &str) -> Node {
        let steps = SomebodyElse {
            at: at.to_owned(),
            file: self.path(file),
            text: text.to_owned(),
            done: Mutex::new(false),
        };
        let tree = HostTree::open(self.root(), Box::new(steps)).expect("a root");
        let host = Box::new(self.host.clone());
        Node { tree, host }
    }

    pub(crate) fn apply(&self, config: &Config) -> Result<Plan, Error> {
        apply(&self.node(usize::MAX).0, config, LOCK_SECONDS)
    }

    pub(crate) fn uninstall(&self, config: &Config) -> Result<Vec<String>, Error> {
        uninstall(&self.node(usize::MAX).0, config, LOCK_SECONDS)
    }

    pub(crate) fn findings(&self, config: &Config) -> Vec<String> {
        let findings = self.node(usize::MAX).0.findings(config, false);
        findings.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Applies, which must work.
    pub(crate) fn applied(&self) -> Config {
        let config = self.config();
        if let Err(error) = self.apply(&config) {
            panic!("{}", chain(&error));
        }
        config
    }

    pub(crate) fn restarts(&self) -> usize {
        self.host.behaviour.lock().expect("a lock").restarts
    }

    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.host.behaviour.lock().expect("a lock"));
    }

    /// Everything on the host: kind, permissions, owner and content.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        collect(self.root(), self.root(), &mut all);
        // Gone with the next boot, and there as long as anybody installed anything.
        all.remove("run/contrast-node-installer.lock");
        all
    }
}

fn collect(root: &Path, directory: &Path, all: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("metadata");
        let name = path
            .strip_prefix(root)
            .expect("below")
            .display()
            .to_string();
        let content = if metadata.is_dir() {
            collect(root, &path, all);
            "directory".to_owned()
        } else if metadata.is_symlink() {
            format!("-> {}", fs::read_link(&path).expect("a link").display())
        } else {
            String::from_utf8_lossy(&fs::read(&path).expect("reads")).into_owned()
        };
        let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
        all.insert(name, format!("{mode:o} {uid}:{gid} {content}"));
    }
}

/// The sentence that a refusal is, after which the host is as before.
pub(crate) fn refused(node: &FakeNode, config: &Config, code: u8) -> String {
    let before = node.snapshot();
    let error = node.apply(config).expect_err("refused");
    assert_eq!(error.exit_code(), code, "{}", chain(&error));
    assert_eq!(node.snapshot(), before, "{}", chain(&error));
    assert_eq!(node.restarts(), 0);
    let text = chain(&error);
    assert!(!text.contains('\n'), "{text}");
    text
}

/// A configuration of Kata whose files are below a directory.
pub(crate) fn kata(directory: &str) -> String {
    format!(
        "[hypervisor.qemu]\npath = \"{directory}/{HANDLER}/share/qemu\"\nfirmware = \"{directory}/{HANDLER}/share/firmware/OVMF.fd\"\n[runtime]\nenable_debug = false\n"
    )
}
