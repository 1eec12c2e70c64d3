use std::{
    collections::BTreeMap,
    fmt::Display,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    Build, Network, Owner, Pod, PodSpec, Process, Site,
    dns::{Dns, Names},
    pod::{INITIALIZER, Surroundings},
    program,
};

const START_DEADLINE: Duration = Duration::from_secs(20);
const ENROL_DEADLINE: Duration = Duration::from_secs(30);
/// Name of the Coordinator's workload in the sample application.
pub(super) const COORDINATOR: &str = "coordinator";
const DNS_PORT: u16 = 53;
/// The sample application's services, each a workload of the same name.
const SERVICES: [&str; 4] = ["web", "api", "votes", "store"];

/// The formats of evidence that a software TEE can issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum TeeKind {
    /// AMD SEV-SNP.
    #[default]
    Snp,
    /// Intel TDX.
    Tdx,
}

impl TeeKind {
    /// Value of `CONTRAST_INSECURE_SOFTWARE_TEE_KIND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
        }
    }

    /// Field of the evidence that holds the policy hash.
    pub fn policy_field(self) -> &'static str {
        match self {
            Self::Snp => "HOSTDATA",
            Self::Tdx => "MRCONFIGID",
        }
    }

    fn platform(self) -> &'static str {
        match self {
            Self::Snp => "insecure-snp",
            Self::Tdx => "insecure-tdx",
        }
    }
}

/// A deployment of the sample application on this machine.
///
/// Without namespaces, every cluster has an address range of its own in 127.77.0.0/16, so that tests can run side by side; the
/// application's own loopback ports are the same in each, so only one such cluster at a time can run the application.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    number: u8,
    kind: TeeKind,
    owner: Owner,
    dns: Dns,
    /// Where pods are namespaces.
    network: Option<Mutex<Network>>,
    /// What pods run.
    build: Build,
}

/// The Coordinator's pod.
#[derive(Debug)]
pub struct CoordinatorPod {
    process: Process,
    /// User API.
    pub user_api: SocketAddr,
    /// Mesh API.
    pub mesh_api: SocketAddr,
    /// Attest API.
    pub attest_api: SocketAddr,
    /// Transit engine.
    pub transit_api: SocketAddr,
    /// Probes and metrics.
    pub ops: SocketAddr,
}

impl Cluster {
    /// A cluster whose files lie in `directory`: a software TEE and a workspace with the sample application's YAML.
    ///
    /// # Errors
    /// When files cannot be written or the software TEE cannot be made.
    pub fn create(directory: &Path, number: u8) -> Result<Self> {
        let workspace = directory.join("workspace");
        fs::create_dir_all(&workspace)?;
        fs::create_dir_all(directory.join("pods"))?;
        // Envoy may run as a user of its own, who passes through on the way to its files.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o711))?;
        let owner = Owner::with_sample_application(&workspace)?;
        let names = SERVICES.map(|name| (name.to_owned(), vec![address(number, name).into()]));
        let dns = Dns::start(address(number, "dns"), 0, Names::from(names))?;
        Ok(Self {
            directory: directory.to_owned(),
            number,
            kind: TeeKind::default(),
            owner,
            dns,
            network: None,
            build: Build::this()?,
        })
    }

    /// The same cluster, whose pods are network namespaces with all their traffic redirected into the mesh. To be called before
    /// anything is started.
    ///
    /// # Errors
    /// When there can be no such network; [`super::no_network_because`] says why.
    pub fn in_namespaces(mut self) -> Result<Self> {
        let network = Network::create(0)?;
        // A service has the addresses of its pods, from when they are ready.
        self.dns = Dns::start(network.gateway(), DNS_PORT, Names::new())?;
        self.network = Some(Mutex::new(network));
        Ok(self)
    }

    /// Whether its pods are network namespaces.
    pub fn has_namespaces(&self) -> bool {
        self.network.is_some()
    }

    /// Lets its pods reach the nodes of another network.
    ///
    /// # Errors
    /// When links or routes cannot be made.
    pub fn join(&self, other: &mut Network) -> Result<()> {
        self.with_network(|network| network.join(other))
            .transpose()
            .map(drop)
    }

