//! An owner sets, verifies, updates and recovers a deployment, and is told clearly when something is not as it should be.

#![allow(clippy::expect_used, reason = "a test may panic")]

use std::{fs, path::Path, process::Command, time::Duration};

use contrast_e2e::harness::{Cluster, CoordinatorPod, Output, program};
use contrast_sdk::{
    Nonce,
    network::{Policies, fetch},
};

/// A generated deployment with a running Coordinator that has no manifest yet.
fn deployment(directory: &Path, number: u8) -> (Cluster, CoordinatorPod) {
    let cluster = Cluster::create(directory, number).expect("cluster");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator().expect("starts");
    (cluster, coordinator)
}

fn set(cluster: &Cluster, coordinator: &CoordinatorPod, more: &[&str]) -> Output {
    let address = coordinator.user_api();
    let mut arguments = vec!["set", "-c", &address];
    arguments.extend(more);
    arguments.push("resources");
    cluster.owner().try_contrast(&arguments).expect("runs")
}

/// Changes the manifest: another name for the votes service.
fn edit(cluster: &Cluster, name: &str) {
    let path = cluster.owner().file("manifest.json");
    let manifest = fs::read_to_string(&path).expect("reads");
    let (head, tail) = manifest.split_once("\"*\"").expect("a default name");
    fs::write(&path, format!("{head}\"{name}\"{tail}")).expect("writes");
}

#[test]
fn manifest_that_differs_by_one_byte_is_shown_and_fails_verification() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = deployment(directory.path(), 20);
    assert_eq!(set(&cluster, &coordinator, &[]).code, 0);
    let address = coordinator.user_api();
    let verified = cluster
        .owner()
        .contrast(&["verify", "-c", &address])
        .expect("verifies");
    assert!(
        verified.stdout.contains("verified (INSECURE)"),
        "{}",
        verified.stdout
    );
    assert!(verified.stderr.contains("INSECURE") || verified.stdout.contains("INSECURE"));

    let expected = cluster.owner().read("manifest.json").expect("reads");
    edit(&cluster, "+");
    let verify = cluster
        .owner()
        .try_contrast(&["verify", "-c", &address])
        .expect("runs");
    let printed = verify.stdout + &verify.stderr;
    assert_eq!(verify.code, 1, "{printed}");
    assert!(
        printed.contains(".SANs[1]"),
        "the path of the difference is missing: {printed}"
    );
    assert!(
        printed.contains("\"+\"") && printed.contains("\"*\""),
        "{printed}"
    );

    // The deployment goes on to another manifest. Who trusts the mesh CA of the verified one must not come to trust its workloads.
    let trusted = || cluster.owner().read("verify/mesh-ca.pem").expect("reads");
    let before = trusted();
    fs::write(cluster.owner().file("manifest.json"), &expected).expect("writes");
    edit(&cluster, "other.example");
    assert_eq!(set(&cluster, &coordinator, &[]).code, 0);
    fs::write(cluster.owner().file("manifest.json"), expected).expect("writes");
    let verify = cluster.owner().try_contrast(&["verify", "-c", &address]);
    assert_eq!(verify.expect("runs").code, 1);
    assert_eq!(trusted(), before);
}

