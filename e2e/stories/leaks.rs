//! Secrets of a Coordinator under load, with all its logs: they are in its memory and in no file, log, metric or core dump.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a story that meets the unexpected has to stop, and says why it is skipped"
)]

#[path = "leaks/needles.rs"]
mod needles;

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, spawn},
    time::Duration,
};

use contrast_e2e::harness::{Cluster, CoordinatorPod, Pod, Process};
use contrast_pki::{
    Derivation, Salt, Seed,
    shares::{SeedSharesDocument, decrypt_share},
};
use needles::{Needle, private_key};
use nix::{sys::signal::Signal, unistd::geteuid};
use serde_json::Value;
use x509_cert::{Certificate, der::DecodePem as _};

const DEADLINE: Duration = Duration::from_secs(30);
const VARIABLES: [(&str, &str); 1] = [("CONTRAST_LOG_LEVEL", "trace")];
const ROUNDS: usize = 20;
/// The one file that has a secret, in the volume in memory of the pod that it belongs to.
const ITS_FILE: &str = "pods/store/contrast/secrets/workload-secret-seed";

/// Asks by plain HTTP; the whole answer.
fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    write!(stream, "{request}\r\n\r\n").expect("sends");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("answers");
    String::from_utf8_lossy(&answer).into_owned()
}

fn metrics(coordinator: &CoordinatorPod) -> String {
    http(coordinator.ops, "GET /metrics HTTP/1.0")
}

/// Asks the attest API and the metrics until it is told to stop, with a limit of its own for each.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(coordinator: &CoordinatorPod) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let nonce = "A".repeat(43);
        let requests = [
            (
                coordinator.attest_api,
                format!("GET /v1/attest?nonce={nonce} HTTP/1.0"),
            ),
            (coordinator.ops, "GET /metrics HTTP/1.0".to_owned()),
            (coordinator.ops, "GET /readyz HTTP/1.0".to_owned()),
        ];
        let ask = |(address, request): (SocketAddr, String)| {
            let stop = Arc::clone(&stop);
            spawn(move || {
                let mut answers = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert!(http(address, &request).starts_with("HTTP/1."));
                    answers += 1;
                }
                answers
            })
        };
        let threads = requests.map(ask).into();
        Self { stop, threads }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert!(thread.join().expect("asks") > 0);
        }
    }
}

fn enrol(cluster: &Cluster, coordinator: &CoordinatorPod) -> Pod {
    let workloads = cluster.workloads().expect("workloads");
    let pod = cluster.enrol(&workloads["store"], coordinator.mesh_api);
    pod.expect("enrols")
}

/// Encrypts and decrypts with the pod's own transit key, again and again.
fn use_transit_key(coordinator: &CoordinatorPod, pod: &Pod, key: &str) {
    let output = Command::new("python3")
        .args(["-c", include_str!("leaks/transit.py")])
        .arg(coordinator.transit_api.to_string())
        .arg(pod.file("tls-config/mesh-ca.pem"))
        .arg(pod.file("tls-config/certChain.pem"))
        .arg(pod.file("tls-config/key.pem"))
        .arg(key)
        .arg(ROUNDS.to_string())
        .output()
        .expect("Python runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
}

/// What a process can write to.
fn memory(process: u32) -> std::io::Result<Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let mut memory = File::open(format!("/proc/{process}/mem"))?;
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split(' ');
        let range = fields.next().and_then(|range| range.split_once('-'));
        let (Some((start, end)), Some(mode)) = (range, fields.next()) else {
            continue;
        };
        if !mode.starts_with("rw") {
            continue;
        }
        let bound = |text| u64::from_str_radix(text, 16).expect("an address");
        let (start, end) = (bound(start), bound(end));
        memory.seek(SeekFrom::Start(start))?;
        // What was never touched cannot always be read.
        let _ = (&mut memory).take(end - start).read_to_end(&mut all);
    }
    Ok(all)
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("lists") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("a type");
        match (kind.is_dir(), kind.is_file()) {
            (true, _) => files(&entry.path(), found),
            (_, true) => found.push(entry.path()),
            _ => {}
        }
    }
}

/// Lets the programs that are started from now on dump their memory, as far as they want to themselves.
fn permit_core_dumps() {
    let limit = Command::new("prlimit")
        .args(["--core=unlimited:", "--pid"])
        .arg(std::process::id().to_string())
        .status();
    if !limit.is_ok_and(|status| status.success()) {
        eprintln!("core dumps cannot be permitted here");
    }
}

/// Crashes the process; whether its memory was dumped.
fn crash(process: &mut Process) -> bool {
    process.signal(Signal::SIGABRT).expect("runs");
    let status = process.wait(DEADLINE).expect("ends");
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32));
    status.core_dumped()
}