    /// Runs `work` with the network of its pods, if they are namespaces.
    pub fn with_network<T>(&self, work: impl FnOnce(&mut Network) -> T) -> Option<T> {
        let network = self.network.as_ref()?;
        Some(work(
            &mut network.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// Leads clients of the service `name` to `pods`.
    pub fn serve(&self, name: &str, pods: &[&Pod]) {
        let addresses = pods.iter().flat_map(|pod| pod.addresses().to_vec());
        self.lead(name, addresses.collect());
    }

    /// Says from now on that `name` has these addresses.
    pub fn lead(&self, name: &str, addresses: Vec<IpAddr>) {
        self.dns.set(name, addresses);
    }

    /// Answers for its names to the nodes of another network, too, until that is dropped.
    pub(super) fn serve_names(&self, network: &Network) -> Result<Dns> {
        self.dns.also_at(network.gateway(), DNS_PORT)
    }

    /// The same cluster on machines of another kind. To be called before anything is generated or started.
    #[must_use]
    pub fn on(mut self, kind: TeeKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same cluster, with the programs of another build. To be called before anything is generated or started.
    #[must_use]
    pub fn of(mut self, build: &Build) -> Self {
        self.owner = self.owner.of(build);
        self.build = build.clone();
        self
    }

    /// From now on pods run the Initializer and the service mesh of `build`. What runs already goes on.
    pub fn run_pods_of(&mut self, build: &Build) {
        self.build = build.clone();
    }

    /// The programs that pods run.
    pub(super) fn build(&self) -> &Build {
        &self.build
    }

    /// The evidence that its machines issue.
    pub fn kind(&self) -> TeeKind {
        self.kind
    }

    /// The owner's laptop.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Directory of all its files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Directory of the software TEE.
    pub fn tee(&self) -> PathBuf {
        self.directory.join("tee")
    }

    /// Makes the software TEE and generates manifest and policies.
    ///
    /// # Errors
    /// When `contrast` fails.
    pub fn generate(&self) -> Result<()> {
        let tee = self.tee();
        let tee = tee.to_str().context("path is not UTF-8")?;
        self.owner.contrast(&["insecure-tee", "init", tee])?;
        self.owner.contrast(&[
            "generate",
            "--offline",
            "--reference-values",
            self.kind.platform(),
            "--insecure-software-tee",
            tee,
            "resources",
        ])?;
        Ok(())
    }

    /// The generated workloads by name, the Coordinator included.
    ///
    /// # Errors
    /// When the YAML cannot be read.
    pub fn workloads(&self) -> Result<BTreeMap<String, PodSpec>> {
        PodSpec::read_all(&self.owner.file("resources"))
    }

    /// Starts the Coordinator, or starts it again on the disk of the one before.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_coordinator(&self) -> Result<CoordinatorPod> {
        self.start_coordinator_with(&[])
    }

    /// The same with further environment variables.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_coordinator_with(&self, variables: &[(&str, &str)]) -> Result<CoordinatorPod> {
        let directory = self.directory.join("pods").join(COORDINATOR);
        let data = directory.join("state");
        fs::create_dir_all(&data)?;
        let spec = self
            .workloads()?
            .remove(COORDINATOR)
            .context("no coordinator in the YAML")?;
        fs::write(directory.join("initdata.toml"), &spec.initdata)?;
        let addresses = directory.join("addresses.json");
        let _ = fs::remove_file(&addresses);
        let address = self
            .with_network(|network| network.gateway())
            .unwrap_or_else(|| self.address(COORDINATOR));
        let mut command = Command::new(program(COORDINATOR)?);
        command
            .env_clear()
            .env("RUST_BACKTRACE", "1")
            .env("CONTRAST_USER_API_ADDRESS", format!("{address}:0"))
            .env("CONTRAST_MESH_API_ADDRESS", format!("{address}:0"))
            .env("CONTRAST_ATTEST_API_ADDRESS", format!("{address}:0"))
            .env("CONTRAST_TRANSIT_API_ADDRESS", format!("{address}:0"))
            .env("CONTRAST_OPS_ADDRESS", format!("{address}:0"))
            .env("CONTRAST_DATA_DIR", &data)
            .env("CONTRAST_ADDRESS_FILE", &addresses)
            .env("CONTRAST_INSECURE_SOFTWARE_TEE", self.tee())
            .env("CONTRAST_INSECURE_SOFTWARE_TEE_KIND", self.kind.name())
            .env(
                "CONTRAST_INSECURE_INITDATA",
                directory.join("initdata.toml"),
            )
            .envs(variables.iter().copied());
        let mut process = Process::start(COORDINATOR, command, &directory)?;
        process.wait_until("its ports", START_DEADLINE, |_| addresses.exists())?;
        let bound: Value = serde_json::from_str(&fs::read_to_string(&addresses)?)?;
        let bound = |api: &str| -> Result<SocketAddr> {
            let text = bound[api]
                .as_str()
                .with_context(|| format!("no address of {api}"))?;
            Ok(text.parse()?)
        };
        Ok(CoordinatorPod {
            user_api: bound("user_api")?,
            mesh_api: bound("mesh_api")?,
            transit_api: bound("transit_api")?,
            attest_api: bound("attest_api")?,
            ops: bound("ops")?,
            process,
        })
    }

    /// Starts the pod of one workload.
    ///
    /// # Errors
    /// When a container does not become ready.
    pub fn start_pod(&self, spec: &PodSpec, coordinator: &CoordinatorPod) -> Result<Pod> {
        self.start_pod_at(spec, coordinator.mesh_api)
    }

    /// Starts the pod of one workload, whose Coordinator is the one at `mesh_api`.
    ///
    /// # Errors
    /// When a container does not become ready.
    pub fn start_pod_at(&self, spec: &PodSpec, mesh_api: impl Display) -> Result<Pod> {
        let pod = Pod::start(spec, self.site(spec)?, &self.surroundings(&mesh_api))?;
        if self.has_namespaces() && spec.is_first() {
            self.serve(&spec.name, &[&pod]);
        }
        Ok(pod)
    }

    /// Starts only the Initializer of a pod, as `name`, and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_initializer(&self, spec: &PodSpec, coordinator: &CoordinatorPod) -> Result<Pod> {
        self.start_initializer_at(spec, coordinator.mesh_api)
    }

    /// The same for the Coordinator at `mesh_api`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_initializer_at(&self, spec: &PodSpec, mesh_api: impl Display) -> Result<Pod> {
        self.start_initializer_in(spec, self.site(spec)?, mesh_api)
    }

