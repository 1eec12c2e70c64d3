//! What a node may look like, and what the installer does with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and says when it skips"
)]

mod common;

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    process::Command,
};

use common::{CONFIG, FakeNode, HANDLER, K3S, RKE2, V2, kata, refused};
use contrast_node_installer::{
    Error, HostPath, Integrity, Lock, chain,
    tree::{Permissions, TreeError},
};
use serde_json::json;

#[test]
fn a_second_apply_changes_nothing_and_restarts_nothing() {
    let node = FakeNode::with_containerd(V2);
    let config = node.applied();
    let (before, restarts) = (node.snapshot(), node.restarts());
    let plan = node.apply(&config).expect("applies");
    assert!(plan.changes.is_empty(), "{plan:?}");
    assert_eq!((node.snapshot(), node.restarts()), (before, restarts));
}

#[test]
fn permissions_are_those_of_the_document_or_the_source() {
    let node = FakeNode::with_containerd(V2);
    fs::set_permissions(node.path(CONFIG), fs::Permissions::from_mode(0o640)).expect("a mode");
    let root = fs::metadata(node.root()).expect("metadata").uid() == 0;
    if root {
        chown(node.path(CONFIG), Some(0), Some(42)).expect("an owner");
    }
    node.applied();
    let mode = |path: &str| fs::metadata(node.path(path)).expect(path).mode() & 0o7777;
    let base = format!("opt/edgeless/{HANDLER}");
    assert_eq!(mode(&format!("{base}/bin/shim")), 0o755);
    assert_eq!(mode(&format!("{base}/share/qemu")), 0o755);
    assert_eq!(mode(&format!("{base}/share/firmware/OVMF.fd")), 0o644);
    assert_eq!(mode(CONFIG), 0o640);
    let group = fs::metadata(node.path(CONFIG)).expect("metadata").gid();
    assert!(!root || group == 42, "{group}");
}

#[test]
fn releases_stand_side_by_side_and_go_in_any_order() {
    for first_goes in [true, false] {
        let node = FakeNode::with_containerd("version = 2");
        let before = node.snapshot();
        let mut document = node.document();
        let mut configs = Vec::new();
        for version in ["0000000a", "0000000b"] {
            let handler = format!("contrast-cc-metal-qemu-snp-{version}");
            node.payload(
                "etc/kata.toml",
                &kata("/opt/edgeless").replace(HANDLER, &handler),
                0o644,
            );
            document["handler"] = json!(handler);
            let config = node.config_of(&document);
            node.apply(&config)
                .unwrap_or_else(|error| panic!("{}", chain(&error)));
            configs.push(config);
        }
        if !first_goes {
            configs.reverse();
        }
        for config in &configs {
            node.uninstall(config)
                .unwrap_or_else(|error| panic!("{}", chain(&error)));
        }
        assert_eq!(node.snapshot(), before);
    }
}

#[test]
fn a_new_document_replaces_and_removes_files() {
    let node = FakeNode::with_containerd(V2);
    let before = node.snapshot();
    node.applied();
    let restarts = node.restarts();
    node.payload("bin/shim", "#!newer\n", 0o755);
    node.payload("share/other", "other", 0o644);
    fs::remove_dir_all(node.directory.path().join("payload/share/firmware")).expect("removes");
    let text = kata("/opt/edgeless");
    let line = text
        .lines()
        .find(|line| line.starts_with("firmware"))
        .expect("a line");
    node.payload("etc/kata.toml", &text.replace(line, ""), 0o644);
    let config = node.applied();
    let base = format!("opt/edgeless/{HANDLER}");
    assert_eq!(node.read(&format!("{base}/bin/shim")), "#!newer\n");
    assert!(
        !node
            .path(&format!("{base}/share/firmware/OVMF.fd"))
            .exists()
    );
    assert_eq!(
        node.restarts(),
        restarts,
        "containerd's configuration is the same"
    );
    node.uninstall(&config).expect("uninstalls");
    assert_eq!(node.snapshot(), before);
}

