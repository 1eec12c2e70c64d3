//! A node with a real systemd and the real containerd, in a container: restarts, and a rollback, through the mount namespace of process 1.
//!
//! Skipped, with a message, without root, `systemd-nspawn` or `containerd`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says when it skips"
)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;

const UNITS: &str = "etc/systemd/system";
const CONFIG: &str = "# mine\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = \"native\"\n";
const SECONDS: &str = "150";

/// As in a pod: the host's root at `/host`, in a mount namespace of its own that has none of the host's programs. Each command leaves its exit code, what it says, the
/// configuration of containerd and which run of containerd there is.
const SCRIPT: &str = r#"
installer() {
    name=$1; config=$2; shift 2
    unshare --mount sh -c "mount --rbind / /host &&
        for program in systemctl containerd ctr; do mount --bind /payload/shim /usr/bin/\$program || exit; done &&
        exec /payload/node-installer --config /payload/$config.json $*" \
        >/result/$name.out 2>/result/$name.err
    echo $? >/result/$name.code
    cp /etc/containerd/config.toml /result/$name.toml
    systemctl show --property=InvocationID --value containerd.service >/result/$name.run
    systemctl is-active containerd.service >/result/$name.state
}
installer before good check
installer apply good apply
installer check good check
installer again good apply
installer bad bad apply
installer uninstall good uninstall
"#;

fn finds(program: &str) -> bool {
    let mut command = Command::new(program);
    let command = command.arg("--version").stdin(Stdio::null());
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn possible() -> bool {
    let root = rustix::process::geteuid().is_root();
    let missing = [
        "systemd-nspawn",
        "/usr/bin/containerd",
        "/lib/systemd/systemd",
    ]
    .into_iter()
    .find(|program| !finds(program));
    if !root || missing.is_some() {
        println!("skipped: needs root and {missing:?} (Debian: systemd-container, containerd)");
    }
    root && missing.is_none()
}

fn write(directory: &Path, path: &str, text: &str) {
    let path = directory.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, text).expect("writes");
}

#[test]
fn systemd_restarts_containerd_and_gets_it_back() {
    if !possible() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = |path: &str| directory.path().join(path);
    let root = at("root");
    for path in ["root/usr/lib", "root/host", "result", "payload"] {
        fs::create_dir_all(at(path)).expect("a directory");
    }
    // By this file systemd-nspawn tells a root directory, before it mounts `/usr`.
    write(&root, "usr/lib/os-release", "ID=node\n");
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("links");
    }
    fs::copy(
        env!("CARGO_BIN_EXE_node-installer"),
        at("payload/node-installer"),
    )
    .expect("copies");
    write(&at("payload"), "shim", "#!shim\n");
    write(
        &at("payload"),
        "kata.toml",
        "[hypervisor.qemu]\npath = \"/bin/sh\"\n[runtime]\n",
    );
    write(&at("payload"), "script", SCRIPT);
    for (name, version) in [("good", "0000000a"), ("bad", "0000000b")] {
        let document = json!({
            "handler": format!("contrast-insecure-software-tee-{version}"),
            "files": [
                {"source": "file:///payload/shim", "path": "/opt/{handler}/shim"},
                {"source": "file:///payload/kata.toml", "path": "/opt/{handler}/kata.toml"},
            ],
            "runtime": {
                "type": "io.containerd.contrast-cc.v2",
                "shim": "/opt/{handler}/shim",
                "config": "/opt/{handler}/kata.toml",
            },
            "containerd": {"restart_timeout_seconds": 40},
        });
        write(
            &at("payload"),
            &format!("{name}.json"),
            &document.to_string(),
        );
    }
    write(&root, "etc/containerd/config.toml", CONFIG);
    // Something that only shows when containerd starts.
    write(
        &root,
        &format!("{UNITS}/containerd.service.d/refuse.conf"),
        "[Service]\nExecStartPre=/bin/sh -c '! grep -q 0000000b /etc/containerd/config.toml'\n",
    );
    write(
        &root,
        &format!("{UNITS}/install.service"),
        "[Unit]\nWants=containerd.service\nAfter=containerd.service\n[Service]\nType=oneshot\nExecStart=/bin/sh /payload/script\n",
    );
    write(
        &root,
        &format!("{UNITS}/last.service"),
        "[Unit]\nWants=install.service\nAfter=install.service\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'journalctl --no-pager --boot >/result/journal; systemctl --force poweroff'\n",
    );
    let output = Command::new("timeout")
        .args(["--kill-after=5", SECONDS, "systemd-nspawn"])
        .args(["--quiet", "--boot", "--register=no", "--keep-unit"])
        .args(["--private-network", "--console=pipe"])
        .arg(format!("--machine=node-{}", std::process::id()))
        .arg(format!("--directory={}", root.display()))
        // The root directory's own is empty.
        .arg("--bind-ro=/usr")
        .arg(format!("--bind={}:/result", at("result").display()))
        .arg(format!("--bind-ro={}:/payload", at("payload").display()))
        .arg("systemd.unit=last.service")
        .stdin(Stdio::null())
        .output()
        .expect("systemd-nspawn runs");
    let read = |name: &str| fs::read_to_string(at("result").join(name)).unwrap_or_default();
    let journal = read("journal");
    if journal.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("skipped: systemd does not boot in a container here: {said}");
        return;
    }
    let shown = |name: &str| {
        format!(
            "{}{}\n{journal}",
            read(&format!("{name}.out")),
            read(&format!("{name}.err"))
        )
    };
    let code = |name: &str| read(&format!("{name}.code")).trim().to_owned();
    let file = |name: &str, what: &str| read(&format!("{name}.{what}"));

    assert_eq!(code("before"), "1", "{}", shown("before"));
    assert_eq!(code("apply"), "0", "{}", shown("apply"));
    assert!(
        file("apply", "toml").starts_with(CONFIG),
        "{}",
        file("apply", "toml")
    );
    assert!(file("apply", "toml").contains("contrast-insecure-software-tee-0000000a"));
    assert_ne!(
        file("apply", "run"),
        file("before", "run"),
        "{}",
        shown("apply")
    );
    assert_eq!(code("check"), "0", "{}", shown("check"));
    assert_eq!(code("again"), "0", "{}", shown("again"));
    assert_eq!(
        file("again", "run"),
        file("apply", "run"),
        "restarted for nothing"
    );

    assert_eq!(code("bad"), "5", "{}", shown("bad"));
    assert!(
        file("bad", "err").contains("containerd runs with it"),
        "{}",
        shown("bad")
    );
    assert_eq!(file("bad", "toml"), file("apply", "toml"));
    assert_eq!(file("bad", "state").trim(), "active", "{}", shown("bad"));

    assert_eq!(code("uninstall"), "0", "{}", shown("uninstall"));
    assert_eq!(file("uninstall", "toml"), CONFIG);
    assert_eq!(
        file("uninstall", "state").trim(),
        "active",
        "{}",
        shown("uninstall")
    );
    assert!(
        !root
            .join("opt/contrast-insecure-software-tee-0000000a")
            .exists()
    );
}