    /// The same at a place where a pod was before, whose files are gone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_initializer_in(
        &self,
        spec: &PodSpec,
        site: Site,
        mesh_api: impl Display,
    ) -> Result<Pod> {
        Pod::start_initializer(spec, site, &self.surroundings(&mesh_api))
    }

    /// Starts the container `name` of a pod again, which has ended, with the files of the one before.
    ///
    /// # Errors
    /// When it still runs or cannot be started.
    pub fn restart_container(
        &self,
        pod: &mut Pod,
        spec: &PodSpec,
        name: &str,
        mesh_api: impl Display,
    ) -> Result<()> {
        pod.restart(spec, name, &self.surroundings(&mesh_api))
    }

    /// Starts only the Initializer of a pod, at the Coordinator at `mesh_api`, and waits until it has its certificate.
    ///
    /// # Errors
    /// When it cannot be started or does not enrol.
    pub fn enrol(&self, spec: &PodSpec, mesh_api: impl Display) -> Result<Pod> {
        let mut pod = self.start_initializer_at(spec, mesh_api)?;
        let chain = pod.file("tls-config/certChain.pem");
        let initializer = pod.container(INITIALIZER)?;
        initializer.wait_until("its certificate", ENROL_DEADLINE, |_| chain.exists())?;
        Ok(pod)
    }

    /// A place for one more pod.
    ///
    /// # Errors
    /// When there are too many, or a namespace cannot be made.
    pub fn site(&self, spec: &PodSpec) -> Result<Site> {
        let namespace = self.with_network(|network| {
            let node = network.add()?;
            network.resolve_at(node, network.gateway())?;
            Ok(Site::Namespace {
                name: network.node(node),
                addresses: network.addresses(node),
            })
        });
        namespace.unwrap_or_else(|| Ok(Site::Loopback(self.address(&spec.name))))
    }

    fn surroundings(&self, mesh_api: &dyn Display) -> Surroundings {
        Surroundings {
            directory: self.directory.join("pods"),
            tee: self.tee(),
            kind: self.kind,
            mesh_api: mesh_api.to_string(),
            dns: self.dns.address(),
            build: self.build.clone(),
        }
    }

    fn address(&self, workload: &str) -> Ipv4Addr {
        address(self.number, workload)
    }
}

/// Every workload has the same last byte in every cluster.
fn address(cluster: u8, workload: &str) -> Ipv4Addr {
    let known = [COORDINATOR, "dns"].into_iter().chain(SERVICES);
    let last = known
        .zip(10..)
        .find(|(name, _)| *name == workload)
        .map_or(99, |(_, last)| last);
    Ipv4Addr::new(127, 77, cluster, last)
}

impl CoordinatorPod {
    /// Ends the Coordinator at once, as a crash would.
    ///
    /// # Errors
    /// When it cannot be reaped.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()
    }

    /// `HOST:PORT` of the user API, for the command line.
    pub fn user_api(&self) -> String {
        self.user_api.to_string()
    }

    /// The running program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.output()
    }
}
