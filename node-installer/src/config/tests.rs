use super::*;

const JSON: &str = r#"{
    "handler": "contrast-cc-metal-qemu-snp-0a1b2c3d",
    "files": [
        {"source": "file:///payload/shim", "path": "/opt/edgeless/{handler}/bin/shim", "mode": "0755",
         "integrity": "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="},
        {"source": "file:/payload/share", "path": "/opt/edgeless/{handler}/share"}
    ],
    "runtime": {
        "type": "io.containerd.contrast-cc.v2",
        "shim": "/opt/edgeless/{handler}/bin/shim",
        "config": "/opt/edgeless/{handler}/etc/kata.toml",
        "snapshotter": {"name": "nydus", "address": "/run/nydus.sock"}
    },
    "containerd": {"dialect": "k3s", "units": ["k3s.service"]}
}"#;

const TOML: &str = r#"
handler = "contrast-cc-metal-qemu-snp-0a1b2c3d"
[[files]]
source = "file:///payload/shim"
path = "/opt/edgeless/{handler}/bin/shim"
mode = "0755"
integrity = "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="
[[files]]
source = "file:/payload/share"
path = "/opt/edgeless/{handler}/share"
[runtime]
type = "io.containerd.contrast-cc.v2"
shim = "/opt/edgeless/{handler}/bin/shim"
config = "/opt/edgeless/{handler}/etc/kata.toml"
snapshotter = { name = "nydus", address = "/run/nydus.sock" }
[containerd]
dialect = "k3s"
units = ["k3s.service"]
"#;

fn read(name: &str, text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(name);
    fs::write(&path, text).expect("writes");
    Config::read(&path).map_err(|error| error.to_string())
}

#[test]
fn json_and_toml_say_the_same() {
    let json = read("a.json", JSON).expect("JSON is read");
    let toml = read("a.toml", TOML).expect("TOML is read");
    assert_eq!(format!("{json:?}"), format!("{toml:?}"));
    assert_eq!(json.platform, Platform::MetalQemuSnp);
    let file = json.files.first().expect("a file");
    assert_eq!(file.mode, Some(0o755));
    assert_eq!(
        file.path.as_str(),
        "/opt/edgeless/contrast-cc-metal-qemu-snp-0a1b2c3d/bin/shim"
    );
    assert_eq!(json.runtime.pod_annotations, ["io.katacontainers.*"]);
    assert_eq!(json.containerd.restart_timeout_seconds, 180);
}

