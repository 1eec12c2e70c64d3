//! `service-mesh check` against real Envoys: what it says of those that let it in, and of those that do not.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says on standard error why it skips"
)]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Command, Output},
};

mod testbed;

use testbed::{
    Sidecar,
    certificates::{Bundle, Generation},
    echo, envoy,
};

/// A pod that is not running: its files, and what `service-mesh check` says there.
struct Client(tempfile::TempDir);

impl Client {
    fn with(bundle: &Bundle) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let tls_config = directory.path().join("tls-config");
        fs::create_dir(&tls_config).expect("directory");
        bundle.install(&tls_config);
        let root_ca = tls_config.join("coordinator-root-ca.pem");
        fs::write(root_ca, &bundle.root_ca).expect("root CA");
        fs::write(directory.path().join("ready"), "").expect("ready file");
        Self(directory)
    }

    fn run(&self, egress: &str, arguments: &[&str]) -> Output {
        let program = Command::new(env!("CARGO_BIN_EXE_service-mesh"));
        self.run_as(program, egress, arguments)
    }

    /// Runs a command line whose end is the program itself.
    fn run_as(&self, mut program: Command, egress: &str, arguments: &[&str]) -> Output {
        program
            .arg("check")
            .args(arguments)
            .env_remove("CONTRAST_NAMESPACE")
            .env("CONTRAST_INGRESS_MODE", "explicit")
            .env("CONTRAST_BASE_DIR", self.0.path())
            .env("CONTRAST_READY_FILE", self.0.path().join("ready"))
            .env("CONTRAST_EGRESS_PROXY_CONFIG", egress)
            .output()
            .expect("the check runs")
    }

    /// Reasons of what is not ok on the way to `remote`, which any member of the mesh may be; the exit code must fit.
    fn reasons(&self, remote: SocketAddr) -> Vec<String> {
        let egress = format!("server#127.9.9.9:1#{remote}#identity=any");
        let output = self.run(&egress, &["server", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let checks = report["checks"].as_array().expect("checks").clone();
        assert!(checks.len() > 8, "{report}");
        let reasons: Vec<String> = checks
            .iter()
            .filter_map(|row| Some(row["reason"].as_str()?.to_owned()))
            .collect();
        let code = i32::from(!reasons.is_empty());
        assert_eq!(output.status.code(), Some(code), "{report:#}");
        reasons
    }
}

/// A sidecar before an echoing application, with this behind the port in its ingress entry.
fn server(envoy: &Path, pod: u8, entry: &str, bundle: &Bundle) -> (Sidecar, SocketAddr) {
    server_with(envoy, pod, entry, bundle, &[])
}

fn server_with(
    envoy: &Path,
    pod: u8,
    entry: &str,
    bundle: &Bundle,
    further: &[(&'static str, String)],
) -> (Sidecar, SocketAddr) {
    let ip = Ipv4Addr::new(127, 79, pod, 1);
    let port = echo();
    let own = [
        (
            "CONTRAST_INGRESS_PROXY_CONFIG",
            format!("app#{port}#{entry}"),
        ),
        ("CONTRAST_POD_IP", ip.to_string()),
    ];
    let environment = [&own, further].concat();
    let sidecar = Sidecar::ready(envoy, &environment, |directory| bundle.install(directory));
    (sidecar, SocketAddr::from((ip, port)))
}

#[test]
fn envoy_that_lets_in_and_envoy_that_does_not() {
    let Some(envoy) = envoy() else { return };
    let (mesh, other) = (Generation::new(), Generation::new());
    let client = Client::with(&mesh.issue());
    let start = |pod, entry| server(&envoy, pod, entry, &mesh.issue());

    let (_open, address) = start(1, "false");
    assert_eq!(client.reasons(address), Vec::<String>::new());

    // The client's certificate has no SPIFFE ID at all.
    let (_choosy, address) = start(2, "false#allow=shop/api");
    assert_eq!(client.reasons(address), ["not-allowed"]);

    let stranger = Client::with(&other.issue());
    assert_eq!(stranger.reasons(address), ["other-mesh", "peer-unknown-ca"]);

    let keyless = Client::with(&mesh.issue());
    fs::remove_file(keyless.0.path().join("tls-config/key.pem")).expect("removed");
    assert_eq!(
        keyless.reasons(address),
        ["files-unusable", "certificate-required"]
    );

    let plain = SocketAddr::from((Ipv4Addr::LOCALHOST, echo()));
    assert_eq!(client.reasons(plain), ["not-tls"]);
}

#[test]
fn allowed_workloads_pass_and_others_are_told_that_they_are_not_allowed() {
    let Some(envoy) = envoy() else { return };
    let mesh = Generation::new();
    let allow = "false#allow=friend,shop/statefulset/store";
    let environment = ("CONTRAST_NAMESPACE", "shop".to_owned());
    let (_choosy, address) = server_with(&envoy, 3, allow, &mesh.issue(), &[environment]);
    for allowed in ["deployment/friend", "daemonset/friend", "statefulset/store"] {
        let found = Client::with(&mesh.issue_as(allowed)).reasons(address);
        assert_eq!(found, Vec::<String>::new(), "{allowed}");
    }
    for refused in ["deployment/foe", "deployment/store", "deployment/friendly"] {
        let found = Client::with(&mesh.issue_as(refused)).reasons(address);
        assert_eq!(found, ["not-allowed"], "{refused}");
    }
}

#[test]
fn what_is_wrong_with_certificates_is_told_of_both_sides() {
    let Some(envoy) = envoy() else { return };
    let old = Generation::new();
    let new = old.next();
    let (_server, address) = server(&envoy, 4, "false", &new.issue());
    let reasons = |bundle: &Bundle| Client::with(bundle).reasons(address);
    assert_eq!(
        reasons(&new.issue_expired()),
        ["own-expired", "peer-says-expired"]
    );
    assert_eq!(
        reasons(&old.issue().and_trusts(&new)),
        ["peer-unknown-ca"],
        "the pod did not renew"
    );
    let (_behind, address) = server(&envoy, 5, "false", &old.issue());
    assert_eq!(
        Client::with(&new.issue()).reasons(address),
        ["other-generation", "peer-unknown-ca"],
        "the server did not renew"
    );
    let (_overlap, address) = server(&envoy, 6, "false", &new.issue().and_trusts(&old));
    let behind = Client::with(&old.issue().and_trusts(&new));
    assert_eq!(behind.reasons(address), Vec::<String>::new());
}

#[test]
fn port_without_tls_is_told_from_one_in_the_mesh() {
    let Some(envoy) = envoy() else { return };
    let mesh = Generation::new();
    let client = Client::with(&mesh.issue());
    let (_plain, address) = server(&envoy, 7, "true", &mesh.issue());
    assert_eq!(client.reasons(address), ["not-tls"]);
}

#[test]
fn text_names_what_was_found_and_a_wrong_target_is_a_usage_error() {
    let client = Client::with(&Generation::new().issue());
    let output = client.run("", &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("ok    own validity: valid until"), "{text}");

    let output = client.run("", &["nothing"]);
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(text.contains("expected host:port"), "{text}");
}

/// What the check says of the kernel's rules in a network namespace of its own, after the shell command `prepare` ran there; the last line of
/// `prepare` may put a program before `"$@"`.
fn reasons_behind(client: &Client, prepare: &str, egress: &str, target: &[&str]) -> Vec<String> {
    let mut program = Command::new("unshare");
    let script = format!("set -e; {prepare} \"$@\"");
    program.args(["--net", "sh", "-c", &script, "sh"]);
    program.args([
        env!("CARGO_BIN_EXE_service-mesh"),
        "--ingress-mode=transparent",
    ]);
    let arguments = [target, &["--json"]].concat();
    let output = client.run_as(program, egress, &arguments);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let checks = report["checks"].as_array().expect("checks");
    checks
        .iter()
        .filter_map(|row| Some(row["reason"].as_str()?.to_owned()))
        .collect()
}

#[test]
fn rules_of_the_kernel_are_looked_at_and_the_mark_needs_its_capability() {
    let works = Command::new("unshare")
        .args(["--net", "nft", "list", "tables"])
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: needs root, unshare and nft");
        return;
    }
    let client = Client::with(&Generation::new().issue());
    let check = |prepare| reasons_behind(&client, prepare, "", &[]);
    assert_eq!(check(""), ["not-redirected"]);
    assert_eq!(
        check("nft add table inet contrast_deny;"),
        ["inbound-denied", "not-redirected"]
    );
    assert_eq!(
        check("nft add table inet contrast_mesh;"),
        Vec::<String>::new()
    );

    let egress = "db#transparent#192.0.2.1:5432";
    // SO_MARK is for either capability.
    let without = "setpriv --bounding-set=-net_admin,-net_raw --inh-caps=-net_admin,-net_raw";
    assert_eq!(
        reasons_behind(&client, without, egress, &["db"]),
        ["rules-hidden", "captured"]
    );
    // With the mark it is tried, and an empty network namespace leads nowhere.
    assert_eq!(
        reasons_behind(
            &client,
            "nft add table inet contrast_mesh;",
            egress,
            &["db"]
        ),
        ["no-connection"]
    );
}
