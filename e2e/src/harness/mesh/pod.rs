//! A pod's sidecar in a namespace.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::Identity;
use crate::harness::{Network, Process, envoy, no_network_because, program};

const DEADLINE: Duration = Duration::from_secs(30);

/// Pods on one network.
#[derive(Debug)]
pub struct Bed {
    directory: tempfile::TempDir,
    network: Network,
}

/// A pod: its namespace, and its sidecar when that runs.
#[derive(Debug)]
pub struct MeshPod {
    /// Its node of the network.
    pub node: usize,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    directory: PathBuf,
    namespace: String,
    environment: Vec<(String, String)>,
    sidecar: Option<Process>,
}

impl Bed {
    /// An empty network; `None`, with a message, where there can be none, or there is no Envoy.
    ///
    /// # Errors
    /// When the network cannot be made.
    #[expect(clippy::print_stderr, reason = "says why a test is skipped")]
    pub fn create(story: &str) -> Result<Option<Self>> {
        let missing = envoy()
            .is_none()
            .then(|| "there is no Envoy; run `cargo xtask tools`".to_owned());
        if let Some(reason) = no_network_because().or(missing) {
            eprintln!("{story}: skipped, because {reason}");
            return Ok(None);
        }
        let directory = tempfile::tempdir()?;
        // Envoy runs as a user of its own and must reach its files.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Some(Self {
            directory,
            network: Network::create(0)?,
        }))
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// A node that has nothing to do with the mesh.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn stranger(&mut self) -> Result<usize> {
        self.network.add()
    }

    /// A pod that is closed to everything, as the guest is when it boots. Its sidecar will have `environment`.
    ///
    /// # Errors
    /// When the namespace cannot be made or not be closed.
    pub fn pod(&mut self, environment: &[(&str, String)]) -> Result<MeshPod> {
        let node = self.network.add()?;
        let directory = self.directory.path().join(format!("pod{node}"));
        for name in ["base/tls-config", "run"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let pod = MeshPod {
            node,
            addresses: self.network.addresses(node),
            directory,
            namespace: self.network.node(node),
            environment: environment.collect(),
            sidecar: None,
        };
        let mut deny = pod.command(&program("initializer")?);
        let deny = deny.arg("deny-ingress").output()?;
        ensure!(
            deny.status.success(),
            "initializer deny-ingress: {}{}",
            String::from_utf8_lossy(&deny.stdout),
            String::from_utf8_lossy(&deny.stderr)
        );
        Ok(pod)
    }

    /// A pod whose sidecar is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn ready(
        &mut self,
        environment: &[(&str, String)],
        issue: impl FnOnce(&[String]) -> Result<Identity>,
    ) -> Result<MeshPod> {
        let mut pod = self.pod(environment)?;
        pod.install(&issue(&pod.names())?)?;
        pod.start()?;
        pod.wait_until_ready()?;
        Ok(pod)
    }
}

impl MeshPod {
    /// Its addresses as the names that a certificate may carry.
    pub fn names(&self) -> Vec<String> {
        self.addresses.iter().map(ToString::to_string).collect()
    }

    /// Where `port` of the pod is, once for each address.
    pub fn at(&self, port: u16) -> impl Iterator<Item = SocketAddr> + use<> {
        let addresses = self.addresses.clone();
        addresses
            .into_iter()
            .map(move |address| (address, port).into())
    }

    /// Installs certificate, key and CA, as the Initializer does.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn install(&self, identity: &Identity) -> Result<()> {
        identity.install(&self.directory.join("base/tls-config"))
    }

    /// Starts the sidecar and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.command(&program("service-mesh")?);
        let path = |name: &str| self.directory.join(name);
        command
            .env(
                "CONTRAST_ENVOY_BINARY",
                envoy().context("there is no Envoy")?,
            )
            .env("CONTRAST_ENVOY_CONCURRENCY", "1")
            .env("CONTRAST_BASE_DIR", path("base"))
            .env("CONTRAST_RUNTIME_DIR", path("run"))
            .env("CONTRAST_READY_FILE", path("ready"))
            .envs(self.environment.iter().cloned());
        self.sidecar = Some(Process::start("sidecar", command, &self.directory)?);
        Ok(())
    }

    /// Waits until the sidecar says that it is ready.
    ///
    /// # Errors
    /// When it ends first or takes too long.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let ready = self.directory.join("ready");
        self.sidecar()?
            .wait_until("readiness", DEADLINE, |_| ready.exists())
    }

    /// Whether the sidecar says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.directory.join("ready").exists()
    }

    /// The sidecar.
    ///
    /// # Errors
    /// When it was not started.
    pub fn sidecar(&mut self) -> Result<&mut Process> {
        self.sidecar.as_mut().context("the sidecar was not started")
    }

    /// Ends the sidecar and Envoy with SIGKILL at once, as the end of their container would.
    ///
    /// # Errors
    /// When the sidecar cannot be reaped.
    pub fn kill(&mut self) -> Result<()> {
        let listed = Command::new("ip")
            .args(["netns", "pids", &self.namespace])
            .output()?;
        for pid in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            let pid = nix::unistd::Pid::from_raw(pid.parse()?);
            // It may have ended by itself.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
        self.sidecar
            .take()
            .map_or(Ok(()), |mut sidecar| sidecar.kill())
    }

    /// Asks the sidecar to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut sidecar) = self.sidecar.take() else {
            return Ok(());
        };
        sidecar.signal(Signal::SIGTERM)?;
        sidecar.wait(DEADLINE).map(drop)
    }

    /// What the sidecar and Envoy printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("sidecar.log")).unwrap_or_default()
    }

    /// A command that runs in the pod, without an environment.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }
}

impl Drop for MeshPod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log();
        }
        let _ = self.kill();
    }
}

impl MeshPod {
    #[expect(clippy::print_stderr, reason = "shows why a test failed")]
    fn show_log(&self) {
        eprintln!("log of pod {}:\n{}", self.namespace, self.log());
    }
}
