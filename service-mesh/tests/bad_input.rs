//! The sidecar as a process in a pod's network namespace, with input that it cannot use: it ends, says why, and lets nothing in.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says on standard error why it skips"
)]

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use contrast_firewall::Backend;
use contrast_service_mesh::envoy::tls::{CERTIFICATE_FILE, KEY_FILE, PEER_CA_FILE};
use tempfile::TempDir;

mod testbed;

use testbed::{
    Sidecar,
    certificates::{Bundle, Generation},
    connect,
};

/// Denies as the guest does at boot, prepares, runs the sidecar, and says whether what is new is still denied.
const SCRIPT: &str = r#"
set -e
ip link set lo up
nft -f "$DIRECTORY/deny.nft"
eval "$PREPARE"
set +e
timeout -k 5 90 $AS "$DIRECTORY/sidecar" 2> "$DIRECTORY/log"
code=$?
nft list table inet contrast_deny > "$DIRECTORY/denied"
exit $code
"#;

/// Starts the sidecar as a user without any right.
const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";

const EXIT_FAILURE: Option<i32> = Some(1);
const EXIT_USAGE: Option<i32> = Some(64);

/// Whether namespaces can be made; says why not.
fn possible() -> bool {
    let command = "ip link set lo up && nft list tables && setpriv --version";
    let tried = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", command])
        .output();
    let why = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("unshare: {error}"),
    };
    eprintln!("SKIPPED: a pod's namespaces need root, iproute2, nftables and util-linux: {why}");
    false
}

/// A pod that was booted with the default deny, and what its sidecar is told.
struct Pod {
    directory: TempDir,
    environment: Vec<(&'static str, String)>,
    prepare: &'static str,
    /// The program, with arguments, that starts the sidecar.
    starter: &'static str,
}

/// How the sidecar ended.
struct Outcome {
    code: Option<i32>,
    log: String,
    denied: bool,
    ready: bool,
    took: Duration,
}

impl Pod {
    /// None where there can be no such pod.
    fn new() -> Option<Self> {
        if !possible() {
            return None;
        }
        let directory = tempfile::tempdir().expect("directory");
        let path = |name: &str| directory.path().join(name);
        for name in ["base", "base/tls-config", "run"] {
            fs::create_dir(path(name)).expect("directory");
            fs::set_permissions(path(name), Permissions::from_mode(0o755)).expect("mode");
        }
        // Envoy's user, and a sidecar without root, look into it.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("mode");
        let binary = env!("CARGO_BIN_EXE_service-mesh");
        // The build directory may be closed to other users.
        if fs::hard_link(binary, path("sidecar")).is_err() {
            fs::copy(binary, path("sidecar")).expect("copies");
        }
        fs::write(path("deny.nft"), Backend::Nftables.deny_text()).expect("rules");
        let environment = vec![
            ("CONTRAST_ENVOY_BINARY", "/nowhere/envoy".to_owned()),
            ("CONTRAST_ENVOY_CONCURRENCY", "1".to_owned()),
            ("CONTRAST_BASE_DIR", path("base").display().to_string()),
            ("CONTRAST_RUNTIME_DIR", path("run").display().to_string()),
            ("CONTRAST_READY_FILE", path("ready").display().to_string()),
            ("CONTRAST_CERTIFICATE_TIMEOUT_SECONDS", "1".to_owned()),
            ("CONTRAST_START_TIMEOUT_SECONDS", "2".to_owned()),
        ];
        Some(Self {
            directory,
            environment,
            prepare: "",
            starter: "",
        })
    }

    /// A pod with a real Envoy; none where there is none.
    fn with_envoy() -> Option<Self> {
        let envoy = testbed::envoy()?;
        let mut pod = Self::new()?;
        pod.set("CONTRAST_ENVOY_BINARY", envoy.display().to_string());
        Some(pod)
    }

    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.push((name, value.into()));
    }

    fn tls_config(&self) -> PathBuf {
        self.directory.path().join("base/tls-config")
    }

    /// Installs files that Envoy can read.
    fn install(&self, bundle: &Bundle) {
        bundle.install(&self.tls_config());
        for name in [CERTIFICATE_FILE, KEY_FILE, PEER_CA_FILE] {
            self.set_mode(name, 0o444);
        }
    }

