//! Three owners, two of whom are needed: to approve an update, with keys that never meet, one of them in a tool that is not ours; and to
//! recover the seed.

#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a story that meets the unexpected has to stop, and says why it is skipped"
)]

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
};

use contrast_clock::SystemEntropy;
use contrast_e2e::harness::{Cluster, CoordinatorPod, Output, Pod};
use contrast_pki::WorkloadOwnerKey;
use serde_json::{Value, json};
use x509_cert::{Certificate, der::DecodePem as _};

struct Owners {
    cluster: Cluster,
    coordinator: CoordinatorPod,
}

impl Owners {
    /// A deployment that is set, of whose three owners two are needed. Their keys are here, and so is one of nobody, `stranger.pem`.
    fn create(directory: &Path, number: u8) -> Self {
        let cluster = Cluster::create(directory, number).expect("cluster");
        cluster.generate().expect("generates");
        let owner = cluster.owner();
        owner.share_with_others(2, 3).expect("owners");
        let stranger = WorkloadOwnerKey::generate(&SystemEntropy).expect("key");
        let pem = stranger.to_pem().expect("PEM");
        fs::write(owner.file("stranger.pem"), pem.as_bytes()).expect("writes");
        let coordinator = cluster.start_coordinator().expect("starts");
        let owners = Self {
            cluster,
            coordinator,
        };
        assert_eq!(owners.set(&[]).code, 0);
        owners
    }

    /// Another lifetime for certificates, in the manifest.
    fn propose(&self, lifetime: &str) {
        let change = |manifest: &mut Value| manifest["MeshCertLifetime"] = json!(lifetime);
        self.cluster.owner().edit_manifest(change).expect("edits");
    }

    fn contrast(&self, arguments: &[&str]) -> Output {
        let output = self.cluster.owner().try_contrast(arguments);
        output.expect("runs")
    }

    fn set(&self, more: &[&str]) -> Output {
        let address = self.coordinator.user_api();
        self.contrast(&[&["set", "-c", &address, "resources"], more].concat())
    }

    fn approvals(&self, more: &[&str]) -> Output {
        let address = self.coordinator.user_api();
        self.contrast(&[&["approvals", "-c", &address], more].concat())
    }

    fn sign(&self, key: &str, out: &str) {
        let signed = self.contrast(&["sign", "--workload-owner-key", key, "--out", out]);
        assert_eq!(signed.code, 0, "{}", signed.stderr);
    }

    /// What `openssl` signs of that which `contrast sign --prepare` writes; false where there is no `openssl`.
    fn sign_with_openssl(&self, key: &str, out: &str) -> bool {
        let prepared = self.contrast(&["sign", "--prepare", "--out", "approval.txt"]);
        assert_eq!(prepared.code, 0, "{}", prepared.stderr);
        let signed = Command::new("openssl")
            .args(["dgst", "-sha256", "-sign", key, "-out", out, "approval.txt"])
            .current_dir(self.cluster.owner().workspace())
            .status();
        match signed {
            Ok(status) => {
                assert!(status.success());
                true
            }
            Err(error) => {
                eprintln!("SKIPPED in part: cannot run openssl: {error}");
                false
            }
        }
    }
}

#[test]
fn two_of_three_approve_what_they_have_seen() {
    let directory = tempfile::tempdir().expect("directory");
    let owners = Owners::create(directory.path(), 28);
    owners.propose("48h");
    owners.sign("workload-owner.pem", "first.json");
    if !owners.sign_with_openssl("workload-owner-3.pem", "hsm.sig") {
        owners.sign("workload-owner-3.pem", "hsm.sig");
    }

    let one = owners.approvals(&["--signature", "first.json"]);
    assert_eq!(one.code, 1, "{}{}", one.stdout, one.stderr);
    for text in ["$.MeshCertLifetime", "+ \"48h\"", "2 needed", "not enough"] {
        assert!(one.stdout.contains(text), "{text}: {}", one.stdout);
    }
    assert_eq!(one.stdout.matches("not yet").count(), 2, "{}", one.stdout);
    let two = owners.approvals(&[
        "--signature",
        "first.json",
        "--signature",
        "hsm.sig",
        "--format",
        "json",
    ]);
    assert_eq!(two.code, 0, "{}{}", two.stdout, two.stderr);
    let two: Value = serde_json::from_str(&two.stdout).expect("JSON");
    assert_eq!(two["sufficient"], true, "{two}");

    let refused = owners.set(&["--signature", "first.json"]);
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    assert!(refused.stderr.contains("needs 2"), "{}", refused.stderr);
    let set = owners.set(&["--signature", "first.json", "--signature", "hsm.sig"]);
    assert_eq!(set.code, 0, "{}", set.stderr);
}

