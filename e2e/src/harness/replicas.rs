use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::{Build, Cluster, Network, Process, cluster::COORDINATOR, dns::Dns, get};

const POLL: Duration = Duration::from_millis(20);
/// The kubelet restarts a container that ended, and waits longer each time; this is the first wait, shortened.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
const START_DEADLINE: Duration = Duration::from_secs(30);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
const USER_API: u16 = 1313;
const MESH_API: u16 = 7777;
const PEER_API: u16 = 7778;
const OPS: u16 = 9102;
/// Names of the chart in the namespace of the sample application.
const PEERS: &str = "coordinator-peers";
const NAMESPACE: &str = "votes.svc";
/// File of the document that a replica is started with.
const INITDATA: &str = "initdata.toml";

/// Coordinators as a StatefulSet would run them: each a real process in a network namespace of its own, with a disk that it keeps, and
/// restarted when it ends by itself. All of them have the same list of places.
#[derive(Debug)]
pub struct ReplicaSet {
    replicas: Vec<Replica>,
    places: Vec<String>,
    /// Where they find each other by name.
    _names: Option<Dns>,
    /// After the replicas: they end before their namespaces do.
    network: Network,
}

/// One place of a replica.
#[derive(Debug)]
struct Replica {
    seat: Arc<Seat>,
    supervisor: Option<JoinHandle<()>>,
}

/// What a replica and its supervisor share.
#[derive(Debug)]
struct Seat {
    name: String,
    directory: PathBuf,
    state: Mutex<State>,
    stop: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// Program with everything that is the same at each start.
    launch: Launch,
    wanted: bool,
    process: Option<Process>,
    starts: u32,
}

#[derive(Debug)]
struct Launch {
    namespace_command: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A copy of a replica's disk.
#[derive(Debug)]
pub struct Disk(tempfile::TempDir);

impl ReplicaSet {
    /// `count` replicas of the Coordinator of `cluster`, which must be generated; none is started. `environment` is added to that of
    /// each, for example `CONTRAST_CONFIRMATION_BOUND`. They know each other by their addresses.
    ///
    /// # Errors
    /// When the network cannot be made or the Coordinator's YAML is missing.
    pub fn create(cluster: &Cluster, count: usize, environment: &[(&str, &str)]) -> Result<Self> {
        let network = Network::create(count)?;
        let place = |node| format!("{}:{PEER_API}", network.address(node));
        let places: Vec<String> = (0..count).map(place).collect();
        let peers = places.join(",");
        Self::build(cluster, network, None, places, &peers, environment)
    }

    /// The same as the chart names them: `coordinator-N` of a headless service `coordinator-peers`, which has all of them also while
    /// they are not ready. Pods reach them.
    ///
    /// # Errors
    /// When the network cannot be made, its name server not be started, or the Coordinator's YAML is missing.
    pub fn create_as_in_chart(
        cluster: &Cluster,
        count: usize,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let mut network = Network::create(count)?;
        let names = cluster.serve_names(&network)?;
        let all = (0..count)
            .map(|node| network.address(node).into())
            .collect();
        cluster.lead(PEERS, all);
        for node in 0..count {
            let name = format!("{COORDINATOR}-{node}");
            cluster.lead(&name, vec![network.address(node).into()]);
            network.resolve_at(node, network.gateway())?;
        }
        cluster.join(&mut network)?;
        let place = |node| format!("{COORDINATOR}-{node}.{PEERS}.{NAMESPACE}:{PEER_API}");
        let places = (0..count).map(place).collect();
        let peers = format!("dns:{PEERS}.{NAMESPACE}:{PEER_API}");
        Self::build(cluster, network, Some(names), places, &peers, environment)
    }

    fn build(
        cluster: &Cluster,
        network: Network,
        names: Option<Dns>,
        places: Vec<String>,
        peers: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let spec = cluster
            .workloads()?
            .remove(COORDINATOR)
            .context("no coordinator in the YAML")?;
        let binary = cluster.build().program(COORDINATOR)?;
        let mut replicas = Vec::new();
        for (node, place) in places.iter().enumerate() {
            let name = format!("replica-{node}");
            let directory = cluster.directory().join(&name);
            fs::create_dir_all(directory.join("disk"))?;
            let initdata = directory.join(INITDATA);
            fs::write(&initdata, &spec.initdata)?;
            let path = |path: &Path| path.to_string_lossy().into_owned();
            let own = [
                ("RUST_BACKTRACE", "1".to_owned()),
                ("CONTRAST_USER_API_ADDRESS", format!("0.0.0.0:{USER_API}")),
                ("CONTRAST_MESH_API_ADDRESS", format!("0.0.0.0:{MESH_API}")),
                ("CONTRAST_PEER_API_ADDRESS", format!("0.0.0.0:{PEER_API}")),
                ("CONTRAST_OPS_ADDRESS", format!("0.0.0.0:{OPS}")),
                ("CONTRAST_PEERS", peers.to_owned()),
                ("CONTRAST_PEER_ADVERTISE_ADDRESS", place.clone()),
                ("CONTRAST_DATA_DIR", path(&directory.join("disk"))),
                ("CONTRAST_INSECURE_SOFTWARE_TEE", path(&cluster.tee())),
                (
                    "CONTRAST_INSECURE_SOFTWARE_TEE_KIND",
                    cluster.kind().name().to_owned(),
                ),
                ("CONTRAST_INSECURE_INITDATA", path(&initdata)),
            ];
            let own = own.map(|(name, value)| (name.to_owned(), value));
            let more = environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let launch = Launch {
                namespace_command: words(&network.command(node, &binary)),
                environment: own.into_iter().chain(more).collect(),
            };
            replicas.push(Replica::supervise(name, directory, launch));
        }
        Ok(Self {
            replicas,
            places,
            _names: names,
            network,
        })
    }

