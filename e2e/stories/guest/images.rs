//! Images for the agent: the store, the puller, and an agent that asks as soon as it starts.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::boot::{Guest, deployed, possible};

const DENY: &str = "contrast-deny-ingress.service";
const INITDATA: &str = "contrast-check-initdata.service";
const STORE: &str = "contrast-image-store.service";
const PULLER: &str = "contrast-image-puller.service";
const NEEDED: [&str; 3] = ["docker-registry", "skopeo", "setcap"];
const ADDRESS: &str = "127.0.0.1:5000";
const STARTED: &str = "touch /result/started";

#[test]
fn agent_gets_an_image_with_all_that_belongs_to_it() {
    if !possible(&NEEDED) {
        return;
    }
    // The registry is in the guest, because the guest has no network.
    let guest = Guest::new(
        &[DENY, STORE, PULLER],
        "ask-for-image /run/confidential-containers/cdh.sock $(cat /result/image) /run/kata-containers/one >/result/said 2>&1; \
         cd /run/kata-containers/one/rootfs && { cat hello; stat -c \"%%n %%a %%u:%%g\" su app app/file; getcap ping; \
         mknod node c 1 3 && stat -c \"%%n %%F %%t:%%T\" node; ls; } >/result/content 2>&1",
    );
    guest.add_program("ask-for-image", "examples/ask-for-image");
    let result = guest.result();
    let image = image_in_registry(&result);
    fs::write(result.join("image"), &image).expect("writes");
    let insecure = format!("[[registry]]\nlocation = \"{ADDRESS}\"\ninsecure = true\n");
    fs::write(result.join("registries.conf"), insecure).expect("writes");
    write_registry_conf(&result.join("guest.yml"), "/result/registry", ADDRESS);
    guest.add_unit(
        "registry.service",
        "[Unit]\nBefore=kata-agent.service\n[Service]\nExecStart=/usr/bin/docker-registry serve /result/guest.yml\n\
         ExecStartPost=/bin/sh -c 'until (: </dev/tcp/127.0.0.1/5000) 2>/dev/null; do sleep 0.1; done'\n"
            .replace("/bin/sh", "/bin/bash")
            .as_str(),
    );
    guest.add_unit(
        "kata-agent.service.d/registry.conf",
        "[Unit]\nRequires=registry.service\n",
    );
    guest.add_unit(
        &format!("{PULLER}.d/registry.conf"),
        "[Service]\nEnvironment=CONTRAST_IMAGE_PULLER_OPTIONS=--registries-conf=/result/registries.conf\n",
    );
    let boot = guest.boot();
    let said = boot.read("said").expect(&boot.console);
    let digest = image.split_once('@').expect("a digest").1;
    assert_eq!(said.trim(), digest, "{}", boot.console);
    assert_eq!(boot.state(PULLER), "active", "{}", boot.console);
    assert_eq!(
        boot.state(STORE),
        "inactive",
        "there is no disk: {}",
        boot.console
    );
    let content = boot.read("content").expect(&boot.console);
    assert_eq!(
        content,
        "hello from the image\nsu 4755 0:0\napp 700 1000:1001\napp/file 640 1000:1001\nping cap_net_raw=ep\n\
         node character special file 1:3\napp\nhello\nnode\nping\nsu\n"
    );
}

#[test]
fn agent_does_not_start_when_the_disk_for_images_cannot_be_encrypted() {
    if !possible(&[]) {
        return;
    }
    let mut guest = Guest::new(&[STORE, PULLER], STARTED);
    fs::write(guest.result().join("disk"), "no disk").expect("writes");
    guest.bind("disk", "/dev/image_store");
    let boot = guest.boot();
    assert_eq!(boot.state(STORE), "failed", "{}", boot.console);
    assert_eq!(boot.state(PULLER), "inactive", "{}", boot.console);
    assert_eq!(boot.read("started"), None, "{}", boot.console);
    assert!(boot.console.contains("error: "), "{}", boot.console);
}