#[test]
fn approvals_that_do_not_count_are_named_before_anything_is_sent() {
    let directory = tempfile::tempdir().expect("directory");
    let owners = Owners::create(directory.path(), 29);
    let stranger = WorkloadOwnerKey::generate(&SystemEntropy).expect("key");
    let pem = stranger.to_pem().expect("PEM");
    fs::write(owners.cluster.owner().file("stranger.pem"), pem.as_bytes()).expect("writes");
    owners.propose("48h");
    owners.sign("workload-owner.pem", "first.json");
    owners.sign("workload-owner-2.pem", "second.json");
    owners.sign("stranger.pem", "stranger.json");
    fs::copy(
        owners.cluster.owner().file("first.json"),
        owners.cluster.owner().file("again.json"),
    )
    .expect("copies");
    let damaged = owners.cluster.owner().read("first.json").expect("reads");
    let (head, _) = damaged
        .rsplit_once("\"Signature\": \"30")
        .expect("a signature");
    fs::write(
        owners.cluster.owner().file("damaged.json"),
        format!("{head}\"Signature\": \"31\"\n}}\n"),
    )
    .expect("writes");
    fs::write(owners.cluster.owner().file("garbage.sig"), "garbage").expect("writes");
    let refuses = |files: &[&str], says: &str| {
        let named: Vec<&str> = files
            .iter()
            .flat_map(|file| ["--signature", *file])
            .collect();
        let set = owners.set(&named);
        assert_eq!(set.code, 2, "{files:?}: {}", set.stderr);
        assert!(set.stderr.contains(says), "{files:?}: {}", set.stderr);
    };
    refuses(&["first.json", "again.json"], "approvals of the same owner");
    refuses(
        &["first.json", "stranger.json"],
        "is not among the active manifest's workload owners",
    );
    refuses(&["first.json", "damaged.json"], "the file is damaged");
    refuses(
        &["first.json", "garbage.sig"],
        "is not a signature of any of the 3 known owner key(s)",
    );
    refuses(&["missing.json"], "does not exist");

    let both = ["--signature", "first.json", "--signature", "second.json"];
    let set = owners.set(&both);
    assert_eq!(set.code, 0, "{}", set.stderr);
    // What was approved once is not approved for ever, and not for something else.
    owners.propose("24h");
    refuses(&["first.json", "second.json"], "approves the manifest");
    owners.sign("workload-owner.pem", "first.json");
    owners.sign("workload-owner-2.pem", "second.json");
    assert_eq!(owners.set(&both).code, 0);
    owners.propose("48h");
    owners.sign("workload-owner.pem", "first.json");
    owners.sign("workload-owner-2.pem", "second.json");
    assert_eq!(owners.set(&both).code, 0);
    owners.propose("24h");
    let old = owners.contrast(&[
        "sign",
        "--latest-transition",
        &"ab".repeat(32),
        "--out",
        "first.json",
    ]);
    assert_eq!(old.code, 0, "{}", old.stderr);
    refuses(
        &["first.json", "second.json"],
        "but the latest transition is",
    );
}

#[test]
fn approvals_are_not_for_other_deployments_and_need_a_transition() {
    let (here, there) = (
        tempfile::tempdir().expect("directory"),
        tempfile::tempdir().expect("directory"),
    );
    let owners = Owners::create(here.path(), 30);
    owners.propose("48h");
    owners.sign("workload-owner.pem", "first.json");
    // The same manifest and the same owners, with a Coordinator of their own.
    let twin = Cluster::create(there.path(), 31).expect("cluster");
    twin.generate().expect("generates");
    fs::copy(
        owners.cluster.owner().file("first.json"),
        twin.owner().file("first.json"),
    )
    .expect("copies");
    let coordinator = twin.start_coordinator().expect("starts");
    let address = coordinator.user_api();
    let first = twin.owner().try_contrast(&[
        "set",
        "-c",
        &address,
        "--signature",
        "first.json",
        "resources",
    ]);
    let first = first.expect("runs");
    assert_eq!(first.code, 2, "{}", first.stderr);
    assert!(
        first.stderr.contains("has no manifest yet"),
        "{}",
        first.stderr
    );

    let new = twin.owner().try_contrast(&["sign"]).expect("runs");
    assert_eq!(new.code, 2, "{}", new.stderr);
    assert!(
        new.stderr.contains("no latest transition is known"),
        "{}",
        new.stderr
    );
}

