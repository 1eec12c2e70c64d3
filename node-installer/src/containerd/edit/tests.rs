use proptest::prelude::*;

use super::*;
use crate::config::{Runtime, Snapshotter};

fn path(text: &str) -> HostPath {
    HostPath::new(text).expect("plain")
}

fn entry(version: &str) -> Entry {
    let handler = format!("contrast-cc-metal-qemu-snp-{version}");
    let base = format!("/opt/edgeless/{handler}");
    Entry {
        runtime: Runtime {
            runtime_type: "io.containerd.contrast-cc.v2".into(),
            shim: path(&format!("{base}/bin/containerd-shim-contrast-cc-v2")),
            config: path(&format!("{base}/etc/configuration-qemu-snp.toml")),
            rs: false,
            pod_annotations: vec!["io.katacontainers.*".into()],
            snapshotter: None,
        },
        handler,
    }
}

fn with_snapshotter(version: &str, address: &str) -> Entry {
    let mut entry = entry(version);
    entry.runtime.snapshotter = Some(Snapshotter {
        name: "nydus".into(),
        address: Some(path(address)),
    });
    entry
}

fn file() -> HostPath {
    path("/etc/containerd/config.toml")
}

fn installed(text: &str, entry: &Entry) -> String {
    let version = version(&file(), &text.parse().expect("parses")).expect("known");
    install(&file(), Some(text), version, false, entry).expect("installs")
}

fn refused(text: &str, entry: &Entry) -> String {
    let error = match install(&file(), Some(text), Version::V2, false, entry) {
        Ok(text) => panic!("not refused:\n{text}"),
        Err(error) => error,
    };
    error.to_string()
}

fn uninstalled(text: &str, entry: &Entry) -> Option<String> {
    let version = version(&file(), &text.parse().expect("parses")).expect("known");
    uninstall(&file(), text, version, false, &entry.handler, true).expect("uninstalls")
}

#[test]
fn runc_is_named_where_no_runtime_was() {
    let text = installed("version = 2\n", &entry("00000000"));
    assert!(
        text.contains("containerd.runtimes.runc]\nruntime_type"),
        "{text}"
    );
    let own = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"x\"\n";
    let text = installed(own, &entry("00000000"));
    assert_eq!(text.matches("runtimes.runc]").count(), 1, "{text}");
}

#[test]
fn runc_stays_until_the_last_runtime_goes() {
    let (a, b) = (entry("0000000a"), entry("0000000b"));
    let both = installed(&installed("version = 2", &a), &b);
    let one = uninstalled(&both, &a).expect("something is left");
    assert!(one.contains("runtimes.runc]"), "{one}");
    assert_eq!(uninstalled(&one, &b).as_deref(), Some("version = 2"));
}

#[test]
fn a_second_time_changes_nothing() {
    for text in ["version = 2", "version = 3\n", "version = 2\n# end"] {
        let once = installed(text, &entry("00000000"));
        assert_eq!(installed(&once, &entry("00000000")), once);
    }
}

#[test]
fn other_values_take_the_place_of_the_old_ones() {
    let old = installed("version = 2\n", &entry("00000000"));
    let old = format!("{old}# below\n");
    let new = installed(&old, &with_snapshotter("00000000", "/run/nydus.sock"));
    assert!(new.contains("snapshotter = \"nydus\""), "{new}");
    assert!(new.contains("[proxy_plugins.nydus]"), "{new}");
    assert_eq!(installed(&new, &entry("00000000")), old);
}

#[test]
fn a_snapshotter_is_shared_and_cannot_be_two() {
    let (a, b) = (
        with_snapshotter("0000000a", "/run/nydus.sock"),
        with_snapshotter("0000000b", "/run/nydus.sock"),
    );
    let both = installed(&installed("version = 2\n", &a), &b);
    assert_eq!(both.matches("[proxy_plugins.nydus]").count(), 1);
    let one = uninstalled(&both, &a).expect("something is left");
    assert!(one.contains("[proxy_plugins.nydus]"), "{one}");
    let other = with_snapshotter("0000000c", "/run/other.sock");
    assert!(refused(&one, &other).contains("`proxy_plugins.nydus` of somebody else"));
    let foreign =
        "version = 2\n[proxy_plugins.nydus]\ntype = \"snapshot\"\naddress = \"/run/nydus.sock\"\n";
    let text = installed(foreign, &a);
    assert_eq!(text.matches("[proxy_plugins.nydus]").count(), 1);
    assert!(refused(foreign, &other).contains("of somebody else"));
}

#[test]
fn version_3_tells_the_plugin_that_pulls_images() {
    let text = installed(
        "version = 3\n",
        &with_snapshotter("00000000", "/run/nydus.sock"),
    );
    assert!(
        text.contains("[plugins.\"io.containerd.cri.v1.images\".runtime_platforms.contrast-cc-metal-qemu-snp-00000000]\nsnapshotter = \"nydus\"\n"),
        "{text}"
    );
}

#[test]
fn a_runtime_of_somebody_else_is_not_touched() {
    let table = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.contrast-cc-metal-qemu-snp-00000000]\n";
    let foreign = format!("version = 2\n{table}runtime_type = \"io.containerd.other.v2\"\n");
    assert!(refused(&foreign, &entry("00000000")).contains("of somebody else, with other values"));
}

#[test]
fn a_runtime_whose_marks_were_dropped_is_known_and_removed() {
    let original = "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"x\"\n";
    let text = installed(original, &entry("00000000"));
    let bare: String = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(installed(&bare, &entry("00000000")), bare);
    assert_eq!(
        uninstalled(&bare, &entry("00000000")).as_deref(),
        Some(original)
    );
}

