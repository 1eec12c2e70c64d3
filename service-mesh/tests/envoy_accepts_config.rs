//! Envoy's opinion of the configuration, and golden files of what it then loaded.
//!
//! `UPDATE_GOLDEN=1 cargo test -p contrast-service-mesh --test envoy_accepts_config` writes the files anew; read the difference before
//! committing it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says on standard error why it skips"
)]

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use contrast_service_mesh::{
    app::write_configuration,
    envoy::{Paths, admin::AdminInterface},
    model::{Mesh, Mode, Surroundings},
};
use serde_json::Value;

mod testbed;

use testbed::certificates::Generation;

/// Where the files are, in the golden files.
const DIRECTORY: &str = "/run/contrast-service-mesh";
const DEADLINE: Duration = Duration::from_secs(20);

const EGRESS: &str = "api#127.137.0.1:8081#api:8080##store#127.137.0.2:6379#10.0.0.3:6379##v6#[::1]:443#[fd00::1]:443";

struct Case {
    name: &'static str,
    mode: Mode,
    ingress: &'static str,
    egress: &'static str,
    change: fn(&mut Surroundings),
}

const V4: Mode = Mode::Explicit {
    pod: Some(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7))),
    application: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
};
const TRANSPARENT: Mode = Mode::Transparent { ipv6: true };

fn unchanged(_: &mut Surroundings) {}

const CASES: &[Case] = &[
    Case {
        name: "explicit-ports-and-entries",
        mode: V4,
        ingress: "web#8080#false##health#8081#true##api#8082#false#allow=web#protocol=grpc",
        egress: "",
        change: |surroundings| surroundings.ports = vec![8080, 9090],
    },
    Case {
        name: "explicit-egress-with-own-resolver",
        mode: V4,
        ingress: "DISABLED",
        egress: EGRESS,
        change: |surroundings| {
            surroundings.dns_resolver = Some(SocketAddr::from(([10, 0, 0, 10], 53)));
        },
    },
    Case {
        name: "transparent-nothing-declared",
        mode: TRANSPARENT,
        ingress: "",
        egress: "",
        change: unchanged,
    },
    Case {
        name: "transparent-ipv4-only-with-log",
        mode: Mode::Transparent { ipv6: false },
        ingress: "",
        egress: "api#transparent#api:8080",
        change: |surroundings| surroundings.connection_log = true,
    },
    Case {
        name: "transparent-disabled",
        mode: TRANSPARENT,
        ingress: "DISABLED",
        egress: "",
        change: unchanged,
    },
    Case {
        name: "transparent-entries",
        mode: TRANSPARENT,
        ingress: "web#8080#false##health#8081#true##dns#53#true#udp##store#6379#false#allow=api,shop/deployment/pay.v2##db#5432#false#allow=api#pod-address",
        egress: "",
        change: unchanged,
    },
    Case {
        name: "transparent-http",
        mode: TRANSPARENT,
        ingress: "one#8081#false#allow=a#protocol=http1##two#8082#false#protocol=http2",
        egress: "rpc#transparent#rpc:9000#protocol=grpc",
        change: |surroundings| surroundings.connection_log = true,
    },
    Case {
        name: "transparent-egress",
        mode: TRANSPARENT,
        ingress: "DISABLED",
        egress: "a#transparent#a:80##b#transparent#b.shop:81#identity=any##c#127.137.0.1:80#c:80#identity=c,shop/deployment/c##d#127.137.0.2:1#10.0.0.3:1",
        change: |surroundings| surroundings.admin = Some(SocketAddr::from(([127, 0, 0, 1], 9901))),
    },
];

impl Case {
    fn mesh(&self) -> Mesh {
        let mut surroundings = Surroundings {
            mode: self.mode,
            namespace: Some("votes".into()),
            ports: vec![],
            admin: None,
            metrics: None,
            dns_resolver: None,
            connection_log: false,
        };
        (self.change)(&mut surroundings);
        let ingress = self.ingress.parse().expect(self.name);
        let egress = self.egress.parse().expect(self.name);
        Mesh::new(&ingress, &egress, &surroundings).expect(self.name)
    }
}