/// Seed shares.
impl Owners {
    /// Lets two of `keys` recover, by an update.
    fn share(&self, keys: &[&str]) {
        let owner = self.cluster.owner();
        let public = |name: &&str| owner.seed_share_owner(name).expect("key");
        let public: Vec<_> = keys.iter().map(public).collect();
        let change = |manifest: &mut Value| manifest["SeedshareOwnerPubKeys"] = json!(public);
        owner.edit_manifest(change).expect("edits");
        let set = self.set(&[
            "--workload-owner-key",
            "workload-owner.pem",
            "--workload-owner-key",
            "workload-owner-2.pem",
        ]);
        assert_eq!(set.code, 0, "{}", set.stderr);
        assert!(set.stdout.contains("seed-shares.json"), "{}", set.stdout);
    }

    fn recover(&self, key: &str, more: &[&str]) -> Output {
        let address = self.coordinator.user_api();
        self.contrast(
            &[
                &["recover", "-c", &address, "--seedshare-owner-key", key],
                more,
            ]
            .concat(),
        )
    }

    /// Ends the Coordinator with SIGKILL and starts it on the same disk.
    fn restart(self) -> Self {
        let Self {
            cluster,
            coordinator,
        } = self;
        drop(coordinator);
        let coordinator = cluster.start_coordinator().expect("starts");
        Self {
            cluster,
            coordinator,
        }
    }
}

