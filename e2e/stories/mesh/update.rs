//! An owner sets another manifest, which brings another mesh CA, and restarts pod after pod, while a client asks a hundred times a second.

use std::{
    fs,
    io::BufRead as _,
    net::IpAddr,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use axum::http::Method;
use contrast_e2e::{
    application::http,
    harness::{Cluster, CoordinatorPod, Pod, envoy, no_network_because},
};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::scene::turn;

const PERIOD: Duration = Duration::from_millis(10);
/// `MeshCAOverlap` of the manifest.
const OVERLAP: Duration = Duration::from_secs(16);
const DEADLINE: Duration = Duration::from_secs(40);
/// The client asks often enough that nobody who knows a pod leaves it alone for so long.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// What the client saw.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    errors: Mutex<Vec<String>>,
    stop: AtomicBool,
}

struct Client {
    seen: Arc<Seen>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Client {
    /// Asks the API as the program of `pod` does, with a new connection each time. Whatever the address, the port leads into the mesh.
    fn start(pod: &Pod, api: IpAddr) -> Self {
        let seen = Arc::new(Seen::default());
        let url = format!("http://{api}:8081/results");
        let client = {
            let seen = Arc::clone(&seen);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("runtime");
                runtime.block_on(ask_all_the_time(url, seen));
            }
        };
        Self {
            seen,
            thread: pod.spawn(client).expect("thread"),
        }
    }

    fn goes_on(&self, phase: &str) {
        let errors = self.seen.errors.lock();
        let errors = errors.unwrap_or_else(PoisonError::into_inner).clone();
        assert!(
            errors.is_empty(),
            "{phase}: {} errors: {errors:?}",
            errors.len()
        );
        let answers = self.seen.answers.load(Ordering::Relaxed);
        eprintln!("{phase}: {answers} answers, no error");
    }

    fn end(self) -> u64 {
        self.seen.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("client").expect("namespace");
        self.seen.answers.load(Ordering::Relaxed)
    }
}

async fn ask_all_the_time(url: String, seen: Arc<Seen>) {
    let mut requests = JoinSet::new();
    let mut ticks = tokio::time::interval(PERIOD);
    while !seen.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let (url, seen) = (url.clone(), Arc::clone(&seen));
        requests.spawn(async move {
            match http::call(Method::GET, &url).await {
                Ok(_) => {
                    seen.answers.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    let mut errors = seen.errors.lock().unwrap_or_else(PoisonError::into_inner);
                    errors.push(format!("{error:#}"));
                }
            }
        });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}

/// Sets the manifest after `change`.
pub(crate) fn set(
    cluster: &Cluster,
    coordinator: &CoordinatorPod,
    change: impl FnOnce(&mut Value),
) {
    let path = cluster.owner().file("manifest.json");
    let text = fs::read_to_string(&path).expect("manifest");
    let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
    change(&mut manifest);
    let text = serde_json::to_string_pretty(&manifest).expect("JSON");
    fs::write(&path, text).expect("writes");
    let address = coordinator.user_api();
    let arguments = ["set", "-c", &address, "resources"];
    cluster.owner().contrast(&arguments).expect("sets");
}

/// Certificate of the pod, and how many CAs it trusts.
pub(crate) fn files(pod: &Pod) -> (String, usize) {
    let chain = fs::read_to_string(pod.file("tls-config/certChain.pem")).expect("chain");
    let trusted = fs::read_to_string(pod.file("tls-config/mesh-ca.pem")).expect("bundle");
    (chain, trusted.matches("BEGIN CERTIFICATE").count())
}