    fn set_mode(&self, name: &str, mode: u32) {
        let path = self.tls_config().join(name);
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode");
    }

    fn run(&self) -> Outcome {
        let started = Instant::now();
        let script = self.directory.path().join("script");
        fs::write(&script, SCRIPT).expect("script");
        let status = Command::new("unshare")
            .args(["--net", "--mount", "sh"])
            .arg(script)
            .env("DIRECTORY", self.directory.path())
            .env("PREPARE", self.prepare)
            .env("AS", self.starter)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .status()
            .expect("unshare");
        let read = |name: &str| fs::read_to_string(self.directory.path().join(name));
        let log = read("log").unwrap_or_else(|error| panic!("the sidecar did not run: {error}"));
        let denied = read("denied").expect("rules");
        Outcome {
            code: status.code(),
            log,
            denied: denied.contains("policy drop"),
            ready: self.directory.path().join("ready").exists(),
            took: started.elapsed(),
        }
    }
}

impl Outcome {
    /// It ended with `code`, everything of `said` is in the log, and nothing new comes in.
    fn refused(&self, case: &str, code: Option<i32>, said: &[&str]) {
        assert_eq!(self.code, code, "{case}:\n{}", self.log);
        for part in said {
            assert!(self.log.contains(part), "{case}: {part:?} in\n{}", self.log);
        }
        assert!(
            self.denied,
            "{case}: the default deny is gone:\n{}",
            self.log
        );
        assert!(
            !self.ready,
            "{case}: it says that it is ready:\n{}",
            self.log
        );
    }
}

#[test]
fn missing_and_empty_certificate_files_are_named_at_the_deadline() {
    let Some(pod) = Pod::new() else { return };
    let missing = pod.run();
    let said = [
        "still missing or empty after 1 s",
        CERTIFICATE_FILE,
        KEY_FILE,
        PEER_CA_FILE,
    ];
    missing.refused("missing", EXIT_FAILURE, &said);

    Generation::new().issue().install(&pod.tls_config());
    fs::write(pod.tls_config().join(KEY_FILE), "").expect("empties");
    let empty = pod.run();
    empty.refused(
        "empty",
        EXIT_FAILURE,
        &["still missing or empty after 1 s", KEY_FILE],
    );
    let last = empty.log.lines().last().unwrap_or_default();
    assert!(!last.contains(CERTIFICATE_FILE), "{last}");
}

#[test]
fn certificate_files_that_nobody_can_use_are_an_error_with_the_reason() {
    let Some(pod) = Pod::with_envoy() else { return };
    let generation = Generation::new();
    let good = || generation.issue();
    let garbage = || "garbage".to_owned();
    let cases: [(&str, Bundle, &str); 4] = [
        (
            "certificate",
            Bundle {
                certificate: garbage(),
                ..good()
            },
            "Failed to load certificate chain",
        ),
        (
            "key",
            Bundle {
                key: garbage(),
                ..good()
            },
            "Failed to load private key",
        ),
        (
            "mesh CA",
            Bundle {
                peer_ca: garbage(),
                ..good()
            },
            "Failed to load trusted CA certificates",
        ),
        (
            "key of another certificate",
            Bundle {
                key: good().key,
                ..good()
            },
            "KEY_VALUES_MISMATCH",
        ),
    ];
    for (case, bundle, said) in cases {
        pod.install(&bundle);
        pod.run().refused(case, EXIT_FAILURE, &[said]);
    }
}

#[test]
fn key_that_envoy_may_not_read_is_named() {
    let Some(pod) = Pod::with_envoy() else { return };
    pod.install(&Generation::new().issue());
    pod.set_mode(KEY_FILE, 0o400);
    pod.run().refused("unreadable", EXIT_FAILURE, &[KEY_FILE]);
}

#[test]
fn directory_that_the_sidecar_may_not_search_is_named() {
    let Some(mut pod) = Pod::new() else { return };
    pod.install(&Generation::new().issue());
    pod.set_mode(".", 0o700);
    pod.starter = NOBODY;
    // Without root there is no other mode.
    pod.set("CONTRAST_INGRESS_MODE", "explicit");
    pod.set("CONTRAST_EGRESS_PROXY_CONFIG", "api#127.0.0.1:8081#api:80");
    let said = ["cannot look at", CERTIFICATE_FILE, "Permission denied"];
    pod.run().refused("not searchable", EXIT_FAILURE, &said);
}