#[test]
fn agent_does_not_start_without_somebody_to_ask_for_images() {
    if !possible(&[]) {
        return;
    }
    let guest = Guest::new(&[STORE, PULLER], STARTED);
    guest.add_unit(
        &format!("{PULLER}.d/broken.conf"),
        "[Service]\nEnvironment=CONTRAST_IMAGE_PULLER_OPTIONS=--registry-ca=/nowhere\n",
    );
    let boot = guest.boot();
    assert_eq!(boot.state(PULLER), "failed", "{}", boot.console);
    assert_eq!(boot.read("started"), None, "{}", boot.console);
    assert!(
        boot.console.contains("cannot read /nowhere"),
        "{}",
        boot.console
    );
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    if !possible(&["systemd-analyze"]) {
        return;
    }
    let root = tempfile::tempdir().expect("directory");
    let at = |path: &str| root.path().join(path);
    for path in ["etc/systemd/system", "usr/bin"] {
        fs::create_dir_all(at(path)).expect("directory");
    }
    fs::copy("/bin/true", at("usr/bin/initializer")).expect("copies");
    for unit in [DENY, INITDATA, STORE, PULLER] {
        let to = at("etc/systemd/system").join(unit);
        fs::copy(deployed(unit), to).expect("copies");
    }
    let verify = |unit: &str| {
        let root = format!("--root={}", root.path().display());
        let output = Command::new("systemd-analyze")
            .args(["verify", "--recursive-errors=no", "--man=no", &root, unit])
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said)
    };
    for unit in [DENY, INITDATA, STORE, PULLER] {
        assert_eq!(verify(unit), (true, String::new()), "{unit}");
    }
    let path = at("etc/systemd/system/broken.service");
    fs::write(
        &path,
        "[Service]\nExecStart=/usr/bin/initializer\nReadyWhenever=yes\n",
    )
    .expect("writes");
    let (_, said) = verify("broken.service");
    assert!(
        said.contains("ReadyWhenever"),
        "the check finds what is wrong: {said}"
    );
}

struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn write_registry_conf(path: &Path, storage: &str, address: &str) {
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: '{address}'}}\n"
    );
    fs::write(path, text).expect("writes");
}

/// Puts an image of two layers into the storage of a registry, `registry` below `directory`, and returns the guest's reference to it.
fn image_in_registry(directory: &Path) -> String {
    let layers = tempfile::tempdir().expect("directory");
    run(Command::new("sh").current_dir(layers.path()).args([
        "-euc",
        "umask 022; mkdir -p 0/app 1; echo hello from the image > 0/hello; echo gone > 0/gone; echo su > 0/su; chmod 4755 0/su
         echo ping > 0/ping; setcap cap_net_raw+ep 0/ping; echo app > 0/app/file; chmod 640 0/app/file; chown -R 1000:1001 0/app; chmod 700 0/app
         : > 1/.wh.gone
         for layer in 0 1; do tar --format=pax --xattrs --xattrs-include='*' -cf $layer.tar -C $layer .; done",
    ]));
    let layout = layers.path().join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("directory");
    let put = |kind: &str, blob: &[u8]| {
        let hex = hex::encode(digest(&SHA256, blob));
        fs::write(blobs.join(&hex), blob).expect("writes");
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": blob.len()})
    };
    let tars = ["0.tar", "1.tar"].map(|name| fs::read(layers.path().join(name)).expect("layer"));
    let described = tars.each_ref().map(|tar| put("layer.v1.tar", tar));
    let diff_ids: Vec<&Value> = described
        .iter()
        .filter_map(|layer| layer.get("digest"))
        .collect();
    let config = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = put("config.v1+json", config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": described,
    });
    let manifest = put("manifest.v1+json", manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).expect("writes");
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("writes");

    let free = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = free.local_addr().expect("address").to_string();
    drop(free);
    let conf = layers.path().join("registry.yml");
    let storage = directory.join("registry");
    write_registry_conf(&conf, &storage.display().to_string(), &address);
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&conf)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _registry = Registry(child.expect("starts"));
    for _ in 0..100 {
        if TcpStream::connect(&address).is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let remote = format!("docker://{address}/app:1");
    let local = format!("oci:{}", layout.display());
    run(Command::new("skopeo").args(["copy", "--dest-tls-verify=false", &local, &remote]));
    let inspect = [
        "inspect",
        "--tls-verify=false",
        "--format={{.Digest}}",
        &remote,
    ];
    let shown = run(Command::new("skopeo").args(inspect));
    let digest = String::from_utf8(shown.stdout).expect("text");
    format!("{ADDRESS}/app@{}", digest.trim())
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("a program");
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}