#[test]
fn deployment_is_verified_over_the_attest_api_and_from_an_answer_that_was_kept() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = deployment(directory.path(), 29);
    let owner = cluster.owner();
    let api = coordinator.attest_api.to_string();
    let early = owner.try_contrast(&["verify", "--attest-api", &api]);
    let early = early.expect("runs");
    assert_eq!(early.code, 4, "{}", early.stderr);
    assert!(early.stderr.contains("NO_MANIFEST"), "{}", early.stderr);

    assert_eq!(set(&cluster, &coordinator, &[]).code, 0);
    let verified = owner.contrast(&["verify", "--attest-api", &api]);
    let verified = verified.expect("verifies").stdout;
    assert!(
        verified.contains("verified (INSECURE): http://"),
        "{verified}"
    );
    let noted = owner.read("verify/latest-transition").expect("reads");
    assert_eq!(noted, owner.read("latest-transition").expect("reads"));

    let nonce = Nonce([5; 32]);
    let url = api.parse().expect("a URL");
    let answer = fetch(&url, &nonce, Policies::Omitted, Duration::from_secs(30));
    fs::write(owner.file("answer.json"), answer.expect("answers")).expect("writes");
    let manifest = owner.file("manifest.json");
    let example = program("examples/verify").expect("is built");
    let example = Command::new(example).arg(&api).arg(&manifest).output();
    let example = example.expect("runs");
    let printed = String::from_utf8_lossy(&example.stdout);
    assert!(example.status.success(), "{example:?}");
    assert!(printed.contains(&format!("latest transition: {}", noted.trim())));

    // Nobody is there any more.
    coordinator.kill().expect("kills");
    let nonce = nonce.to_base64url();
    let kept = ["verify", "--answer", "answer.json", "--nonce", &nonce];
    let verified = owner.contrast(&kept).expect("verifies").stdout;
    assert!(
        verified.contains("the Coordinator of `answer.json` enforces"),
        "{verified}"
    );
    let gone = owner.try_contrast(&["verify", "--attest-api", &api]);
    assert_eq!(gone.expect("runs").code, 4);
    edit(&cluster, "+");
    let other = owner.try_contrast(&kept).expect("runs");
    assert_eq!(other.code, 1, "{}", other.stderr);
    assert!(other.stderr.contains(".SANs[1]"), "{}", other.stderr);
}

#[test]
fn result_is_one_json_document_when_asked_for() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = deployment(directory.path(), 21);
    assert_eq!(set(&cluster, &coordinator, &[]).code, 0);
    let address = coordinator.user_api();
    let verify = cluster
        .owner()
        .contrast(&["verify", "-c", &address, "--format", "json"]);
    let verdict: serde_json::Value =
        serde_json::from_str(&verify.expect("verifies").stdout).expect("JSON");
    assert_eq!(verdict["insecure"], true, "{verdict}");
}

#[test]
fn update_needs_the_key_of_an_owner() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = deployment(directory.path(), 22);
    assert_eq!(set(&cluster, &coordinator, &[]).code, 0);
    let before = cluster.owner().read("mesh-ca.pem").expect("reads");
    edit(&cluster, "changed");

    let key = cluster.owner().file("workload-owner.pem");
    let kept = cluster.owner().file("kept.pem");
    fs::rename(&key, &kept).expect("moves");
    let without = set(&cluster, &coordinator, &[]);
    assert_ne!(without.code, 0, "{}", without.stdout);

    // Somebody else's key, of the right kind.
    let other = tempfile::tempdir().expect("directory");
    let (stranger, _) = deployment(other.path(), 23);
    fs::copy(stranger.owner().file("workload-owner.pem"), &key).expect("copies");
    let wrong = set(&cluster, &coordinator, &[]);
    assert_ne!(wrong.code, 0, "{}", wrong.stdout);
    assert!(
        wrong.stderr.to_lowercase().contains("owner"),
        "{}",
        wrong.stderr
    );
    assert_eq!(cluster.owner().read("mesh-ca.pem").expect("reads"), before);

    fs::rename(&kept, &key).expect("moves");
    let right = set(&cluster, &coordinator, &[]);
    assert_eq!(right.code, 0, "{}", right.stderr);
    assert_ne!(cluster.owner().read("mesh-ca.pem").expect("reads"), before);
}

#[test]
fn update_from_an_old_base_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = deployment(directory.path(), 24);
    assert_eq!(set(&cluster, &coordinator, &[]).code, 0);
    let first = cluster
        .owner()
        .read("latest-transition")
        .expect("reads")
        .trim()
        .to_owned();
    edit(&cluster, "second");
    assert_eq!(set(&cluster, &coordinator, &[]).code, 0);
    edit(&cluster, "third");
    let stale = set(
        &cluster,
        &coordinator,
        &["--atomic", "--latest-transition", &first],
    );
    assert_ne!(stale.code, 0, "{}", stale.stdout);
    assert!(stale.stderr.contains("transition"), "{}", stale.stderr);
}