#[test]
fn check_names_what_is_not_as_wanted() {
    let node = FakeNode::with_containerd(V2);
    let config = node.applied();
    let shim = format!("opt/edgeless/{HANDLER}/bin/shim");
    node.write(&shim, "#!evil\n");
    let findings = node.findings(&config);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains(&shim), "{findings:?}");
    // Of the same size, so a look at sizes does not see it.
    let quick = node
        .node(usize::MAX)
        .0
        .findings(&config, true)
        .expect("checks");
    assert_eq!(quick, Vec::<String>::new());
    node.write(CONFIG, V2);
    let findings = node.findings(&config);
    assert!(
        findings
            .iter()
            .any(|one| one.contains("does not have the runtime")),
        "{findings:?}"
    );
    node.apply(&config).expect("repairs");
    assert_eq!(node.findings(&config), Vec::<String>::new());
}

/// A probe must not read gigabytes: what cannot be read does not matter to it.
#[test]
fn a_quick_check_reads_no_file() {
    let node = FakeNode::with_containerd(V2);
    let mut document = node.document();
    node.payload("share/image", "abc", 0o644);
    let config = node.config_of(&document);
    node.apply(&config).expect("applies");
    // Now the digest is wrong, which only reading would show.
    let wrong = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    document["files"][0]["integrity"] = json!(wrong);
    let config = node.config_of(&document);
    let (seen, _) = node.node(usize::MAX);
    assert_eq!(
        seen.findings(&config, true).expect("checks"),
        Vec::<String>::new()
    );
    assert!(seen.findings(&config, false).is_err());
    fs::remove_file(node.path(&format!("opt/edgeless/{HANDLER}/share/image"))).expect("removes");
    let findings = seen.findings(&config, true).expect("checks");
    assert_eq!(findings.len(), 1, "{findings:?}");
}

#[test]
fn what_somebody_changed_since_stays_when_uninstalling() {
    let node = FakeNode::with_containerd(V2);
    let config = node.applied();
    let shim = format!("opt/edgeless/{HANDLER}/bin/shim");
    node.write(&shim, "#!of the administrator\n");
    let mut text = node.read(CONFIG);
    text.push_str("# below\n");
    node.write(
        CONFIG,
        &text.replace("version = 2\n", "version = 2\n# above\n"),
    );
    let error = node.uninstall(&config).expect_err("something is left");
    assert!(error.to_string().contains(&shim), "{error}");
    assert_eq!(node.read(&shim), "#!of the administrator\n");
    assert_eq!(
        node.read(CONFIG),
        format!(
            "{}# below\n",
            V2.replace("version = 2\n", "version = 2\n# above\n")
        )
    );
    assert!(!node.path(&format!("opt/edgeless/{HANDLER}/share")).exists());
}

#[test]
fn files_of_somebody_else_are_not_replaced() {
    let node = FakeNode::with_containerd(V2);
    let shim = format!("opt/edgeless/{HANDLER}/bin/shim");
    node.write(&shim, "#!other\n");
    let error = refused(&node, &node.config(), 3);
    assert!(
        error.contains(&shim) && error.contains("move it away"),
        "{error}"
    );
    node.write(&shim, "#!shim\n");
    fs::set_permissions(node.path(&shim), fs::Permissions::from_mode(0o755)).expect("a mode");
    let config = node.applied();
    node.uninstall(&config).expect("uninstalls");
    assert_eq!(node.read(&shim), "#!shim\n", "it was there before");
}

