use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use contrast_e2e::harness::{Cluster, CoordinatorPod, Output};

const DEADLINE: Duration = Duration::from_secs(30);
/// Looked for everywhere where it must not be.
const PASSWORD: &str = "correct-horse-battery-staple";
const ROTATED: &str = "tr0ub4dor-and-three";
const TOKEN: &str = "registry-token-of-nobody";

/// A deployment with a first manifest, which gives its owner the sealing key.
fn started(directory: &Path, number: u8) -> (Cluster, CoordinatorPod) {
    let cluster = Cluster::create(directory, number).expect("cluster");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator().expect("starts");
    set(&cluster, &coordinator);
    (cluster, coordinator)
}

fn try_set(cluster: &Cluster, coordinator: &CoordinatorPod) -> Output {
    let address = coordinator.user_api();
    let set = cluster
        .owner()
        .try_contrast(&["set", "-c", &address, "resources"]);
    set.expect("runs")
}

fn set(cluster: &Cluster, coordinator: &CoordinatorPod) {
    let set = try_set(cluster, coordinator);
    assert_eq!(set.code, 0, "{}", set.stderr);
}

fn generate_again(cluster: &Cluster) {
    let generate = ["generate", "--offline", "resources"];
    cluster.owner().contrast(&generate).expect("generates");
}

/// Seals `text` as the file `password` of the secret `db` for the workload `store`.
fn seal_password(cluster: &Cluster, text: &str) -> Output {
    fs::write(cluster.owner().file("password"), text).expect("writes");
    let seal = cluster.owner().contrast(&[
        "seal",
        "secret",
        "db",
        "resources",
        "--pod",
        "store",
        "--from-file",
        "password=password",
    ]);
    fs::remove_file(cluster.owner().file("password")).expect("removes");
    seal.expect("seals")
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn sealed_secrets_reach_the_pods_of_the_manifest_and_nobody_else() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = started(directory.path(), 45);
    let owner = cluster.owner();
    seal_password(&cluster, PASSWORD);
    let auth = "bWU6cmVnaXN0cnktdG9rZW4tb2Ytbm9ib2R5";
    let config = format!(r#"{{"auths":{{"https://registry.test:5000":{{"auth":"{auth}"}}}}}}"#);
    fs::write(owner.file("docker.json"), config).expect("writes");
    let registry = [
        "seal",
        "registry",
        "registry.test:5000",
        "resources",
        "--pod",
        "store",
        "--docker-config",
        "docker.json",
    ];
    owner.contrast(&registry).expect("seals");
    fs::remove_file(owner.file("docker.json")).expect("removes");
    generate_again(&cluster);
    let manifest = owner.read("manifest.json").expect("reads");
    assert!(manifest.contains("\"SealedSecrets\""), "{manifest}");
    set(&cluster, &coordinator);

    let workloads = cluster.workloads().expect("workloads");
    let store = cluster.enrol(&workloads["store"], coordinator.mesh_api);
    let store = store.expect("enrols");
    let password = store.file("sealed/db/password");
    assert_eq!(fs::read_to_string(&password).expect("reads"), PASSWORD);
    let mode = fs::metadata(&password).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o400);
    let pulled = store.pull_credentials().join("config.json");
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(&pulled).expect("reads")).expect("JSON");
    assert_eq!(config["auths"]["registry.test:5000"]["auth"], auth);
    let votes = cluster.enrol(&workloads["votes"], coordinator.mesh_api);
    let votes = votes.expect("enrols");
    assert!(!votes.file("sealed").exists() && !votes.pull_credentials().exists());

    // The running pod hears of another password, and of none.
    seal_password(&cluster, ROTATED);
    set(&cluster, &coordinator);
    let reads = |expected: Option<&str>| {
        let start = std::time::Instant::now();
        while fs::read_to_string(&password).ok().as_deref() != expected {
            assert!(start.elapsed() < DEADLINE, "still not {expected:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    reads(Some(ROTATED));
    // Nothing but the pod's own memory has what was sealed.
    let own = [store.file("sealed"), store.pull_credentials()];
    for file in files_below(directory.path()) {
        if own.iter().any(|own| file.starts_with(own)) {
            continue;
        }
        let content = fs::read(&file).unwrap_or_default();
        for secret in [PASSWORD, ROTATED, TOKEN, auth] {
            let found = memchr::memmem::find(&content, secret.as_bytes());
            assert_eq!(found, None, "{secret} in {}", file.display());
        }
    }
    owner
        .edit_manifest(|manifest| {
            manifest["SealedSecrets"] = serde_json::json!({});
            let policies = manifest["Policies"].as_object_mut().expect("an object");
            for policy in policies.values_mut() {
                policy
                    .as_object_mut()
                    .expect("an object")
                    .remove("SealedSecrets");
            }
        })
        .expect("edits");
    set(&cluster, &coordinator);
    reads(None);
    // Removed by the same round of the Initializer, a moment later.
    let start = std::time::Instant::now();
    while pulled.exists() {
        assert!(start.elapsed() < DEADLINE, "credentials stay");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_was_sealed_for_another_deployment_or_another_name_is_refused_when_it_is_set() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = started(directory.path(), 46);
    let owner = cluster.owner();
    seal_password(&cluster, PASSWORD);
    generate_again(&cluster);
    let good = owner.read("manifest.json").expect("reads");
    let refused = |name: &str| {
        let set = try_set(&cluster, &coordinator);
        assert_ne!(set.code, 0);
        let expected = format!("the sealed secret `{name}` does not open in this deployment");
        assert!(set.stderr.contains(&expected), "{}", set.stderr);
    };
    // The host renames one.
    owner
        .edit_manifest(|manifest| {
            let secret = manifest["SealedSecrets"]["db"].clone();
            manifest["SealedSecrets"]["renamed"] = secret;
        })
        .expect("edits");
    refused("renamed");
    fs::write(owner.file("manifest.json"), &good).expect("writes");
    set(&cluster, &coordinator);

    // Another deployment, founded by the same owner with the same files: it has no sealing key before its first manifest.
    coordinator.kill().expect("ends");
    fs::remove_dir_all(directory.path().join("pods/coordinator/state")).expect("removes");
    let coordinator = cluster.start_coordinator().expect("starts");
    let set = try_set(&cluster, &coordinator);
    assert_ne!(set.code, 0);
    assert!(
        set.stderr
            .contains("a first manifest cannot have sealed secrets"),
        "{}",
        set.stderr
    );
}

#[test]
fn verify_gives_others_the_sealing_key_too() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = started(directory.path(), 47);
    let owner = cluster.owner();
    let address = coordinator.user_api();
    owner
        .contrast(&["verify", "-c", &address])
        .expect("verifies");
    let of_set = owner.read("sealing-key.pem").expect("reads");
    assert!(of_set.starts_with("-----BEGIN PUBLIC KEY-----"), "{of_set}");
    assert_eq!(owner.read("verify/sealing-key.pem").expect("reads"), of_set);
}
