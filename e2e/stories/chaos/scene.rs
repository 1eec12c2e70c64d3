//! The deployment, as the chart lays it out.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread::sleep,
    time::Duration,
};

use contrast_attestation::software::SoftwareTee;
use contrast_e2e::{
    harness::{Cluster, MeshClient, Output, Process, ReplicaSet, Site, envoy, program},
    load::{Deployment, Watch},
};
use serde_json::Value;

use crate::{
    board::Board,
    ledger::Ledger,
    mesh::{Used, browse},
    owner::Person,
    probe::{Asked, Worker, ask, lead_to_ready},
    strangers::Strangers,
    workload::{Workload, await_all, is_valid_under},
};

pub(crate) const REPLICAS: usize = 3;
/// Beside the four of the sample application.
const OTHERS: usize = 16;
/// Asks for certificates all the time, and is no process.
const ASKING: &str = "asking";
/// As in the tests of single faults: the default of 10 s would make everything take longer.
const BOUND: &str = "3";
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Scene {
    using: Option<Worker<Used>>,
    asking: Option<Worker<Asked>>,
    setting: Option<Worker<()>>,
    pub(crate) board: Board,
    pub(crate) strangers: Strangers,
    pub(crate) owner: Person,
    pub(crate) watch: Watch,
    pub(crate) workloads: Vec<Workload>,
    forwarder: Forwarder,
    _endpoints: Worker<()>,
    pub(crate) replicas: ReplicaSet,
    pub(crate) cluster: Arc<Cluster>,
    directory: tempfile::TempDir,
}

/// The pod that `kubectl port-forward` reaches.
struct Forwarder {
    namespace: String,
    _process: Process,
}

/// What there is to judge when nothing happens any more.
pub(crate) struct Calm {
    /// As the dashboard shows it.
    pub(crate) state: Value,
    pub(crate) asked: Asked,
    pub(crate) used: Option<Used>,
}