#[test]
fn a_source_with_another_digest_is_refused_before_anything_happens() {
    let node = FakeNode::with_containerd(V2);
    let mut document = node.document();
    document["files"][0]["integrity"] =
        json!("sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    let error = refused(&node, &node.config_of(&document), 2);
    assert!(
        error.contains("payload/bin/shim is another file than the configuration wants"),
        "{error}"
    );
    assert!(
        error.contains("expected the digest sha256-ungWv"),
        "{error}"
    );
    node.payload("bin/shim", "abc", 0o755);
    node.apply(&node.config_of(&document))
        .expect("the right file");
    document["files"][2]["integrity"] = document["files"][0]["integrity"].clone();
    let error = node
        .apply(&node.config_of(&document))
        .expect_err("a directory");
    assert!(error.to_string().contains("which has no digest"), "{error}");
}

/// Between the look at a source and its copy, and only then, it may become another.
#[test]
fn what_changes_while_it_is_copied_is_not_put_there() {
    let node = FakeNode::bare();
    let (node_seen, _) = node.node(usize::MAX);
    let before = node.snapshot();
    let path = HostPath::new("/opt/shim").expect("plain");
    let expected = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=".to_owned();
    let expected = Integrity::try_from(expected).expect("a digest");
    let mode = Permissions::of_mode(0o755);
    let tree = &node_seen.tree;
    let error = tree.replace(&path, mode, &b"abd"[..], Some(&expected));
    assert!(matches!(error, Err(TreeError::Differs { .. })), "{error:?}");
    assert_eq!(node.snapshot(), before);
    tree.replace(&path, mode, &b"abc"[..], Some(&expected))
        .expect("the right one");
    assert_eq!(node.read("opt/shim"), "abc");
}

#[test]
fn sources_that_are_not_there_or_collide_are_refused() {
    let node = FakeNode::with_containerd(V2);
    let mut document = node.document();
    document["files"][0]["source"] = json!("file:///nowhere/shim");
    let error = refused(&node, &node.config_of(&document), 2);
    assert!(
        error.contains("cannot read the source /nowhere/shim; put it into the image"),
        "{error}"
    );
    let mut document = node.document();
    document["files"][1]["path"] = json!("/opt/edgeless/{handler}/share/qemu");
    document["runtime"]["config"] = document["files"][1]["path"].clone();
    let error = refused(&node, &node.config_of(&document), 2);
    assert!(error.contains("two sources go to"), "{error}");
}

#[test]
fn a_node_without_its_tee_is_refused_and_told_what_to_enable() {
    let node = FakeNode::with_containerd(V2);
    let parameter = "sys/module/kvm_amd/parameters/sev_snp";
    node.write(parameter, "N\n");
    let error = refused(&node, &node.config(), 3);
    assert!(
        error.contains("Metal-QEMU-SNP needs AMD SEV-SNP"),
        "{error}"
    );
    assert!(
        error.contains("is `N`; enable SEV-SNP in the firmware"),
        "{error}"
    );
    fs::remove_file(node.path(parameter)).expect("removes");
    assert!(refused(&node, &node.config(), 3).contains("is not there"));
    let mut document = node.document();
    for (handler, wanted) in [
        ("contrast-cc-metal-qemu-tdx-gpu", "kvm_intel.tdx=1"),
        ("contrast-insecure-software-tee", ""),
    ] {
        document["handler"] = json!(handler);
        node.payload(
            "etc/kata.toml",
            &kata("/opt/edgeless").replace(HANDLER, handler),
            0o644,
        );
        let config = node.config_of(&document);
        if wanted.is_empty() {
            node.apply(&config)
                .expect("the software TEE needs no hardware");
        } else {
            let error = refused(&node, &config, 3);
            assert!(error.contains(wanted), "{error}");
            node.write("sys/module/kvm_intel/parameters/tdx", "Y\n");
            node.apply(&config).expect("with TDX");
            node.behave(|behaviour| behaviour.restarts = 0);
        }
    }
}

#[test]
fn configurations_of_containerd_that_cannot_be_used_are_refused() {
    for (text, wanted) in [
        (
            "version = 4\n",
            "has version 4, expected 2 or 3; use a newer release",
        ),
        (
            "version = 1\n",
            "has version 1, expected 2 or 3; rewrite it with `containerd config migrate`",
        ),
        ("disabled_plugins = []\n", "has no version, which means 1"),
        ("version = 2\n[plugins\n", "is no TOML: line 2"),
        (
            "version = 2\ndisabled_plugins = [\"cri\"]\n",
            "disables `cri`, so the kubelet cannot use",
        ),
        (
            "version = 2\nimports = [\"../*/x\"]\n",
            "imports `../*/x`, which cannot be followed",
        ),
        (
            "version = 2\n# BEGIN contrast-node-installer runtime x\n",
            "# END contrast-node-installer runtime x` is missing",
        ),
    ] {
        let node = FakeNode::with_containerd(text);
        let error = refused(&node, &node.config(), 3);
        assert!(error.contains(wanted), "{error}");
    }
    let node = FakeNode::with_containerd(V2);
    fs::write(node.path(CONFIG), [0xff, 0xfe]).expect("writes");
    assert!(refused(&node, &node.config(), 3).contains("is no UTF-8 text"));
    fs::remove_file(node.path(CONFIG)).expect("removes");
    fs::create_dir(node.path(CONFIG)).expect("a directory");
    assert!(refused(&node, &node.config(), 3).contains("is a directory, expected a regular file"));
}

#[test]
fn without_a_configuration_containerd_or_the_document_says_the_version() {
    for (version, wanted) in [("1.7.20", "version = 2\n"), ("v2.1.0", "version = 3\n")] {
        let node = FakeNode::bare();
        node.write("usr/bin/containerd", "");
        node.behave(|behaviour| behaviour.version = Some(version.into()));
        let before = node.snapshot();
        let config = node.applied();
        assert!(node.read(CONFIG).contains(wanted), "{}", node.read(CONFIG));
        node.uninstall(&config).expect("uninstalls");
        assert_eq!(node.snapshot(), before);
    }
    let node = FakeNode::bare();
    let error = refused(&node, &node.config(), 3);
    assert!(
        error.contains("set `containerd.config_version` to 2"),
        "{error}"
    );
    let mut document = node.document();
    document["containerd"] = json!({"config_version": 3});
    node.apply(&node.config_of(&document))
        .expect("the document says it");
    assert!(node.read(CONFIG).contains("io.containerd.cri.v1.runtime"));
}

#[test]
fn k3s_without_a_rendered_configuration_and_beside_rke2_is_refused() {
    let node = FakeNode::bare();
    fs::create_dir_all(node.path(K3S)).expect("a directory");
    let error = refused(&node, &node.config(), 3);
    assert!(error.contains("start k3s once"), "{error}");
    fs::create_dir_all(node.path(RKE2)).expect("a directory");
    let error = refused(&node, &node.config(), 3);
    assert!(error.contains("`containerd.dialect`"), "{error}");
}

#[test]
fn links_of_the_host_stay_in_the_host() {
    let node = FakeNode::bare();
    let outside = node.directory.path().join("outside");
    fs::create_dir_all(outside.join("etc/containerd")).expect("a directory");
    // As the host sees them, these lead to its own directories; followed by the installer's eyes they lead out.
    fs::remove_dir(node.path("opt")).expect("removes");
    node.link("opt", "/mnt/opt");
    fs::create_dir_all(node.path("mnt/opt")).expect("a directory");
    node.link(
        "etc/containerd/config.toml",
        "../../../../../../etc/real.toml",
    );
    node.write("etc/real.toml", V2);
    node.link("mnt/opt/edgeless", &outside.display().to_string());
    let error = node.apply(&node.config()).expect_err("a link to nothing");
    assert!(
        chain(&error).contains("/opt/edgeless on the host is no directory"),
        "{}",
        chain(&error)
    );
    let inside = node.path(outside.to_str().expect("text").trim_start_matches('/'));
    fs::create_dir_all(&inside).expect("a directory");
    node.write("usr/bin/containerd", "");
    let before = node.snapshot();
    let config = node.applied();
    assert!(inside.join(HANDLER).join("bin/shim").exists());
    assert!(node.read("etc/real.toml").contains(HANDLER));
    assert!(
        fs::symlink_metadata(node.path("etc/containerd/config.toml"))
            .expect("a link")
            .is_symlink()
    );
    assert_eq!(
        fs::read_dir(&outside).expect("lists").count(),
        1,
        "only what was there"
    );
    node.uninstall(&config).expect("uninstalls");
    assert_eq!(node.snapshot(), before);
}

#[test]
fn kata_must_fit_the_shim_and_find_its_files() {
    let node = FakeNode::with_containerd(V2);
    let mut document = node.document();
    document["runtime"]["rs"] = json!(true);
    let error = refused(&node, &node.config_of(&document), 2);
    assert!(
        error.contains("a configuration for the Go shim, but `runtime.rs` is true"),
        "{error}"
    );
    let mut document = node.document();
    document["files"].as_array_mut().expect("files").pop();
    let error = refused(&node, &node.config_of(&document), 2);
    assert!(
        error.contains("share/qemu as `hypervisor.qemu.path`"),
        "{error}"
    );
    node.write(&format!("opt/edgeless/{HANDLER}/share/qemu"), "of the host");
    node.write(
        &format!("opt/edgeless/{HANDLER}/share/firmware/OVMF.fd"),
        "of the host",
    );
    node.apply(&node.config_of(&document))
        .expect("files of the host count");
    document["runtime"]["shim"] = json!("/opt/nowhere");
    let error = node.apply(&node.config_of(&document)).expect_err("no shim");
    assert!(
        error.to_string().contains("/opt/nowhere (`runtime.shim`)"),
        "{error}"
    );
}

#[test]
fn one_installer_at_a_time() {
    let node = FakeNode::with_containerd(V2);
    let config = node.config();
    let (other, _) = node.node(usize::MAX);
    let lock = Lock::take(&other.tree, &*other.host, 0).expect("a lock");
    let before = node.snapshot();
    let error = node.apply(&config).expect_err("another one has it");
    assert!(matches!(error, Error::Lock(_)), "{error:?}");
    assert!(error.to_string().contains("for more than 2 s"), "{error}");
    assert_eq!(node.snapshot(), before);
    drop(lock);
    node.apply(&config).expect("applies");
    node.uninstall(&config).expect("uninstalls");
    assert!(!node.path("run/contrast-node-installer.lock").exists());
}

#[test]
fn a_record_of_another_release_is_refused_and_untouched() {
    let node = FakeNode::with_containerd(V2);
    let config = node.applied();
    let record = format!("var/lib/contrast-node-installer/{HANDLER}.json");
    let written = node.read(&record);
    let later = "has format 2, this release of the installer reads 1: a later release wrote it, and it was not modified";
    for (said, expected) in [
        ("\"format\": 2, \"later\": []", later),
        ("\"format\": 0", "is no record of this release"),
        ("\"later\": []", "is no record of this release"),
    ] {
        node.write(&record, &written.replace("\"format\": 1", said));
        let before = node.snapshot();
        let error = node.apply(&config).expect_err("another release");
        assert!(error.to_string().contains(expected), "{error}");
        let error = node.uninstall(&config).expect_err("another release");
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(node.snapshot(), before);
    }
}

/// Applies with something mounted in the host's tree, in a mount namespace of its own, so that nothing is left mounted; `None`: skipped.
fn apply_with(node: &FakeNode, mount: &str) -> Option<(i32, String)> {
    let mut document = node.document();
    document["containerd"] = json!({"units": []});
    let script = format!(
        "{mount} && exec {} --host-root {} --config {} apply",
        env!("CARGO_BIN_EXE_node-installer"),
        node.root().display(),
        node.config_file(&document).display(),
    );
    fs::remove_file(node.path("usr/bin/containerd")).expect("nobody is asked");
    let before = node.snapshot();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .output();
    let Ok(output) = output else {
        println!("skipped: no `unshare`");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !text.starts_with("error: ") {
        println!("skipped: mounting needs root: {text}");
        return None;
    }
    assert_eq!(node.snapshot(), before);
    Some((output.status.code().expect("a code"), text))
}

#[test]
fn a_file_system_that_is_read_only_is_refused_before_anything_happens() {
    let node = FakeNode::with_containerd(V2);
    let opt = node.path("opt").display().to_string();
    let mount = format!("mount --bind {opt} {opt} && mount -o remount,ro,bind {opt}");
    if let Some((code, text)) = apply_with(&node, &mount) {
        assert_eq!(code, 3, "{text}");
        assert!(
            text.contains("is on a read-only file system of the host; mount the host writable"),
            "{text}"
        );
    }
}

#[test]
fn a_file_system_that_is_too_small_is_refused_before_anything_happens() {
    let node = FakeNode::with_containerd(V2);
    node.payload("share/image", &"x".repeat(40_000), 0o644);
    node.payload("share/kernel", &"x".repeat(40_000), 0o644);
    let opt = node.path("opt").display().to_string();
    let mount = format!("mount -t tmpfs -o size=64k none {opt}");
    if let Some((code, text)) = apply_with(&node, &mount) {
        assert_eq!(code, 3, "{text}");
        assert!(text.contains("has 65536 bytes free, and 80"), "{text}");
        assert!(text.contains("/share/kernel on the host"), "{text}");
    }
}