#[test]
fn inline_and_dotted_tables_get_the_runtime_inside() {
    for original in [
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd] # mine\nruntimes = { runc = { runtime_type = \"io.containerd.runc.v2\" } }\n",
        "version = 2\nplugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.runtime_type = \"io.containerd.runc.v2\" # mine\n",
    ] {
        let entry = entry("00000000");
        let text = installed(original, &entry);
        let document: DocumentMut = text.parse().expect("parses");
        for table in runtime_tables(Version::V2, &entry) {
            assert_eq!(table.is_in(&document), Some(true), "{text}");
        }
        assert!(text.contains("# mine"), "{text}");
        assert_eq!(installed(&text, &entry), text);
        let after = uninstalled(&text, &entry).expect("something is left");
        let without: toml::Table = after.parse().expect("parses");
        assert_eq!(without, original.parse::<toml::Table>().expect("parses"));
    }
}

#[test]
fn versions_that_are_not_known_are_refused() {
    for (text, wanted) in [
        ("", "no version, which means 1"),
        ("version = 1", "version 1"),
        ("version = 0", "version 0"),
        ("version = 4", "version 4"),
        ("version = \"2\"", "version no number"),
    ] {
        let document = text.parse().expect("parses");
        let error = version(&file(), &document).expect_err(text).to_string();
        assert!(error.contains(wanted), "{error}");
        assert!(error.contains("expected 2 or 3"), "{error}");
    }
}

#[test]
fn what_is_no_toml_is_named_with_its_line() {
    let error = refused("version = 2\n[a\n", &entry("00000000"));
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn a_template_is_only_extended() {
    let template = "{{ template \"base\" . }}\n{{ if .X }}[a]{{ end }}";
    let entry = entry("00000000");
    let text = install(&file(), Some(template), Version::V3, true, &entry).expect("installs");
    assert!(text.starts_with(template), "{text}");
    let after = uninstall(&file(), &text, Version::V3, true, &entry.handler, true);
    assert_eq!(after.expect("uninstalls").as_deref(), Some(template));
    let new = install(&file(), None, Version::V3, true, &entry).expect("installs");
    assert!(
        new.contains("\n{{ template \"base\" . }}\n# BEGIN"),
        "{new}"
    );
    let after = uninstall(&file(), &new, Version::V3, true, &entry.handler, true);
    assert_eq!(after.expect("uninstalls"), None);
}

/// Configurations as people write them.
fn configuration() -> impl Strategy<Value = String> {
    let plugin = "plugins.\"io.containerd.grpc.v1.cri\"";
    let parts = vec![
        "# a comment\n".to_owned(),
        "\n\n".into(),
        format!("[{plugin}]\n  sandbox_image = 'pause'   # kept\n"),
        format!("\t[{plugin}.containerd]\r\n\tdefault_runtime_name = \"runc\"\r\n"),
        format!("[{plugin}.containerd.runtimes]\n"),
        format!("  [{plugin}.containerd.runtimes.runc]\nruntime_type=\"io.containerd.runc.v2\"\n"),
        format!("[{plugin}.containerd.runtimes.nvidia]\n"),
        "[metrics]\naddress = '''\n# BEGIN of nothing\n'''\n".into(),
        "[[stream]]\nx = [\n 1,\n]\n".into(),
        "[proxy_plugins]\n".into(),
    ];
    let all = 0..=parts.len();
    (
        proptest::sample::subsequence(parts, all).prop_shuffle(),
        any::<bool>(),
        2..=3,
    )
        .prop_map(|(parts, ended, version)| {
            let text = format!("version = {version}\n{}", parts.concat());
            match ended {
                true => text,
                false => text.trim_end().to_owned(),
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Comments, layout and everything that others configured survive, and nothing stays behind.
    #[test]
    fn installing_and_uninstalling_gives_back_every_byte(text in configuration(), snapshotter: bool) {
        // Shuffled tables may come before what they extend, which TOML does not allow.
        prop_assume!(text.parse::<DocumentMut>().is_ok());
        let (a, b) = match snapshotter {
            true => (with_snapshotter("0000000a", "/run/n.sock"), entry("0000000b")),
            false => (entry("0000000a"), with_snapshotter("0000000b", "/run/n.sock")),
        };
        let one = installed(&text, &a);
        prop_assert!(one.starts_with(&text));
        let before: toml::Table = text.parse().expect("parses");
        let after: toml::Table = one.parse().expect("what is installed is TOML");
        prop_assert!(has_all(&after, &before));
        let both = installed(&one, &b);
        prop_assert_eq!(&installed(&both, &a), &both);
        let without_b = uninstalled(&both, &b).expect("something is left");
        prop_assert_eq!(&without_b, &one);
        let other = uninstalled(&both, &a).expect("something is left");
        let without_both = uninstalled(&other, &b).expect("something is left");
        prop_assert_eq!(&without_both, &text);
        prop_assert_eq!(uninstalled(&one, &a), Some(text));
    }
}

/// Whether every value of `less` is in `more`.
fn has_all(more: &toml::Table, less: &toml::Table) -> bool {
    less.iter()
        .all(|(key, value)| match (more.get(key), value) {
            (Some(toml::Value::Table(more)), toml::Value::Table(less)) => has_all(more, less),
            (Some(more), less) => more == less,
            (None, _) => false,
        })
}