/// Writes a configuration with certificates into a directory that is removed in the end.
fn configure(mesh: &Mesh) -> (tempfile::TempDir, Paths) {
    let directory = tempfile::tempdir().expect("directory");
    let paths = Paths {
        tls_config: directory.path().join("tls-config"),
        runtime: directory.path().to_owned(),
    };
    fs::create_dir(&paths.tls_config).expect("directory");
    Generation::new().issue().install(&paths.tls_config);
    write_configuration(mesh, &paths).expect("configuration");
    (directory, paths)
}

fn validate(envoy: &Path, paths: &Paths) -> Output {
    Command::new(envoy)
        .args(["--mode", "validate", "--config-path"])
        .arg(paths.bootstrap())
        .output()
        .expect("Envoy runs")
}

#[test]
fn envoy_accepts_every_configuration_without_a_warning() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    let many = (1..=1000)
        .map(|n| format!("i{n}#{n}#false#allow=a"))
        .collect::<Vec<_>>();
    let more = (1..=1000)
        .map(|n| format!("e{n}#transparent#e{n}:{n}"))
        .collect::<Vec<_>>();
    let many: Case = Case {
        name: "1,000 entries each",
        mode: TRANSPARENT,
        ingress: many.join("##").leak(),
        egress: more.join("##").leak(),
        change: unchanged,
    };
    for case in CASES.iter().chain([&many]) {
        let (_directory, paths) = configure(&case.mesh());
        let output = validate(&envoy, &paths);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {log}", case.name);
        assert!(!log.contains("deprecated"), "{}: {log}", case.name);
        assert!(!log.contains("[warning]"), "{}: {log}", case.name);
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.json"))
}

/// Starts Envoy in a network of its own, which has the pod's address, and asks it what it loaded.
async fn loaded(envoy: &Path, mesh: &Mesh, paths: &Paths) -> Result<Value, String> {
    let script = "ip link set lo up && ip addr add 10.0.0.7/32 dev lo && exec \"$@\"";
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", script, "sh"])
        .arg(envoy)
        .args([
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "error",
        ])
        .arg("--config-path")
        .arg(paths.bootstrap())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare");
    // An admin port would be in the other network.
    let admin = AdminInterface::of(mesh, paths);
    let start = Instant::now();
    let answer = loop {
        match admin.loaded_bootstrap().await {
            Ok(answer) => break Ok(answer),
            Err(error) if start.elapsed() > DEADLINE => break Err(error.to_string()),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        if child.try_wait().expect("status").is_some() {
            break Err("Envoy ended".to_owned());
        }
    };
    let _ = child.kill();
    let output = child.wait_with_output().expect("ended");
    answer.map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Without what differs from machine to machine and from version to version.
fn readable(answer: &Value, directory: &Path) -> String {
    let mut bootstrap = answer["configs"][0]["bootstrap"].clone();
    bootstrap
        .as_object_mut()
        .expect("a bootstrap")
        .remove("node");
    let text = serde_json::to_string_pretty(&sorted(bootstrap)).expect("JSON");
    text.replace(&directory.display().to_string(), DIRECTORY) + "\n"
}

/// With keys in order: Envoy tells those of the access log in any.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<String, Value> = map
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect();
            Value::Object(map.into_iter().collect())
        }
        Value::Array(values) => values.into_iter().map(sorted).collect(),
        other => other,
    }
}

#[tokio::test]
async fn what_envoy_loaded_is_as_in_the_golden_files() {
    let Some(envoy) = testbed::envoy() else {
        return;
    };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: listeners for redirected connections need root");
        return;
    }
    for case in CASES {
        let mut mesh = case.mesh();
        if let Some(admin) = mesh.admin() {
            // The socket is how this test asks; that an admin port becomes one is seen in the tests of traffic.
            assert!(admin.ip().is_loopback());
            let without = Case {
                change: unchanged,
                ..*case
            };
            mesh = without.mesh();
        }
        let (directory, paths) = configure(&mesh);
        let answer = loaded(&envoy, &mesh, &paths).await;
        let found = readable(
            &answer.unwrap_or_else(|error| panic!("{}: {error}", case.name)),
            directory.path(),
        );
        let path = golden(case.name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &found).expect("golden file");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{} differs; if that is wanted, run again with UPDATE_GOLDEN=1; found {found}",
            path.display()
        );
    }
}
