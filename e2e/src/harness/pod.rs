use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use contrast_policy::Initdata;
use serde_json::Value;

use super::{Build, Process, TeeKind, agent::Agent, envoy, loopback, network, program, yaml};

const START_DEADLINE: Duration = Duration::from_secs(30);
const EGRESS_ANNOTATION: &str = "contrast.edgeless.systems/servicemesh-egress";
pub(super) const INITIALIZER: &str = "contrast-initializer";
const PULL_CREDENTIALS_DIR: &str = "CONTRAST_PULL_CREDENTIALS_DIR";
const SERVICE_MESH: &str = "contrast-service-mesh";

/// One workload of the generated YAML, as the kubelet sees it.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// Name of the workload (and, in the sample application, of its service).
    pub name: String,
    /// Initdata document, exact bytes: what the guest is started with.
    pub initdata: Vec<u8>,
    /// Name of its directory, if it is another than its own.
    instance: Option<String>,
    kind: String,
    namespace: String,
    template: Value,
}

impl PodSpec {
    /// Every workload with an initdata annotation in the YAML files of `directory`, by name.
    ///
    /// # Errors
    /// When a file cannot be read, or an annotation is no initdata document.
    pub fn read_all(directory: &Path) -> Result<BTreeMap<String, Self>> {
        let mut specs = BTreeMap::new();
        for document in yaml::documents(directory)? {
            let Some(template) = yaml::pod_template(&document) else {
                continue;
            };
            let Some(initdata) = yaml::initdata(template)? else {
                continue;
            };
            let name = document["metadata"]["name"]
                .as_str()
                .context("workload without a name")?;
            let text = |value: &Value| value.as_str().unwrap_or("default").to_owned();
            let spec = Self {
                name: name.to_owned(),
                initdata,
                instance: None,
                kind: text(&document["kind"]),
                namespace: text(&document["metadata"]["namespace"]),
                template: template.clone(),
            };
            specs.insert(name.to_owned(), spec);
        }
        Ok(specs)
    }

    /// SHA-256 of the initdata document, hex.
    pub fn policy_hash(&self) -> String {
        Initdata::parse(self.initdata.clone())
            .map(|initdata| hex::encode(initdata.hash()))
            .unwrap_or_default()
    }

    /// Another pod of the same workload, whose files lie beside those of the first.
    #[must_use]
    pub fn replica(&self, instance: &str) -> Self {
        let mut replica = self.clone();
        replica.instance = Some(instance.to_owned());
        replica
    }

    /// Whether it is not a [`PodSpec::replica`].
    pub(super) fn is_first(&self) -> bool {
        self.instance.is_none()
    }

    fn directory(&self) -> &str {
        self.instance.as_deref().unwrap_or(&self.name)
    }

    /// The same pod, with the same policy, whose host runs another program in `container`.
    #[must_use]
    pub fn with_program_of_the_host(&self, container: &str, program: &str) -> Self {
        let mut changed = self.clone();
        for list in ["initContainers", "containers"] {
            let containers = changed.template["spec"][list].as_array_mut();
            for found in containers
                .into_iter()
                .flatten()
                .filter(|found| found["name"] == container)
            {
                found["command"] = serde_json::json!([program]);
            }
        }
        changed
    }

    /// Its egress annotation.
    fn egress(&self) -> &str {
        let annotations = &self.template["metadata"]["annotations"];
        annotations[EGRESS_ANNOTATION].as_str().unwrap_or_default()
    }

    fn containers(&self) -> impl Iterator<Item = &Value> {
        let spec = &self.template["spec"];
        let list = |key: &str| spec[key].as_array().map(Vec::as_slice).unwrap_or_default();
        list("initContainers").iter().chain(list("containers"))
    }
}

/// What all pods of one deployment share.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Directory for files, one subdirectory a pod.
    pub directory: PathBuf,
    /// Directory of the software TEE.
    pub tee: PathBuf,
    /// The evidence that it issues.
    pub kind: TeeKind,
    /// Mesh API of the Coordinator, `HOST[:PORT]`.
    pub mesh_api: String,
    /// DNS server that knows the names of all services.
    pub dns: SocketAddr,
    /// Whose Initializer and service mesh the pods run.
    pub build: Build,
}

/// Where a pod is.
#[derive(Debug, Clone)]
pub enum Site {
    /// In a network namespace; everything is redirected into the mesh.
    Namespace {
        /// Its name.
        name: String,
        /// Addresses in it, IPv4 first.
        addresses: Vec<IpAddr>,
    },
    /// On this machine, at a loopback address of its own; what needs privileges is left out.
    Loopback(Ipv4Addr),
}