#[test]
fn two_of_three_recover_the_seed_together() {
    let directory = tempfile::tempdir().expect("directory");
    let owners = Owners::create(directory.path(), 32);
    let root = owners
        .cluster
        .owner()
        .read("coordinator-root-ca.pem")
        .expect("reads");
    let accepts = |owners: &Owners, key: &str| {
        let recovered = owners.recover(key, &[]);
        assert_eq!(recovered.code, 0, "{}", recovered.stderr);
        assert!(
            recovered.stdout.contains("1 more needed"),
            "{}",
            recovered.stdout
        );
    };
    let owners = owners.restart();
    accepts(&owners, "seedshare-owner-3.pem");
    accepts(&owners, "seedshare-owner-3.pem");
    // Shares are kept in memory only.
    let owners = owners.restart();
    accepts(&owners, "seedshare-owner.pem");
    let recovered = owners.recover("seedshare-owner-2.pem", &["--format", "json"]);
    assert_eq!(recovered.code, 0, "{}", recovered.stderr);
    let recovered: Value = serde_json::from_str(&recovered.stdout).expect("JSON");
    assert_eq!(recovered["serving"], true, "{recovered}");
    let address = owners.coordinator.user_api();
    let verified = owners.contrast(&["verify", "-c", &address]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    assert_eq!(
        owners
            .cluster
            .owner()
            .read("verify/coordinator-root-ca.pem")
            .expect("reads"),
        root
    );
    let again = owners.recover("seedshare-owner-3.pem", &[]);
    assert_ne!(again.code, 0, "{}", again.stdout);
}

#[test]
fn shares_of_before_the_owners_changed_are_refused_by_name() {
    let directory = tempfile::tempdir().expect("directory");
    let owners = Owners::create(directory.path(), 33);
    let file = |name: &str| owners.cluster.owner().file(name);
    fs::copy(file("seed-shares.json"), file("old-shares.json")).expect("copies");
    owners.share(&["seedshare-owner-3.pem", "seedshare-owner.pem"]);
    let owners = owners.restart();
    let refuses = |key: &str, shares: &str, says: &str| {
        let refused = owners.recover(key, &["--seed-shares", shares]);
        assert_ne!(refused.code, 0, "{}", refused.stdout);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    };
    refuses("seedshare-owner-3.pem", "old-shares.json", "was replaced");
    refuses(
        "seedshare-owner-2.pem",
        "seed-shares.json",
        "none of the 2 seed share(s) is encrypted to this key",
    );
    assert_eq!(owners.recover("seedshare-owner-3.pem", &[]).code, 0);
    refuses("seedshare-owner.pem", "old-shares.json", "was replaced");
    let last = owners.recover("seedshare-owner.pem", &[]);
    assert!(
        last.stdout.contains("it serves again"),
        "{}{}",
        last.stdout,
        last.stderr
    );
}

/// Asks as `curl --unix-socket` does.
fn secret_at_the_socket(pod: &Pod) -> String {
    let mut socket = UnixStream::connect(pod.file("workload-secret.sock")).expect("connects");
    let request = "GET /v1/workload-secret HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("answers");
    let (head, document) = answer.split_once("\r\n\r\n").expect("a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let document: Value = serde_json::from_str(document).expect("JSON");
    document["secret"].as_str().expect("a secret").to_owned()
}

#[test]
fn a_new_deployment_continues_the_seed_of_another() {
    let (before, after) = (
        tempfile::tempdir().expect("directory"),
        tempfile::tempdir().expect("directory"),
    );
    let earlier = Cluster::create(before.path(), 34).expect("cluster");
    earlier.generate().expect("generates");
    let old = earlier.start_coordinator().expect("starts");
    let set = earlier
        .owner()
        .try_contrast(&["set", "-c", &old.user_api(), "resources"]);
    assert_eq!(set.expect("runs").code, 0);
    let secret_of = |cluster: &Cluster, coordinator: &CoordinatorPod| {
        let workloads = cluster.workloads().expect("workloads");
        let pod = cluster.enrol(&workloads["store"], coordinator.mesh_api);
        let pod = pod.expect("enrols");
        let secret = fs::read_to_string(pod.file("secrets/workload-secret-seed"));
        let secret = secret.expect("reads");
        assert_eq!(secret_at_the_socket(&pod), secret);
        secret
    };
    let secret = secret_of(&earlier, &old);
    let verified = earlier
        .owner()
        .try_contrast(&["verify", "-c", &old.user_api()]);
    assert_eq!(verified.expect("runs").code, 0);
    let root = earlier
        .owner()
        .read("coordinator-root-ca.pem")
        .expect("reads");

    let later = Cluster::create(after.path(), 35).expect("cluster");
    later.generate().expect("generates");
    let new = later.start_coordinator().expect("starts");
    let user_api = new.user_api();
    let path = |name: &str| earlier.owner().file(name).to_string_lossy().into_owned();
    let (shares, key) = (path("seed-shares.json"), path("seedshare-owner.pem"));
    let import = |shares: &str, key: &str| {
        let named = [
            "--import-seed-shares",
            shares,
            "--import-seedshare-owner-key",
            key,
        ];
        let arguments = [&["import", "-c", &user_api], &named[..], &["resources"]].concat();
        later.owner().try_contrast(&arguments).expect("runs")
    };
    let wrong = import(
        &shares,
        &later.owner().file("seedshare-owner.pem").to_string_lossy(),
    );
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
    let from = |directory: &Path| {
        let directory = directory.to_string_lossy();
        let seed = [
            "--import-seed-shares",
            &shares,
            "--import-seedshare-owner-key",
            &key,
        ];
        let verified = ["--import-verified", &directory, "resources"];
        let arguments = [&["import", "-c", &user_api], &seed[..], &verified].concat();
        later.owner().try_contrast(&arguments).expect("runs")
    };
    let directory = earlier.owner().file("verify");
    let stranger = tempfile::tempdir().expect("directory");
    fs::copy(
        directory.join("manifest.0.json"),
        stranger.path().join("manifest.0.json"),
    )
    .expect("copies");
    let root_of_nobody = later.tee().join("snp-ark.crt.pem");
    fs::copy(
        root_of_nobody,
        stranger.path().join("coordinator-root-ca.pem"),
    )
    .expect("copies");
    let refused = from(stranger.path());
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused
            .stderr
            .contains("the seed is not that of the deployment in"),
        "{}",
        refused.stderr
    );

    // What the last manifest but one gave to somebody who is not there any more.
    let text = fs::read_to_string(directory.join("manifest.0.json")).expect("reads");
    let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
    manifest["Policies"]["00"] = json!({"SANs": ["gone"], "WorkloadSecretID": "apps/gone"});
    fs::write(directory.join("manifest.0.json"), manifest.to_string()).expect("writes");
    fs::write(directory.join("manifest.1.json"), text).expect("writes");
    let imported = from(&directory);
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    let lost = imported
        .stderr
        .matches("no workload of the new manifest has the WorkloadSecretID")
        .count();
    assert!(
        lost == 1 && imported.stderr.contains(r#""apps/gone""#),
        "{}",
        imported.stderr
    );
    assert!(
        imported.stderr.contains("whoever had the seed"),
        "{}",
        imported.stderr
    );
    let again = import(&shares, &key);
    assert_eq!(again.code, 2, "{}", again.stderr);
    assert!(again.stderr.contains("already"), "{}", again.stderr);
    assert_eq!(secret_of(&later, &new), secret);
    let public_key = |pem: &str| {
        let certificate = Certificate::from_pem(pem).expect("certificate");
        let key = certificate.tbs_certificate().subject_public_key_info();
        key.subject_public_key.raw_bytes().to_vec()
    };
    let root_now = later
        .owner()
        .read("coordinator-root-ca.pem")
        .expect("reads");
    assert_eq!(public_key(&root_now), public_key(&root));

    // The new owners recover it.
    new.kill().expect("kills");
    let new = later.start_coordinator().expect("starts");
    let recovered = later
        .owner()
        .try_contrast(&["recover", "-c", &new.user_api()])
        .expect("runs");
    assert_eq!(recovered.code, 0, "{}", recovered.stderr);
}