fn await_all(pods: &[&Pod], what: &str, condition: impl Fn(usize, &Pod) -> bool) {
    let start = Instant::now();
    while !pods
        .iter()
        .enumerate()
        .all(|(index, pod)| condition(index, pod))
    {
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// Of the clients of a pod.
#[derive(Debug, PartialEq, Eq)]
struct Connections {
    /// That are established now.
    open: usize,
    /// All that the pod ever accepted, on any port.
    accepted: u64,
}

fn connections(pod: &Pod, port: &'static str) -> Connections {
    let look = move || {
        let sockets = Command::new("ss")
            .args(["-Htn", "state", "established", "sport", "=", port])
            .output()
            .expect("ss runs");
        assert!(sockets.status.success(), "{sockets:?}");
        // Names in one line, values in the next (proc(5)).
        let counters = fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
        let mut tcp = counters.lines().filter(|line| line.starts_with("Tcp:"));
        let names = tcp.next().expect("names").split(' ');
        let values = tcp.next().expect("values").split(' ');
        let mut both = names.zip(values);
        let accepted = both.find(|(name, _)| *name == "PassiveOpens");
        Connections {
            open: sockets.stdout.lines().count(),
            accepted: accepted.expect("counter").1.parse().expect("a number"),
        }
    };
    pod.within(look).expect("namespace")
}

#[test]
fn manifest_update_and_rolling_restart_cost_a_client_no_error() {
    let _turn = turn();
    let missing = envoy().is_none().then(|| "there is no Envoy".to_owned());
    if let Some(reason) = no_network_because().or(missing) {
        eprintln!("manifest update: skipped, because {reason}");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 33).expect("cluster");
    let cluster = cluster.in_namespaces().expect("network");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator().expect("starts");
    set(&cluster, &coordinator, |manifest| {
        manifest["MeshCAOverlap"] = format!("{}s", OVERLAP.as_secs()).into();
    });
    let workloads = cluster.workloads().expect("workloads");
    let start = |name: &str| {
        let pod = cluster.start_pod(&workloads[name], &coordinator);
        pod.expect("starts")
    };
    let (store, api, web) = (start("store"), start("api"), start("web"));
    let client = Client::start(&web, api.address());
    sleep(Duration::from_secs(2));
    client.goes_on("before");

    let pods = [&store, &api, &web];
    let before = pods.map(files);
    assert_eq!(before.each_ref().map(|(_, trusted)| *trusted), [1, 1, 1]);
    set(&cluster, &coordinator, |manifest| {
        let policies = manifest["Policies"].as_object_mut().expect("policies");
        for policy in policies.values_mut() {
            let names = policy["SANs"].as_array_mut().expect("names");
            names.push("added-by-the-update".into());
        }
    });
    await_all(&pods, "both CAs are trusted", |_, pod| files(pod).1 == 2);
    await_all(&pods, "new certificates", |index, pod| {
        files(pod).0 != before[index].0
    });
    client.goes_on("certificates of the new mesh CA");
    // What the sidecar's metrics tell.
    for pod in pods {
        let report = fs::read_to_string(pod.file("enrolment")).expect("report");
        let mut lines = report.lines();
        let count = lines
            .next()
            .and_then(|line| line.strip_prefix("enrolments "));
        let count: u64 = count.and_then(|count| count.parse().ok()).expect("a count");
        assert!(
            count >= 2 && lines.any(|line| line == "failing 0"),
            "{report}"
        );
    }

    let mut replaced = Vec::new();
    for (name, port, old) in [("store", "6379", store), ("api", "8081", api)] {
        let spec = workloads[name].replica(&format!("{name}-new"));
        let new = cluster.start_pod(&spec, &coordinator).expect("starts");
        cluster.serve(name, &[&new]);
        await_all(&[&old], "nobody uses the old pod", |_, pod| {
            let before = connections(pod, port);
            sleep(LEFT_ALONE);
            before.open == 0 && before == connections(pod, port)
        });
        drop(old);
        client.goes_on(&format!("{name} was restarted"));
        replaced.push(new);
    }
    await_all(
        &[&web, &replaced[0], &replaced[1]],
        "one CA is left",
        |_, pod| files(pod).1 == 1,
    );
    sleep(Duration::from_secs(1));
    client.goes_on("the old mesh CA is not trusted any more");
    let answers = client.end();
    assert!(
        answers > 500,
        "only {answers} answers: the client asked too little"
    );
}