#[test]
fn secrets_are_in_memory_alone() {
    if !geteuid().is_root() {
        eprintln!("secrets: skipped, because only root may look into a process's memory");
        return;
    }
    permit_core_dumps();
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 37).expect("cluster");
    cluster.generate().expect("generates");
    let owner = cluster.owner();
    let coordinator = cluster.start_coordinator_with(&VARIABLES).expect("starts");
    let address = coordinator.user_api();
    owner
        .contrast(&["set", "-c", &address, "resources"])
        .expect("sets");
    let load = Load::start(&coordinator);
    let pod = enrol(&cluster, &coordinator);
    owner
        .contrast(&["verify", "-c", &address])
        .expect("verifies");
    load.end();
    coordinator.kill().expect("ends");

    let mut coordinator = cluster.start_coordinator_with(&VARIABLES).expect("starts");
    let address = coordinator.user_api();
    owner
        .contrast(&["recover", "-c", &address])
        .expect("recovers");
    owner
        .contrast(&["verify", "-c", &address])
        .expect("verifies");
    // What says that the next one is enrolled.
    fs::remove_file(pod.file("tls-config/certChain.pem")).expect("removes");
    drop(pod);
    let pod = enrol(&cluster, &coordinator);
    let load = Load::start(&coordinator);
    let manifest: Value =
        serde_json::from_str(&owner.read("manifest.json").expect("reads")).expect("JSON");
    let policy = cluster.workloads().expect("workloads")["store"].policy_hash();
    let id = manifest["Policies"][policy]["WorkloadSecretID"]
        .as_str()
        .expect("an id");
    use_transit_key(&coordinator, &pod, id);
    load.end();

    let shares = owner.read("seed-shares.json").expect("reads");
    let shares = SeedSharesDocument::from_json(shares.as_bytes()).expect("parses");
    let share = decrypt_share(&shares, &owner.read("seedshare-owner.pem").expect("reads"));
    let seed = Seed::from_slice(share.expect("own share").expose()).expect("a seed");
    let derivation = Derivation::new(&seed, &Salt::from_slice(&shares.salt).expect("a salt"));
    let secret = derivation.workload_secret(id).expect("derives");
    let installed = fs::read_to_string(pod.file("secrets/workload-secret-seed")).expect("reads");
    assert_eq!(*secret.to_hex(), installed);

    let alive = memory(coordinator.process().id()).expect("root may look");
    let mesh_ca = fs::read_to_string(pod.file("tls-config/mesh-ca.pem")).expect("reads");
    let mesh_ca = Certificate::from_pem(mesh_ca).expect("a certificate");
    let public = mesh_ca.tbs_certificate().subject_public_key_info();
    let key = private_key(&alive, public.subject_public_key.raw_bytes());
    let needles = [
        Needle::new("seed", seed.expose()),
        Needle::new("mesh CA key", &key.expect("the key is in memory")),
        Needle::new("workload secret", secret.expose()),
        Needle::new(
            "transit key",
            derivation.transit_key(1, id).expect("derives").expose(),
        ),
    ];
    for needle in &needles {
        eprintln!(
            "{}: {} times in memory",
            needle.name,
            needle.count_in(&alive)
        );
    }
    assert!(
        needles[0].count_in(&alive) > 0,
        "these are not the secrets of this Coordinator"
    );
    drop(alive);

    let metrics = metrics(&coordinator);
    assert!(metrics.contains("contrast_"), "{metrics}");
    // Its dump, if there is one, is among the files that are searched.
    let mut other = Command::new("sleep");
    other.arg("60").current_dir(directory.path());
    let other = Process::start("other", other, directory.path());
    let dumps = crash(&mut other.expect("starts"));
    assert!(
        !crash(coordinator.process()),
        "the Coordinator's memory was written to a core dump"
    );
    if !dumps {
        eprintln!("nobody's memory is dumped here, so that this part shows nothing");
    }

    let mut all = Vec::new();
    files(directory.path(), &mut all);
    let log = coordinator.log();
    assert!(log.contains("TRACE"), "the log is not complete");
    for needle in &needles {
        assert_eq!(
            needle.found_in(metrics.as_bytes()),
            [""; 0],
            "metrics have the {}",
            needle.name
        );
        for file in &all {
            let found = needle.found_in(&fs::read(file).expect("reads"));
            let its_own = needle.name == "workload secret" && file.ends_with(ITS_FILE);
            let expected: &[&str] = if its_own { &["hex"] } else { &[] };
            assert_eq!(found, expected, "{} in {}", needle.name, file.display());
        }
    }
    let has = |end: &str| all.iter().any(|file| file.ends_with(end));
    assert!(
        has(ITS_FILE) && has("pods/coordinator/coordinator.log"),
        "{all:#?}"
    );
    let state = |file: &PathBuf| file.to_string_lossy().contains("pods/coordinator/state/");
    assert!(all.iter().any(state), "{all:#?}");
}
