//! An operator looks at a deployment: `contrast dashboard` in a browser shows what really happened.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use contrast_e2e::harness::{Cluster, PodSpec, Process, program};
use serde_json::json;

use crate::browser::{Browser, chromium};

const DEADLINE: Duration = Duration::from_secs(30);
/// Set to write the pictures of the documentation anew.
const UPDATE: &str = "UPDATE_SCREENSHOTS";
const PICTURE: &str = "docs/how-to/dashboard.png";

fn dashboard(cluster: &Cluster, coordinators: &str) -> (Process, String) {
    let mut command = Command::new(program("contrast").expect("built"));
    command
        .args(["dashboard", "--listen=127.0.0.1:0", "-c", coordinators])
        .current_dir(cluster.owner().workspace());
    let mut process = Process::start("dashboard", command, cluster.directory()).expect("starts");
    process
        .wait_until("its address", DEADLINE, |process| {
            process.output().contains("until you interrupt it")
        })
        .expect("listens");
    let output = process.output();
    let url = output.lines().find(|line| line.starts_with("http://"));
    (process, url.expect("an address").to_owned())
}

fn number(browser: &mut Browser, id: &str) -> String {
    browser.text(&format!("document.getElementById('{id}').textContent"))
}

#[test]
fn numbers_refusals_and_changes_are_those_that_happened() {
    let Some(chromium) = chromium() else {
        eprintln!("SKIPPED the dashboard in a browser: there is no Chromium");
        return;
    };
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 36).expect("cluster");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator().expect("starts");
    let owner = cluster.owner();
    let set = ["set", "-c", &coordinator.user_api(), "resources"];
    owner.contrast(&set).expect("sets");
    let workloads = cluster.workloads().expect("workloads");
    let mut pods = Vec::new();
    for name in ["api", "votes", "store"] {
        pods.push(
            cluster
                .start_initializer(&workloads[name], &coordinator)
                .expect("starts"),
        );
    }
    for pod in &mut pods {
        let enrolled = pod.file("tls-config/certChain.pem");
        let initializer = pod.container("contrast-initializer").expect("runs");
        initializer
            .wait_until("the certificate", DEADLINE, |_| enrolled.exists())
            .expect("enrols");
    }
    refuse(&cluster, &coordinator, &workloads["votes"]);
    owner
        .edit_manifest(|manifest| manifest["MeshCertLifetime"] = json!("36h"))
        .expect("edits");
    owner.contrast(&set).expect("sets again");

    // The second address is nobody's.
    let addresses = format!("{},127.0.0.1:1", coordinator.user_api());
    let (mut process, url) = dashboard(&cluster, &addresses);
    let mut browser = Browser::start(chromium, &directory.path().join("browser"));
    browser.open(&url);
    browser.wait_until("document.documentElement.dataset.taken !== undefined");

    assert_eq!(number(&mut browser, "serving"), "1 of 2");
    assert_eq!(number(&mut browser, "manifests"), "2");
    // Each pod has one under each manifest, which its Initializer follows.
    browser.wait_until("document.getElementById('issued-count').textContent === '6'");
    let log = coordinator.log();
    let issued = log
        .lines()
        .filter(|line| line.contains(r#""kind":"certificate","outcome":"done""#));
    assert_eq!(issued.count(), 6, "{log}");
    let page = browser.text("document.body.textContent");
    let shown = [
        "INSECURE: the manifest accepts a software TEE",
        "cannot reach the Coordinator at 127.0.0.1:1",
        "$.MeshCertLifetime",
        "The chain of hashes is as it should be.",
    ];
    for text in shown {
        assert!(page.contains(text), "no `{text}` in\n{page}");
    }
    let refused = browser.text("document.getElementById('refused').textContent");
    assert!(refused.contains("HOSTDATA"), "{refused}");
    let issued = browser.text("document.getElementById('issued').textContent");
    for name in ["api", "votes", "store"] {
        assert!(issued.contains(name), "{name} in {issued}");
    }
    let asked = browser.asked();
    assert!(
        asked.iter().all(|asked| asked.starts_with(&url)),
        "{asked:?}"
    );
    if std::env::var_os(UPDATE).is_some() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        fs::write(root.join(PICTURE), browser.picture(1200, 1500)).expect("writes");
    }

    // It notices that what it shows gets old.
    process.kill().expect("ends");
    browser.wait_until("document.body.classList.contains('stale')");
}

#[test]
fn answers_nobody_who_names_another_host_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 37).expect("cluster");
    cluster.generate().expect("generates");
    let (_process, url) = dashboard(&cluster, "127.0.0.1:1");
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let ask = |method: &str, host: &str| {
        let mut stream = TcpStream::connect(address).expect("listens");
        let request =
            format!("{method} /api/state HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let rebound = ask("GET", "evil.example");
    assert!(rebound.starts_with("HTTP/1.1 421 "), "{rebound}");
    assert!(!rebound.contains("replicas"), "{rebound}");
    let changing = ask("POST", address);
    assert!(changing.starts_with("HTTP/1.1 405 "), "{changing}");
    let allowed = ask("GET", address);
    assert!(allowed.starts_with("HTTP/1.1 200 "), "{allowed}");
    assert!(allowed.contains("default-src 'none'"), "{allowed}");
    let open = cluster
        .owner()
        .try_contrast(&["dashboard", "--listen=0.0.0.0:0", "-c", "127.0.0.1:1"])
        .expect("runs");
    assert_eq!(open.code, 2, "{}", open.stderr);
    assert!(
        open.stderr.contains("it listens on loopback only"),
        "{}",
        open.stderr
    );
}

/// A pod whose policy the host changed asks for a certificate.
fn refuse(
    cluster: &Cluster,
    coordinator: &contrast_e2e::harness::CoordinatorPod,
    genuine: &PodSpec,
) {
    let text = String::from_utf8(genuine.initdata.clone()).expect("text");
    let mut impostor = genuine.clone();
    impostor.name = "impostor".to_owned();
    impostor.initdata = text.replacen("/bin/votes", "/bin/evil", 1).into_bytes();
    let mut pod = cluster
        .start_initializer(&impostor, coordinator)
        .expect("starts");
    let initializer = pod.container("contrast-initializer").expect("runs");
    initializer
        .wait_until("the refusal", DEADLINE, |process| {
            process.output().contains("HOSTDATA: expected one of")
        })
        .expect("is refused");
}
