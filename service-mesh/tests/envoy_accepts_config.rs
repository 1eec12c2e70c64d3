//! Golden files of Envoy's configuration, and Envoy's own opinion of them.
//!
//! `UPDATE_GOLDEN=1 cargo test -p contrast-service-mesh` writes the files anew; read the difference before committing it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says on standard error why it skips"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use clap::Parser;
use contrast_service_mesh::{
    config::Config,
    envoy::{Paths, bootstrap::Bootstrap, tls::SecretFile, to_json},
};

mod testbed;

use testbed::certificates::Generation;

const TLS_CONFIG: &str = "/contrast/tls-config";
const RUNTIME: &str = "/run/contrast-service-mesh";

const INGRESS: &str = "--ingress=web#8080#false##health#8081#true";
const EGRESS: &str = "--egress=api#127.137.0.1:8081#api:8080##store#127.137.0.2:6379#10.0.0.3:6379##v6#127.137.0.3:443#[fd00::1]:443";

/// File name and the sidecar's arguments.
const CASES: [(&str, &[&str]); 8] = [
    ("nothing", &[]),
    (
        "ingress-ports",
        &["--pod-ip=10.0.0.7", "--ingress-ports=8080,9090"],
    ),
    (
        "ingress-entries",
        &["--pod-ip=10.0.0.7", "--ingress-ports=8080,9090", INGRESS],
    ),
    (
        "ingress-plain",
        &["--pod-ip=fd00::7", "--ingress=health#8081#true"],
    ),
    (
        "ingress-disabled",
        &["--ingress=DISABLED", "--ingress-ports=8080", EGRESS],
    ),
    ("egress", &[EGRESS]),
    (
        "egress-own-resolver",
        &[EGRESS, "--dns-resolver=10.0.0.10:53"],
    ),
    (
        "both-with-admin-port",
        &[
            "--pod-ip=10.0.0.7",
            "--ingress-ports=9090",
            INGRESS,
            EGRESS,
            "--admin-port=9901",
        ],
    ),
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.json"))
}

fn compare(name: &str, found: &str) {
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).expect("golden file");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found,
        expected,
        "{} differs; if that is wanted, run again with UPDATE_GOLDEN=1",
        path.display()
    );
}

#[test]
fn configuration_is_as_in_the_golden_files() {
    let paths = Paths {
        tls_config: TLS_CONFIG.into(),
        runtime: RUNTIME.into(),
    };
    for (name, arguments) in CASES {
        let config = Config::try_parse_from([&["service-mesh"], arguments].concat()).expect(name);
        let mesh = config.mesh().expect(name);
        compare(name, &to_json(&Bootstrap::new(&mesh, &paths)).expect(name));
    }
    compare(
        "secret-certificate",
        &to_json(&SecretFile::certificate(&paths)).expect("JSON"),
    );
    compare(
        "secret-peer-ca",
        &to_json(&SecretFile::peer_ca(&paths)).expect("JSON"),
    );
}

/// Lets Envoy validate `bootstrap` with the golden secret files, all placed below `directory`.
fn validate(envoy: &Path, directory: &Path, bootstrap: &str) -> Output {
    let place = |text: &str| {
        let tls_config = directory.join("tls-config").display().to_string();
        text.replace(TLS_CONFIG, &tls_config)
            .replace(RUNTIME, &directory.display().to_string())
    };
    let put = |name: &str, text: &str| fs::write(directory.join(name), place(text)).expect("file");
    let read = |name: &str| fs::read_to_string(golden(name)).expect("golden file");
    put("certificate.json", &read("secret-certificate"));
    put("peer-ca.json", &read("secret-peer-ca"));
    put("bootstrap.json", bootstrap);
    Command::new(envoy)
        .args(["--mode", "validate", "--config-path"])
        .arg(directory.join("bootstrap.json"))
        .output()
        .expect("Envoy runs")
}

#[test]
fn envoy_accepts_every_golden_file_without_a_warning() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let directory = tempfile::tempdir().expect("directory");
    fs::create_dir(directory.path().join("tls-config")).expect("directory");
    Generation::new()
        .issue()
        .install(&directory.path().join("tls-config"));
    for (name, _) in CASES {
        let bootstrap = fs::read_to_string(golden(name)).expect(name);
        let output = validate(&envoy, directory.path(), &bootstrap);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {log}");
        assert!(!log.contains("deprecated"), "{name}: {log}");
    }
}

#[test]
fn envoy_refuses_a_field_that_it_does_not_know() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let directory = tempfile::tempdir().expect("directory");
    let bootstrap = fs::read_to_string(golden("egress")).expect("golden file");
    let changed = bootstrap.replacen("\"connect_timeout\"", "\"connect_time\"", 1);
    assert_ne!(bootstrap, changed);
    let output = validate(&envoy, directory.path(), &changed);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("connect_time"));
}