    /// How many places there are.
    pub fn count(&self) -> usize {
        self.replicas.len()
    }

    /// `HOST:PORT` of a replica's user API.
    pub fn user_api(&self, replica: usize) -> SocketAddr {
        (self.network.address(replica), USER_API).into()
    }

    /// `HOST:PORT` of a replica's mesh API.
    pub fn mesh_api(&self, replica: usize) -> SocketAddr {
        (self.network.address(replica), MESH_API).into()
    }

    /// `HOST:PORT` of a replica's peer API: its place.
    pub fn place(&self, replica: usize) -> String {
        self.places[replica].clone()
    }

    /// `HOST:PORT` of its probes and metrics.
    pub fn ops(&self, replica: usize) -> SocketAddr {
        (self.network.address(replica), OPS).into()
    }

    /// Its metrics, as they are exposed.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn metrics(&self, replica: usize) -> Result<String> {
        Ok(get(self.ops(replica), "/metrics", PROBE_TIMEOUT)?)
    }

    /// The user APIs of some replicas, for `--coordinator`.
    pub fn user_apis(&self, replicas: impl IntoIterator<Item = usize>) -> String {
        let addresses = replicas
            .into_iter()
            .map(|one| self.user_api(one).to_string());
        addresses.collect::<Vec<_>>().join(",")
    }

    /// The network between them.
    pub fn network(&mut self) -> &mut Network {
        &mut self.network
    }

    /// Starts a replica and waits until its user API listens.
    ///
    /// # Errors
    /// When it does not come up; the error shows what it logged.
    pub fn start(&self, replica: usize) -> Result<()> {
        self.seat(replica).lock().wanted = true;
        self.await_that("listens", replica, START_DEADLINE, || {
            let probe = TcpStream::connect_timeout(&self.user_api(replica), PROBE_TIMEOUT);
            Ok(probe.is_ok())
        })
    }