/// One value is replaced by another; the error names its place and what to write.
#[test]
fn each_wrong_value_is_named_with_its_place() {
    for (old, new, field, message) in [
        (
            r#""handler": "contrast-cc-metal-qemu-snp-0a1b2c3d""#,
            r#""handler": "kata""#,
            "handler",
            "of no known platform; expected one of contrast-cc-metal-qemu-snp,",
        ),
        (
            r#""mode": "0755""#,
            r#""mode": "755x""#,
            "files[0].mode",
            "in octal like \"0755\"",
        ),
        (
            r#""mode": "0755""#,
            r#""mode": "0777""#,
            "files[0].mode",
            "writable by nobody else",
        ),
        (
            r#""mode": "0755""#,
            r#""mode": "4755""#,
            "files[0].mode",
            "in octal",
        ),
        (
            r#""mode": "0755""#,
            r#""mod": "0755""#,
            "files[0].mod",
            "unknown field `mod`",
        ),
        (
            "sha256-ungWv",
            "sha256-ungW",
            "files[0].integrity",
            "is no digest; write `sha256-`",
        ),
        (
            "file:///payload/shim",
            "https://example.com/shim",
            "files[0].source",
            "the installer fetches nothing; put the file into its image",
        ),
        (
            "file:///payload/shim",
            "payload/shim",
            "files[0].source",
            "expected `file://` and a plain absolute path",
        ),
        (
            "file:/payload/share",
            "file://../share",
            "files[1].source",
            "expected `file://`",
        ),
        (
            "/opt/edgeless/{handler}/share",
            "/opt/../share",
            "files[1].path",
            "no plain absolute path",
        ),
        (
            "/opt/edgeless/{handler}/share",
            "/opt/{other}",
            "files[1].path",
            "only {handler} is replaced",
        ),
        (
            "/opt/edgeless/{handler}/share",
            "/opt/edgeless/{handler}/bin/shim",
            "files[1].path",
            "is there twice",
        ),
        (
            "io.containerd.contrast-cc.v2",
            "contrast-cc",
            "runtime.type",
            "a name like `io.containerd.contrast-cc.v2`",
        ),
        (
            r#""name": "nydus""#,
            r#""name": "ny.dus""#,
            "runtime.snapshotter.name",
            "expected letters, digits",
        ),
        (
            "/run/nydus.sock",
            "nydus.sock",
            "runtime.snapshotter.address",
            "no plain absolute path",
        ),
        (
            r#""dialect": "k3s""#,
            r#""dialect": "docker""#,
            "containerd.dialect",
            "unknown variant `docker`",
        ),
        (
            r#""dialect": "k3s""#,
            r#""config_version": 4"#,
            "containerd.config_version",
            "expected 2 (containerd 1) or 3 (containerd 2), found 4",
        ),
        (
            r#""dialect": "k3s""#,
            r#""restart_timeout_seconds": 0"#,
            "containerd.restart_timeout_seconds",
            "at least 1",
        ),
        (
            r#""units": ["k3s.service"]"#,
            r#""units": ["k3s"]"#,
            "containerd.units",
            "names like `containerd.service`",
        ),
        (
            r#""type": "io.containerd.contrast-cc.v2","#,
            r#""type": "io.containerd.contrast-cc.v2", "pod_annotations": ["a\"b"],"#,
            "runtime.pod_annotations",
            "expected names of annotations",
        ),
        (
            r#""type": "io.containerd.contrast-cc.v2","#,
            "",
            "runtime",
            "missing field `type`",
        ),
    ] {
        let text = JSON.replacen(old, new, 1);
        assert_ne!(text, JSON, "{old} is there");
        let error = read("a.json", &text).expect_err(new);
        assert!(error.contains(&format!("at `{field}`: ")), "{error}");
        assert!(error.contains(message), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let error = read("a.toml", &TOML.replace("0755", "9")).expect_err("no mode");
    assert!(error.contains("at `files[0].mode`: "), "{error}");
}

#[test]
fn what_is_no_document_is_refused() {
    for (name, text, message) in [
        ("a.yaml", JSON, "name it .json or .toml"),
        ("a.json", "{", "EOF"),
        ("a.json", &format!("{JSON} x"), "trailing characters"),
        ("a.toml", "[", "at `.`"),
    ] {
        let error = read(name, text).expect_err(text);
        assert!(error.contains(message), "{error}");
    }
    let error = Config::read(Path::new("/nowhere/a.json")).expect_err("no file");
    assert!(error.to_string().contains("--config"), "{error}");
}

#[test]
fn the_example_in_the_documentation_is_valid() {
    let page = include_str!("../../../docs/how-to/install-nodes.md");
    let (_, example) = page.split_once("```json\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let config = read("a.json", example).expect("is valid");
    assert_eq!(config.handler, "contrast-cc-metal-qemu-snp-0a1b2c3d");
    assert_eq!(config.files.len(), 3);
}

/// What the chart writes is what this reads.
#[test]
fn the_manifests_for_nodes_are_valid() {
    for (manifest, platform) in [
        (
            include_str!("../../../deploy/manifests/runtime-metal-qemu-snp.yaml"),
            Platform::MetalQemuSnp,
        ),
        (
            include_str!("../../../deploy/manifests/runtime-metal-qemu-tdx.yaml"),
            Platform::MetalQemuTdx,
        ),
    ] {
        let (_, rest) = manifest
            .split_once("node-installer.json: |\n")
            .expect("a configuration");
        let (json, _) = rest.split_once("\n---").expect("its end");
        let config = read("a.json", json).expect("is valid");
        assert_eq!(config.platform, platform);
        assert!(!config.files.is_empty());
    }
}