#[test]
fn full_disk_is_named_with_the_path() {
    let Some(mut pod) = Pod::new() else { return };
    pod.install(&Generation::new().issue());
    for (case, prepare) in [
        (
            "no space",
            r#"mount -t tmpfs -o size=4k none "$CONTRAST_RUNTIME_DIR"; head -c 4096 /dev/zero > "$CONTRAST_RUNTIME_DIR/filled""#,
        ),
        (
            "no inode",
            r#"mount -t tmpfs -o nr_inodes=1 none "$CONTRAST_RUNTIME_DIR""#,
        ),
        (
            "read only",
            r#"mount -t tmpfs -o ro none "$CONTRAST_RUNTIME_DIR""#,
        ),
    ] {
        pod.prepare = prepare;
        let cause = match case {
            "read only" => "Read-only file system",
            _ => "No space left on device",
        };
        let runtime = pod.directory.path().join("run");
        let said = ["cannot write", &runtime.display().to_string(), cause];
        pod.run().refused(case, EXIT_FAILURE, &said);
    }
}

#[test]
fn missing_programs_are_named() {
    let Some(mut pod) = Pod::new() else { return };
    pod.install(&Generation::new().issue());
    pod.run().refused(
        "no Envoy",
        EXIT_FAILURE,
        &["/nowhere/envoy", "CONTRAST_ENVOY_BINARY"],
    );
    // Not an executable either.
    let bundle = pod.tls_config().join(PEER_CA_FILE).display().to_string();
    pod.set("CONTRAST_ENVOY_BINARY", bundle.clone());
    pod.run().refused(
        "not executable",
        EXIT_FAILURE,
        &[&bundle, "Permission denied"],
    );
    pod.starter = "env PATH=/nowhere";
    pod.run().refused(
        "no PATH",
        EXIT_FAILURE,
        &["`nft` is not in PATH", "install nftables"],
    );
}

#[test]
fn sidecar_without_root_says_what_it_lacks() {
    let Some(mut pod) = Pod::new() else { return };
    pod.install(&Generation::new().issue());
    pod.starter = NOBODY;
    pod.run()
        .refused("nobody", EXIT_FAILURE, &["CAP_NET_ADMIN"]);
}

#[test]
fn capture_of_the_mesh_api_is_a_usage_error_that_points_at_the_port() {
    let Some(mut pod) = Pod::new() else { return };
    pod.set(
        "CONTRAST_EGRESS_PROXY_CONFIG",
        "x#transparent#coordinator:7777",
    );
    let said = [
        "x#transparent#coordinator:7777",
        "^",
        "like 127.137.0.1:7777",
    ];
    pod.run().refused("7777", EXIT_USAGE, &said);
}

fn many(count: u32, entry: impl Fn(u32) -> String) -> String {
    let entries: Vec<_> = (0..count).map(entry).collect();
    entries.join("##")
}

#[test]
fn too_many_transparent_entries_are_a_usage_error_that_says_how_many_there_may_be() {
    let Some(mut pod) = Pod::new() else { return };
    let egress = many(4_500, |n| format!("e{n}#transparent#a:{}", 20_000 + n));
    pod.set("CONTRAST_EGRESS_PROXY_CONFIG", egress);
    let outcome = pod.run();
    let said = ["expected at most 1000 transparent egress entries, found 4500"];
    outcome.refused("4,500", EXIT_USAGE, &said);
    assert!(outcome.took < Duration::from_secs(20), "{:?}", outcome.took);
}

/// As many as fit into the environment, on distinct addresses.
#[test]
fn thousands_of_egress_entries_are_served_within_the_usual_time() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    // Addresses, so that no name server takes part.
    let egress = many(3_500, |n| {
        format!("e{n}#127.81.{}.{}:80#10.0.0.3:1", n / 250, n % 250 + 1)
    });
    let environment = [
        ("CONTRAST_INGRESS_PROXY_CONFIG", "DISABLED".to_owned()),
        ("CONTRAST_EGRESS_PROXY_CONFIG", egress),
    ];
    let bundle = Generation::new().issue();
    let sidecar = Sidecar::ready(&envoy, &environment, |directory| bundle.install(directory));
    connect(SocketAddr::from(([127, 81, 13, 250], 80))).expect("the last entry listens");
    drop(sidecar);
}
