//! A workload encrypts with its own key at the Coordinator, through a client of Vault that is not ours.

#![allow(
    clippy::expect_used,
    reason = "a test that meets the unexpected has to stop there"
)]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use contrast_e2e::harness::{Cluster, CoordinatorPod, Pod, PodSpec};
use serde_json::Value;

/// Where `cargo xtask tools` installs `hvac`.
fn packages() -> Option<PathBuf> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/hvac-python");
    packages.is_dir().then_some(packages)
}

/// A workload with its identity, and the name of its key.
struct Workload {
    pod: Pod,
    name: String,
    /// Whom it trusts.
    mesh_ca: PathBuf,
}

impl Workload {
    fn enrol(cluster: &Cluster, coordinator: &CoordinatorPod, spec: &PodSpec) -> Self {
        let pod = cluster.enrol(spec, coordinator.mesh_api).expect("enrols");
        let manifest = cluster.owner().read("manifest.json").expect("reads");
        let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
        let id = &manifest["Policies"][spec.policy_hash()]["WorkloadSecretID"];
        let name = id.as_str().expect("a secret id").to_owned();
        assert!(!name.is_empty());
        Self {
            pod,
            name,
            mesh_ca: cluster.owner().file("mesh-ca.pem"),
        }
    }

    /// The Python client with the certificate of this workload, for the key `name`.
    fn client(&self, at: &CoordinatorPod, what: &str, name: &str) -> Command {
        let mut command = Command::new("python3");
        command
            .env("PYTHONPATH", packages().expect("it was there"))
            .args(["-c", include_str!("transit/client.py"), what])
            .arg(at.transit_api.ip().to_string())
            .arg(at.transit_api.port().to_string())
            .arg(&self.mesh_ca)
            .arg(self.pod.file("tls-config/certChain.pem"))
            .arg(self.pod.file("tls-config/key.pem"))
            .arg(name);
        command
    }
}

fn run(mut command: Command) -> String {
    let output = command.output().expect("Python runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("text");
    text.trim().to_owned()
}

fn contrast(cluster: &Cluster, coordinator: &CoordinatorPod, what: &str) {
    let address = coordinator.user_api();
    let arguments = match what {
        "set" => vec!["set", "-c", &address, "resources"],
        other => vec![other, "-c", &address],
    };
    let done = cluster.owner().contrast(&arguments);
    done.expect("the owner's command succeeds");
}

/// Takes the Deployment `name` out of the application's YAML.
fn remove_from_yaml(cluster: &Cluster, name: &str) {
    let path = cluster.owner().file("resources").join("votes.yml");
    let text = fs::read_to_string(&path).expect("reads");
    let named = format!("\n  name: {name}\n");
    let documents = text.split("\n---\n");
    let kept: Vec<_> = documents
        .filter(|document| {
            !(document.contains("\nkind: Deployment\n") && document.contains(&named))
        })
        .collect();
    assert!(kept.len() + 1 == text.split("\n---\n").count());
    fs::write(&path, kept.join("\n---\n")).expect("writes");
}

#[test]
fn vault_client_has_every_operation_on_its_own_key_and_no_other() {
    if packages().is_none() {
        println!("skipped: no Python package `hvac`; run `cargo xtask tools`");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 70).expect("cluster");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator().expect("starts");
    contrast(&cluster, &coordinator, "set");
    let specs = cluster.workloads().expect("workloads");
    let store = Workload::enrol(&cluster, &coordinator, &specs["store"]);
    let votes = Workload::enrol(&cluster, &coordinator, &specs["votes"]);

    let ciphertext = run(store.client(&coordinator, "operations", &store.name));
    let mut foreign = votes.client(&coordinator, "foreign", &store.name);
    foreign.arg(&ciphertext);
    run(foreign);
    run(votes.client(&coordinator, "anonymous", &store.name));
}

#[test]
fn removed_workload_is_refused_and_ciphertexts_survive_a_recovery() {
    if packages().is_none() {
        println!("skipped: no Python package `hvac`; run `cargo xtask tools`");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 71).expect("cluster");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator().expect("starts");
    contrast(&cluster, &coordinator, "set");
    let specs = cluster.workloads().expect("workloads");
    let store = Workload::enrol(&cluster, &coordinator, &specs["store"]);
    let votes = Workload::enrol(&cluster, &coordinator, &specs["votes"]);
    let ciphertext = run(store.client(&coordinator, "operations", &store.name));

    // Its certificate is of the mesh CA before, on a connection that was accepted then and on a new one.
    let mut removed = votes.client(&coordinator, "removed", &votes.name);
    let mut removed = removed
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let mut output = BufReader::new(removed.stdout.take().expect("piped"));
    let mut input = removed.stdin.take().expect("piped");
    let mut wait_for = |expected: &str| {
        let mut said = String::new();
        output.read_line(&mut said).expect("a line");
        assert_eq!(said.trim(), expected);
    };
    wait_for("connected");
    let hash = specs["votes"].policy_hash();
    let edited = cluster.owner().edit_manifest(|manifest| {
        manifest["MeshCAOverlap"] = "10m".into();
        let policies = manifest["Policies"].as_object_mut();
        policies.and_then(|policies| policies.remove(&hash));
    });
    edited.expect("edits");
    remove_from_yaml(&cluster, "votes");
    contrast(&cluster, &coordinator, "set");
    let mut decrypt = store.client(&coordinator, "decrypt", &store.name);
    decrypt.arg(&ciphertext);
    assert_eq!(run(decrypt), "unseal me");
    input.write_all(b"go\n").expect("is told");
    wait_for("denied");
    let edited = cluster.owner().edit_manifest(|manifest| {
        manifest["MeshCAOverlap"] = "0s".into();
    });
    edited.expect("edits");
    contrast(&cluster, &coordinator, "set");
    input.write_all(b"go\n").expect("is told");
    let ended = removed.wait_with_output().expect("ends");
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );

    // A recovery makes another mesh CA, but the same keys.
    coordinator.kill().expect("is killed");
    let coordinator = cluster.start_coordinator().expect("starts");
    contrast(&cluster, &coordinator, "recover");
    let again = specs["store"].replica("store-again");
    let mut again = Workload::enrol(&cluster, &coordinator, &again);
    // As in a pod: what came with the certificate.
    again.mesh_ca = again.pod.file("tls-config/mesh-ca.pem");
    let mut decrypt = again.client(&coordinator, "decrypt", &again.name);
    decrypt.arg(&ciphertext);
    assert_eq!(run(decrypt), "unseal me");
}
