//! What others make of the images: a registry takes and gives them, a container engine runs every program in them.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Made, VERSION,
    spec::{Image, Spec},
};

const DEADLINE: Duration = Duration::from_secs(20);
/// Debian's podman needs as much where there is no systemd.
const PODMAN: &str = r#"[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
"#;
/// Says of a program which of its libraries are missing, without running it.
const LOADER: &str = "/usr/lib64/ld-linux-x86-64.so.2";

pub(super) fn run(spec: &Spec, built: &[Made], output: &Path) -> Result<()> {
    let scratch = output.join("trial");
    remove(&scratch)?;
    fs::create_dir_all(&scratch)?;
    let registry = Registry::start(&scratch)?;
    for (image, (built, _)) in spec.images.iter().zip(built) {
        registry.round_trip(image, output, &scratch, &built.digest)?;
    }
    drop(registry);
    let podman = Podman::new(&scratch)?;
    for image in &spec.images {
        podman
            .try_image(image, output)
            .with_context(|| format!("the image `{}` does not run", image.name))?;
    }
    podman.remove_all()?;
    remove(&scratch)
}

/// A registry on loopback; it ends when dropped.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(scratch: &Path) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let configuration = scratch.join("registry.yml");
        let store = scratch.join("registry");
        fs::write(
            &configuration,
            format!(
                "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
                store.display()
            ),
        )?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start docker-registry, of Debian's package of that name")?;
        let registry = Self { child, address };
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(&registry.address).is_err() {
            ensure!(Instant::now() < end, "docker-registry does not listen");
            sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }

    /// Pushes the layout, pulls it back, and compares digests.
    fn round_trip(&self, image: &Image, output: &Path, scratch: &Path, digest: &str) -> Result<()> {
        let name = &image.name;
        let remote = format!("docker://{}/contrast/{name}:{VERSION}", self.address);
        let pulled = scratch.join("pulled").join(name);
        fs::create_dir_all(&pulled)?;
        let local = format!("oci:{}", output.join(name).display());
        let back = format!("oci:{}:{VERSION}", pulled.display());
        skopeo(&["copy", "--dest-tls-verify=false", &local, &remote])?;
        skopeo(&["copy", "--src-tls-verify=false", &remote, &back])?;
        let index = fs::read_to_string(pulled.join("index.json"))?;
        ensure!(
            index.contains(digest),
            "{name}: pushed {digest}, pulled {index}"
        );
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Fails only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skopeo(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").args(arguments);
    said(command).map(drop)
}

/// A container engine with a store of its own.
struct Podman {
    configuration: PathBuf,
    scratch: PathBuf,
}

impl Podman {
    fn new(scratch: &Path) -> Result<Self> {
        let configuration = scratch.join("containers.conf");
        fs::write(&configuration, PODMAN)?;
        Ok(Self {
            configuration,
            scratch: scratch.to_owned(),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        command
            .env("CONTAINERS_CONF", &self.configuration)
            .arg("--root")
            .arg(self.scratch.join("podman"))
            .arg("--runroot")
            .arg(self.scratch.join("podman-run"));
        command
    }

    fn try_image(&self, image: &Image, output: &Path) -> Result<()> {
        let archive = output.join(format!("{}.tar", image.name));
        let mut load = self.command();
        load.args(["load", "--quiet", "--input"]).arg(archive);
        let loaded = said(load)?;
        let loaded = loaded
            .trim()
            .rsplit(' ')
            .next()
            .unwrap_or_default()
            .to_owned();
        let version = self.run(&loaded, None, &["--version"])?;
        ensure!(
            version.contains(VERSION),
            "expected version {VERSION}, found `{version}`"
        );
        let mut programs = image.programs.clone();
        programs.extend(image.envoy.then(|| "envoy".to_owned()));
        for program in programs {
            let found = ["/usr/sbin", "/usr/bin"].iter().find_map(|directory| {
                let path = format!("{directory}/{program}");
                self.run(&loaded, Some(LOADER), &["--list", &path]).ok()
            });
            let libraries = found.with_context(|| format!("`{program}` lacks a library"))?;
            ensure!(
                libraries.contains("libc.so.6"),
                "`{program}` is linked to nothing: {libraries}"
            );
        }
        Ok(())
    }

    /// As tightly as it can be: nothing of it needs more to say its version.
    fn run(&self, image: &str, entrypoint: Option<&str>, arguments: &[&str]) -> Result<String> {
        let mut run = self.command();
        run.args([
            "run",
            "--rm",
            "--read-only",
            "--network=none",
            "--cap-drop=ALL",
        ]);
        run.arg("--security-opt=no-new-privileges");
        run.args(entrypoint.map(|program| format!("--entrypoint={program}")));
        run.arg(image).args(arguments);
        said(run)
    }

    fn remove_all(&self) -> Result<()> {
        let mut remove = self.command();
        remove.args(["rmi", "--all", "--force"]);
        said(remove).map(drop)
    }
}

fn said(mut command: Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn remove(directory: &Path) -> Result<()> {
    match directory.exists() {
        true => fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display())),
        false => Ok(()),
    }
}
