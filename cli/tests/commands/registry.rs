//! `generate` with a real registry (`docker-registry`), TLS under a CA of its own, and a password; `skopeo` fills it.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::{context::Context, fixture::Image, generate::APPLICATION};

/// htpasswd(1) of `me` with the password `s3cret`.
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n";
/// The same for `config.json`.
const BASIC: &str = "bWU6czNjcmV0";

struct Registry {
    process: Child,
    port: u16,
}

impl Registry {
    /// Starts it with its files in `directory`; its CA is in `certs/ca.crt` there.
    fn start(directory: &Path) -> Self {
        let key = KeyPair::generate().expect("key");
        let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = ca.self_signed(&key).expect("CA");
        let issuer = Issuer::new(ca, key);
        let server_key = KeyPair::generate().expect("key");
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let server = server.signed_by(&server_key, &issuer).expect("certificate");
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("directory");
            fs::write(&path, text).expect("writes");
            path.display().to_string()
        };
        write("certs/ca.crt", &certificate.pem());
        let certificate = write("server.pem", &server.pem());
        let key = write("server.key", &server_key.serialize_pem());
        let passwords = write("htpasswd", HTPASSWD);
        let free = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = free.local_addr().expect("address").port();
        drop(free);
        let conf = write(
            "registry.yml",
            &format!(
                "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: '127.0.0.1:{port}', tls: {{certificate: {certificate}, key: {key}}}}}\n\
                 auth: {{htpasswd: {{realm: private, path: {passwords}}}}}\n",
                directory.join("storage").display()
            ),
        );
        let process = Command::new("docker-registry")
            .args(["serve", &conf])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let registry = Self { process, port };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return registry;
            }
            thread::sleep(Duration::from_millis(100));
        }
        panic!("the registry does not listen on port {port}");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

#[test]
fn images_of_a_private_registry_are_read_once_and_pinned() {
    if !installed("docker-registry") || !installed("skopeo") {
        eprintln!("skipped: install docker-registry and skopeo");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let registry = Registry::start(directory.path());
    let image = Image::web();
    let layout = directory.path().join("layout");
    image.layout(&layout, "1");
    let name = format!("127.0.0.1:{}/app/web", registry.port);
    let certificates = directory.path().join("certs");
    let copied = Command::new("skopeo")
        .args(["copy", "--dest-creds", "me:s3cret", "--dest-cert-dir"])
        .arg(&certificates)
        .arg(format!("oci:{}:1", layout.display()))
        .arg(format!("docker://{name}:1"))
        .output()
        .expect("skopeo runs");
    assert!(copied.status.success(), "{copied:?}");

    let context = Context::new();
    let (coordinator, web) = APPLICATION.split_once("---\n").expect("two objects");
    let coordinator = coordinator
        .replace("registry.example/coordinator", &name)
        .replace(
            &"1".repeat(64),
            image.digest().to_string().trim_start_matches("sha256:"),
        );
    let web = web.replace(
        &format!("registry.example/web@sha256:{}", "2".repeat(64)),
        &format!("{name}:1"),
    );
    let yaml = format!(
        "{coordinator}---\n{}",
        web.replace("          command: [/web]\n", "")
    );
    let file = context.file("application.yml", &yaml);
    let ca = certificates.join("ca.crt").display().to_string();
    let with_ca = [
        "generate",
        "--reference-values",
        "metal-qemu-snp",
        "application.yml",
        "--skip-initializer",
        "--registry-ca",
        &ca,
    ];
    let run = |arguments: &[&str]| context.online(arguments);
    let refused = |output: Output, expected: &str| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "expected {expected} in {said}");
        assert_eq!(
            fs::read_to_string(&file).expect("reads"),
            yaml,
            "the input was changed"
        );
        assert!(!context.path("manifest.json").exists());
    };
    refused(run(&with_ca[..4]), "certificate");
    refused(run(&with_ca), "no credentials are stored for it");
    let login_hint = format!("docker login 127.0.0.1:{}`", registry.port);
    refused(run(&with_ca), &login_hint);
    let login = |auth: &str| {
        format!(
            r#"{{"auths": {{"127.0.0.1:{}": {{"auth": "{auth}"}}}}}}"#,
            registry.port
        )
    };
    context.file(".docker/config.json", &login("bWU6d3Jvbmc="));
    refused(run(&with_ca), "does not accept the credentials");
    context.file(".docker/config.json", &login(BASIC));
    let output = run(&with_ca);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let pinned = format!(
        "pinned `{name}:1` to `{name}:1@{}`, as it is now in registries",
        image.digest()
    );
    assert!(said.contains(&pinned), "{said}");
    let generated = fs::read_to_string(&file).expect("reads");
    let policy = context.run(&["policy", "show", "web", "application.yml"]);
    // Entrypoint, and the user by the name that the image's layers give it.
    for expected in ["/docker-entrypoint.sh", "user        101:101"] {
        assert!(policy.contains(expected), "{policy}");
    }

    // Everything is known now, so it works without a registry, and gives the same bytes.
    drop(registry);
    context.file("application.yml", &yaml);
    let output = run(&with_ca);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("as the image cache says"), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("reads"), generated);
    let output = run(&[&with_ca[..], &["--check"]].concat());
    assert_eq!(output.status.code(), Some(0));

    // What a tag means now can only be asked of the registry, which is gone.
    context.file("application.yml", &yaml);
    let output = run(&[&with_ca[..], &["--refresh-tags"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(fs::read_to_string(&file).expect("reads"), yaml);
}