/// Deployments of their own, so that each has a policy.
fn write_more_workloads(resources: &Path) {
    let names = (1..=OTHERS).map(|number| format!("worker-{number:02}"));
    let names = names.chain([ASKING.to_owned()]);
    let texts = names.map(|name| {
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  namespace: votes
spec:
  replicas: 1
  selector:
    matchLabels:
      app: {name}
  template:
    metadata:
      labels:
        app: {name}
    spec:
      runtimeClassName: contrast-cc
      containers:
        - name: worker
          image: registry.example.com/votes/worker:1.0@sha256:5d3f4c0c2c5a4c6d8e0f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f
          command: [\"/bin/worker\"]
          args: [\"--name\", \"{name}\"]
          resources:
            limits:
              memory: 50Mi
"
        )
    });
    let text = texts.collect::<Vec<_>>().join("---\n");
    fs::write(resources.join("workers.yml"), text).expect("writes");
}

impl Scene {
    pub(crate) fn begin(seed: u64, ledger: &Ledger) -> Self {
        let mut directory = tempfile::tempdir().expect("directory");
        // A story that fails leaves what everybody logged.
        directory.disable_cleanup(true);
        let cluster = Cluster::create(directory.path(), 62).expect("cluster");
        let cluster = cluster.in_namespaces().expect("namespaces");
        let owner = cluster.owner();
        write_more_workloads(&owner.file("resources"));
        cluster.generate().expect("generates");
        let environment = [("CONTRAST_CONFIRMATION_BOUND", BOUND)];
        let replicas = ReplicaSet::create_as_in_chart(&cluster, REPLICAS, &environment);
        let replicas = replicas.expect("replicas");
        for replica in 0..REPLICAS {
            replicas.start(replica).expect("starts");
        }
        let cluster = Arc::new(cluster);
        let addresses: Vec<(IpAddr, SocketAddr)> = (0..REPLICAS)
            .map(|replica| (replicas.ops(replica).ip(), replicas.ops(replica)))
            .collect();
        // Its service has all of them: owners need those that are not ready, too.
        let all = addresses.iter().map(|(address, _)| *address).collect();
        cluster.lead("coordinator", all);
        let (endpoints, ready) = lead_to_ready(Arc::clone(&cluster), addresses);
        let everywhere = replicas.user_apis(0..REPLICAS);
        let person = Person::new(Arc::clone(&cluster), everywhere.clone(), ledger.clone());
        person.set();
        for replica in 0..REPLICAS {
            replicas.await_ready(replica, DEADLINE).expect("ready");
        }
        let specs = cluster.workloads().expect("workloads");
        let mut deployment = Deployment::of(&cluster, &replicas).expect("deployment");
        let tee = SoftwareTee::open(&cluster.tee()).expect("the software TEE");
        let asking = specs[ASKING].policy_hash();
        let mut bytes = [0; 32];
        hex::decode_to_slice(&asking, &mut bytes).expect("a hash");
        deployment.workload = Arc::new(tee.snp_guest(contrast_attestation::PolicyHash(bytes)));
        let places = (0..REPLICAS).map(|one| replicas.place(one)).collect();
        let watch = Watch::new(&deployment, places).expect("watch");
        let mut workloads: Vec<Workload> = (1..=OTHERS)
            .map(|number| Workload::alone(&cluster, &specs[&format!("worker-{number:02}")]))
            .collect();
        for name in ["store", "votes", "api", "web"] {
            workloads.push(Workload::whole(&cluster, &specs[name]));
        }
        await_all(&mut workloads, ledger, DEADLINE, "a certificate", |one| {
            !one.is_joining()
        });
        let web = workloads.last().expect("web");
        let root = web.pod().file("tls-config/coordinator-root-ca.pem");
        let using = envoy().map(|_| {
            let client = MeshClient::anonymous(&root).expect("a client");
            browse(client, (web.pod().address(), 8080).into(), ledger.clone())
        });
        Self {
            using,
            asking: Some(ask(deployment.clone(), asking, ready, ledger.clone())),
            setting: Some(person.keep_changing(seed)),
            board: Board::start(
                owner_workspace(&cluster),
                directory.path(),
                &everywhere,
                ledger,
            ),
            strangers: Strangers::new(deployment, tee, seed),
            owner: person,
            watch,
            workloads,
            forwarder: Forwarder::start(&cluster),
            _endpoints: endpoints,
            replicas,
            cluster,
            directory,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Whether all replicas vote and are ready, so that one of them may fail.
    pub(crate) fn is_whole(&mut self) -> bool {
        let all: Vec<usize> = (0..REPLICAS).collect();
        all.iter().all(|replica| self.replicas.is_ready(*replica)) && self.watch.has_voters(&all)
    }

    /// Lets everything come to rest: the last manifest, by the port forwarder, and a certificate of its CA for everybody. Then nobody asks any
    /// more.
    pub(crate) fn calm_down(&mut self, ledger: &Ledger) -> Calm {
        ledger.happened("calms down");
        if let Some(setting) = self.setting.take() {
            setting.finish();
        }
        let arguments = [
            "set",
            "-c",
            "127.0.0.1:1313",
            "--format",
            "json",
            "resources",
        ];
        let forwarder = &self.forwarder;
        self.owner
            .set_by(|cluster| forwarder.contrast(cluster, &arguments));
        let last = ledger.note(|facts| facts.sets.last().cloned());
        ledger.require(last.is_some_and(|set| set.transition.is_some()), || {
            "the last manifest is not set".to_owned()
        });
        let mesh_ca = self.cluster.owner().file("mesh-ca.pem");
        await_all(
            &mut self.workloads,
            ledger,
            DEADLINE,
            "a certificate that is valid under the current mesh CA",
            |one| {
                one.chain()
                    .is_some_and(|chain| is_valid_under(&chain, &mesh_ca))
            },
        );
        // Now that nothing fails, each of them is told.
        self.strangers.attempt_all(ledger);
        let everywhere = self.replicas.user_apis(0..REPLICAS);
        let verified = self
            .cluster
            .owner()
            .contrast(&["verify", "-c", &everywhere]);
        ledger.require(verified.is_ok(), || format!("{verified:?}"));
        let status = forwarder.contrast(&self.cluster, &["status", "-c", "127.0.0.1:1313"]);
        ledger.require(status.code == 0, || {
            format!("by the port forwarder: {status:?}")
        });
        // Two questions of the user.
        sleep(Duration::from_secs(1));
        let used = self.using.take().map(Worker::finish);
        let asked = self.asking.take().map(Worker::finish);
        for workload in &mut self.workloads {
            workload.kill(ledger);
        }
        // Until the last lines are written and the last changes noticed.
        sleep(Duration::from_secs(1));
        Calm {
            state: self.board.now(),
            asked: asked.unwrap_or_default(),
            used,
        }
    }

    /// Ends everything and returns the directory of all files.
    pub(crate) fn end(self) -> tempfile::TempDir {
        let mut directory = self.directory;
        let keep = std::env::var_os("CONTRAST_KEEP_STORIES").is_some();
        directory.disable_cleanup(keep);
        directory
    }
}

fn owner_workspace(cluster: &Cluster) -> &Path {
    cluster.owner().workspace()
}

impl Forwarder {
    fn start(cluster: &Cluster) -> Self {
        let spec = &cluster.workloads().expect("workloads")["web"];
        let Site::Namespace { name, .. } = cluster.site(spec).expect("a place") else {
            panic!("the pods are namespaces");
        };
        let mut command = inside(&name, program("port-forwarder").expect("built"));
        command.env(
            "CONTRAST_FORWARD",
            "1313=coordinator.votes.svc:1313,1314=coordinator.votes.svc:1314",
        );
        let process = Process::start("port-forwarder", command, cluster.directory());
        Self {
            namespace: name,
            _process: process.expect("starts"),
        }
    }

    /// Runs `contrast` where `kubectl port-forward` would listen.
    fn contrast(&self, cluster: &Cluster, arguments: &[&str]) -> Output {
        let mut command = inside(&self.namespace, program("contrast").expect("built"));
        command
            .args(arguments)
            .current_dir(cluster.owner().workspace());
        let output = command.output().expect("starts");
        Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

fn inside(namespace: &str, program: PathBuf) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}