    /// Kills a replica with SIGKILL; its supervisor starts it again, as a kubelet would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash(&self, replica: usize) -> Result<()> {
        self.signal(replica, Signal::SIGKILL)
    }

    /// Asks a replica to end with SIGTERM; its supervisor starts it again when it has.
    ///
    /// # Errors
    /// When it does not run.
    pub fn restart(&self, replica: usize) -> Result<()> {
        self.signal(replica, Signal::SIGTERM)
    }

    /// Kills a replica with SIGKILL, for good.
    ///
    /// # Errors
    /// When it cannot be reaped.
    pub fn kill(&self, replica: usize) -> Result<()> {
        let mut state = self.seat(replica).lock();
        state.wanted = false;
        state
            .process
            .take()
            .map_or(Ok(()), |mut process| process.kill())
    }

    /// Ends a replica with SIGTERM, for good, as when a StatefulSet is scaled down.
    ///
    /// # Errors
    /// When it does not end within `deadline`.
    pub fn stop(&self, replica: usize, deadline: Duration) -> Result<()> {
        let process = {
            let mut state = self.seat(replica).lock();
            state.wanted = false;
            state.process.take()
        };
        let Some(mut process) = process else {
            return Ok(());
        };
        process.signal(Signal::SIGTERM)?;
        process.wait(deadline).map(drop)
    }

    /// Replaces the program of a replica that does not run, and the initdata document that it is started with, as when a StatefulSet gets another
    /// image. Its disk and its place stay.
    ///
    /// # Errors
    /// When it runs, or the program was not built.
    pub fn install(&self, replica: usize, build: &Build, initdata: &[u8]) -> Result<()> {
        self.require_stopped(replica)?;
        let binary = build.program(COORDINATOR)?;
        let seat = self.seat(replica);
        fs::write(seat.directory.join(INITDATA), initdata)?;
        seat.lock().launch.namespace_command = words(&self.network.command(replica, &binary));
        Ok(())
    }

    /// Sends a signal: SIGSTOP and SIGCONT make a slow machine.
    ///
    /// # Errors
    /// When the replica does not run.
    pub fn signal(&self, replica: usize, signal: Signal) -> Result<()> {
        let state = self.seat(replica).lock();
        let process = state.process.as_ref();
        process
            .with_context(|| format!("replica {replica} does not run"))?
            .signal(signal)
    }

    /// How often a replica was started.
    pub fn starts(&self, replica: usize) -> u32 {
        self.seat(replica).lock().starts
    }

    /// What a replica logged, over all its starts.
    pub fn log(&self, replica: usize) -> String {
        let seat = self.seat(replica);
        let path = seat.directory.join(format!("{}.log", seat.name));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Whether the readiness probe of a replica succeeds; false also when nobody answers.
    pub fn is_ready(&self, replica: usize) -> bool {
        let answer = get(self.ops(replica), "/probe/readiness", PROBE_TIMEOUT).unwrap_or_default();
        answer.starts_with("HTTP/1.1 200")
    }

    /// Waits until the readiness probe of a replica succeeds.
    ///
    /// # Errors
    /// When `deadline` passes; the error shows what it logged.
    pub fn await_ready(&self, replica: usize, deadline: Duration) -> Result<()> {
        self.await_that("is ready", replica, deadline, || Ok(self.is_ready(replica)))
    }

    /// Copies the disk of a replica that does not run.
    ///
    /// # Errors
    /// When it runs, or files cannot be copied.
    pub fn save_disk(&self, replica: usize) -> Result<Disk> {
        self.require_stopped(replica)?;
        let copy = tempfile::tempdir()?;
        copy_files(&self.seat(replica).disk(), copy.path())?;
        Ok(Disk(copy))
    }

    /// Replaces the disk of a replica that does not run, with its own old one or that of another place.
    ///
    /// # Errors
    /// When it runs, or files cannot be copied.
    pub fn put_disk(&self, replica: usize, disk: &Disk) -> Result<()> {
        self.lose_disk(replica)?;
        copy_files(disk.0.path(), &self.seat(replica).disk())
    }

    /// Empties the disk of a replica that does not run.
    ///
    /// # Errors
    /// When it runs, or files cannot be removed.
    pub fn lose_disk(&self, replica: usize) -> Result<()> {
        self.require_stopped(replica)?;
        let disk = self.seat(replica).disk();
        fs::remove_dir_all(&disk)?;
        Ok(fs::create_dir(&disk)?)
    }

    fn require_stopped(&self, replica: usize) -> Result<()> {
        let state = self.seat(replica).lock();
        ensure!(
            !state.wanted && state.process.is_none(),
            "replica {replica} still runs"
        );
        Ok(())
    }

    fn seat(&self, replica: usize) -> &Seat {
        &self.replicas[replica].seat
    }

    fn await_that(
        &self,
        what: &str,
        replica: usize,
        deadline: Duration,
        condition: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !condition()? {
            if start.elapsed() > deadline {
                let log = self.log(replica);
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines
                    .get(lines.len().saturating_sub(20)..)
                    .unwrap_or_default();
                bail!(
                    "still waiting after {deadline:?} until replica {replica} {what}\n{}",
                    tail.join("\n")
                );
            }
            sleep(POLL);
        }
        Ok(())
    }
}

impl Replica {
    fn supervise(name: String, directory: PathBuf, launch: Launch) -> Self {
        let seat = Arc::new(Seat {
            name,
            directory,
            state: Mutex::new(State {
                launch,
                wanted: false,
                process: None,
                starts: 0,
            }),
            stop: AtomicBool::new(false),
        });
        let supervisor = spawn({
            let seat = Arc::clone(&seat);
            move || seat.supervise()
        });
        Self {
            seat,
            supervisor: Some(supervisor),
        }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.seat.stop.store(true, Ordering::Relaxed);
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
        // At once: nobody needs a graceful end any more, and a stopped process would not come to one.
        if let Some(mut process) = self.seat.lock().process.take() {
            let _ = process.kill();
        }
    }
}

impl Seat {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// Starts what is wanted and does not run.
    fn supervise(&self) {
        let mut earliest = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            sleep(POLL);
            let mut state = self.lock();
            if state.process.as_mut().is_some_and(Process::has_ended) {
                state.process = None;
                earliest = Instant::now() + RESTART_PAUSE;
            }
            if state.wanted && state.process.is_none() && Instant::now() >= earliest {
                state.starts += 1;
                // A failure shows in that the process never listens; the next try comes after the pause.
                state.process = self.start(&state.launch).ok();
                earliest = Instant::now() + RESTART_PAUSE;
            }
        }
    }

    fn start(&self, launch: &Launch) -> Result<Process> {
        let words = &launch.namespace_command;
        let (first, others) = words.split_first().context("no command")?;
        let mut command = Command::new(first);
        // `ip` is found by the path of the harness; the Coordinator needs none.
        command
            .args(others)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(launch.environment.iter().map(|(name, value)| (name, value)));
        Process::start(&self.name, command, &self.directory)
    }
}

/// A command as words.
fn words(command: &Command) -> Vec<String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().context("file without a name")?;
        fs::copy(&path, to.join(name))?;
    }
    Ok(())
}