#[test]
fn recovery_refuses_a_wrong_share_and_an_older_disk() {
    let directory = tempfile::tempdir().expect("directory");
    let (cluster, coordinator) = deployment(directory.path(), 25);
    let owner = cluster.owner();
    assert_eq!(set(&cluster, &coordinator, &[]).code, 0);
    let state = directory.path().join("pods/coordinator/state");
    let old_disk = directory.path().join("old-disk");
    coordinator.kill().expect("kills");
    copy(&state, &old_disk);

    // The second manifest is known to the owner, but not to the old disk.
    let coordinator = cluster.start_coordinator().expect("starts");
    owner
        .contrast(&["recover", "-c", &coordinator.user_api()])
        .expect("recovers");
    edit(&cluster, "newer");
    assert_eq!(set(&cluster, &coordinator, &[]).code, 0);
    coordinator.kill().expect("kills");
    fs::remove_dir_all(&state).expect("removes");
    copy(&old_disk, &state);
    let coordinator = cluster.start_coordinator().expect("starts");
    let rolled_back = owner
        .try_contrast(&["recover", "-c", &coordinator.user_api()])
        .expect("runs");
    assert_ne!(rolled_back.code, 0, "{}", rolled_back.stdout);

    // A share of another deployment, under a key that opens it.
    let other = tempfile::tempdir().expect("directory");
    let (stranger, strange_coordinator) = deployment(other.path(), 26);
    assert_eq!(set(&stranger, &strange_coordinator, &[]).code, 0);
    let foreign = |name: &str| stranger.owner().file(name).to_string_lossy().into_owned();
    let wrong = owner.try_contrast(&[
        "recover",
        "-c",
        &coordinator.user_api(),
        "--seedshare-owner-key",
        &foreign("seedshare-owner.pem"),
        "--seed-shares",
        &foreign("seed-shares.json"),
    ]);
    let wrong = wrong.expect("runs");
    assert_ne!(wrong.code, 0, "{}", wrong.stdout);
    assert!(wrong.stderr.contains("seed"), "{}", wrong.stderr);
}

#[test]
fn generating_again_changes_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 27).expect("cluster");
    cluster.generate().expect("generates");
    let owner = cluster.owner();
    let snapshot = || {
        [
            "manifest.json",
            "resources/votes.yml",
            "resources/coordinator.yml",
            "workload-owner.pem",
        ]
        .map(|name| owner.read(name).expect("reads"))
    };
    let before = snapshot();
    assert!(
        before[1].contains("# Browsers have no mesh certificate"),
        "a comment is gone"
    );
    owner
        .contrast(&["generate", "--offline", "resources"])
        .expect("generates again");
    assert_eq!(snapshot(), before);
}

#[test]
fn generating_for_hardware_lists_what_only_the_operator_knows() {
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 28).expect("cluster");
    let generated = cluster.owner().contrast(&[
        "generate",
        "--offline",
        "--reference-values",
        "metal-qemu-snp",
        "--reference-values",
        "metal-qemu-tdx",
        "resources",
    ]);
    let printed = generated.expect("generates").stdout;
    for gap in [
        "fill in: $.ReferenceValues.snp[0].TrustedMeasurement",
        "fill in: $.ReferenceValues.snp[0].MinimumTCB.SNPVersion",
        "fill in: $.ReferenceValues.tdx[0].MrSeam",
        "fill in: $.ReferenceValues.tdx[0].Rtmrs",
    ] {
        assert!(printed.contains(gap), "{gap} is not in {printed}");
    }
    let set = cluster
        .owner()
        .try_contrast(&["set", "-c", "127.0.0.1:1", "resources"])
        .expect("runs");
    assert_eq!(
        set.code, 2,
        "an incomplete manifest must not be used: {}",
        set.stderr
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("reads") {
        let path = entry.expect("entry").path();
        fs::copy(&path, to.join(path.file_name().expect("name"))).expect("copies");
    }
}