/// A running pod: its containers as processes, with an address of its own.
#[derive(Debug)]
pub struct Pod {
    site: Site,
    addresses: Vec<IpAddr>,
    base: PathBuf,
    // Stopped in reverse order of start: the application before its mesh.
    containers: Vec<(String, Process)>,
}

impl Pod {
    /// Starts the containers of `spec` in their order, each when the one before is ready. Without an Envoy executable the
    /// service mesh and everything after it is left out.
    ///
    /// # Errors
    /// When a container cannot be started or does not become ready.
    pub fn start(spec: &PodSpec, site: Site, surroundings: &Surroundings) -> Result<Self> {
        let mut pod = Self::prepare(spec, site, surroundings)?;
        let mut agent = Agent::boot(&spec.initdata, &spec.name, &spec.kind, &spec.namespace)?;
        for container in spec.containers() {
            let name = container["name"]
                .as_str()
                .context("container without a name")?;
            if name != INITIALIZER && envoy().is_none() {
                break;
            }
            agent.run(container, &pod.environment(container)?)?;
            let mut process = pod.launch(spec, container, name, surroundings)?;
            pod.wait_until_ready(container, name, &mut process)?;
            pod.containers.push((name.to_owned(), process));
        }
        Ok(pod)
    }

    /// Starts only the Initializer and does not wait: for pods that must not get anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_initializer(
        spec: &PodSpec,
        site: Site,
        surroundings: &Surroundings,
    ) -> Result<Self> {
        let mut pod = Self::prepare(spec, site, surroundings)?;
        let container = spec
            .containers()
            .find(|container| container["name"] == INITIALIZER)
            .context("the pod has no Initializer")?;
        let process = pod.launch(spec, container, INITIALIZER, surroundings)?;
        pod.containers.push((INITIALIZER.to_owned(), process));
        Ok(pod)
    }

    /// The pod's IPv4 address.
    pub fn address(&self) -> IpAddr {
        self.addresses
            .first()
            .copied()
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// The pod's addresses, IPv4 first.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Runs `work` where the pod's own programs run, on a thread.
    ///
    /// # Errors
    /// When its namespace is gone; or cannot be entered, when the thread is joined.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        match &self.site {
            Site::Namespace { name, .. } => network::enter(name.clone(), work),
            Site::Loopback(_) => Ok(std::thread::spawn(|| Ok(work()))),
        }
    }

    /// Runs `work` where the pod's own programs run, and waits for it.
    ///
    /// # Errors
    /// When its namespace cannot be entered. A panic of `work` goes on in the caller.
    pub fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        match self.spawn(work)?.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Path of a file that the Initializer installs, for example `tls-config/key.pem`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// Directory in which the Initializer puts what the guest pulls images with.
    pub fn pull_credentials(&self) -> PathBuf {
        self.base.with_file_name("pull-credentials")
    }

    /// The process of the container `name`.
    ///
    /// # Errors
    /// When it was not started.
    pub fn container(&mut self, name: &str) -> Result<&mut Process> {
        self.containers
            .iter_mut()
            .find(|(container, _)| container == name)
            .map(|(_, process)| process)
            .with_context(|| format!("container {name} was not started"))
    }

    /// Starts the container `name` again, in the pod as it is: the kubelet keeps the pod's volumes and addresses.
    ///
    /// # Errors
    /// When there is none, it still runs, or it cannot be started.
    pub(super) fn restart(
        &mut self,
        spec: &PodSpec,
        name: &str,
        surroundings: &Surroundings,
    ) -> Result<()> {
        ensure!(
            self.container(name)?.has_ended(),
            "container {name} of {} still runs",
            spec.name
        );
        let container = spec
            .containers()
            .find(|container| container["name"] == name)
            .with_context(|| format!("{} has no container {name}", spec.name))?;
        let process = self.launch(spec, container, name, surroundings)?;
        *self.container(name)? = process;
        Ok(())
    }

    /// Where it is.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// A pod without containers. In a namespace it is closed before anything else runs, as the guest does when it boots.
    fn prepare(spec: &PodSpec, site: Site, surroundings: &Surroundings) -> Result<Self> {
        let directory = surroundings.directory.join(spec.directory());
        let base = directory.join("contrast");
        fs::create_dir_all(&base)?;
        fs::write(directory.join("initdata.toml"), &spec.initdata)?;
        let addresses = match &site {
            Site::Namespace { addresses, .. } => addresses.clone(),
            Site::Loopback(address) => vec![(*address).into()],
        };
        let pod = Self {
            site,
            addresses,
            base,
            containers: Vec::new(),
        };
        if matches!(pod.site, Site::Namespace { .. }) {
            let denied = pod
                .command(&program("initializer")?)
                .arg("deny-ingress")
                .output()?;
            ensure!(
                denied.status.success(),
                "initializer deny-ingress: {}{}",
                String::from_utf8_lossy(&denied.stdout),
                String::from_utf8_lossy(&denied.stderr)
            );
        }
        Ok(pod)
    }

    /// A command that runs in the pod, with an empty environment but for the path, by which programs of the guest are found.
    fn command(&self, program: &Path) -> Command {
        let mut command = match &self.site {
            Site::Namespace { name, .. } => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
            Site::Loopback(_) => Command::new(program),
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path);
        command
    }

    fn launch(
        &self,
        spec: &PodSpec,
        container: &Value,
        name: &str,
        surroundings: &Surroundings,
    ) -> Result<Process> {
        let directory = surroundings.directory.join(spec.directory());
        let executable = match name {
            INITIALIZER => surroundings.build.program("initializer")?,
            SERVICE_MESH => surroundings.build.program("service-mesh")?,
            _ => {
                let path = container["command"][0]
                    .as_str()
                    .context("container without command")?;
                let file = Path::new(path)
                    .file_name()
                    .context("command without a file name")?;
                program(&file.to_string_lossy())?
            }
        };
        let mut command = self.command(&executable);
        let words = |key: &str| container[key].as_array().cloned().unwrap_or_default();
        let arguments = words("command").into_iter().skip(1).chain(words("args"));
        command.args(arguments.filter_map(|word| word.as_str().map(str::to_owned)));
        command.env("RUST_BACKTRACE", "1");
        let mut environment = self.environment(container)?;
        if let Site::Loopback(address) = self.site {
            let ports = spec.containers().flat_map(ports);
            loopback::adapt(&mut environment, address, ports, spec.egress());
            command.env("CONTRAST_DNS_RESOLVER", surroundings.dns.to_string());
        }
        let pulls = environment
            .iter()
            .any(|(name, _)| name == PULL_CREDENTIALS_DIR);
        command.envs(environment);
        if pulls {
            command.env(PULL_CREDENTIALS_DIR, self.pull_credentials());
        }
        // What a confidential VM has and a process on a laptop has not.
        command
            .env("CONTRAST_INSECURE_SOFTWARE_TEE", &surroundings.tee)
            .env(
                "CONTRAST_INSECURE_SOFTWARE_TEE_KIND",
                surroundings.kind.name(),
            )
            .env(
                "CONTRAST_INSECURE_INITDATA",
                directory.join("initdata.toml"),
            )
            .env("CONTRAST_BASE_DIR", &self.base)
            .env("CONTRAST_READY_FILE", self.base.join("mesh-ready"))
            .env("COORDINATOR_HOST", &surroundings.mesh_api);
        if let Some(envoy) = envoy() {
            command.env("CONTRAST_ENVOY_BINARY", envoy);
        }
        Process::start(name, command, &directory)
    }

    fn environment(&self, container: &Value) -> Result<Vec<(String, String)>> {
        let variables = container["env"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        variables
            .iter()
            .map(|variable| {
                let name = variable["name"]
                    .as_str()
                    .context("variable without a name")?;
                Ok((name.to_owned(), self.value(variable)?))
            })
            .collect()
    }

    fn value(&self, variable: &Value) -> Result<String> {
        if let Some(value) = variable["value"].as_str() {
            return Ok(value.to_owned());
        }
        match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("status.podIP") => Ok(self.address().to_string()),
            Some(path) => bail!("field {path} is not played by this harness"),
            None => Ok(String::new()),
        }
    }

    fn wait_until_ready(&self, container: &Value, name: &str, process: &mut Process) -> Result<()> {
        match name {
            INITIALIZER => {
                let chain = self.file("tls-config/certChain.pem");
                process.wait_until("its certificate", START_DEADLINE, |_| chain.exists())
            }
            SERVICE_MESH => {
                let ready = self.file("mesh-ready");
                process.wait_until("Envoy's readiness", START_DEADLINE, |_| ready.exists())
            }
            _ => {
                for port in ports(container) {
                    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
                    process.wait_until("its port", START_DEADLINE, |_| {
                        let connected = self.within(move || TcpStream::connect(address).is_ok());
                        connected.unwrap_or(false)
                    })?;
                }
                Ok(())
            }
        }
    }
}

/// Ports that a container declares.
fn ports(container: &Value) -> Vec<u16> {
    let ports = container["ports"].as_array().cloned().unwrap_or_default();
    let numbers = ports
        .iter()
        .filter_map(|port| port["containerPort"].as_u64());
    numbers
        .filter_map(|port| u16::try_from(port).ok())
        .collect()
}

impl Drop for Pod {
    fn drop(&mut self) {
        while self.containers.pop().is_some() {}
    }
}
