use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use contrast_images::Digest;
use serde_json::{Value, json};

/// Kills a program, or unmounts a file system, at the end of a test.
pub(crate) enum Clean {
    Process(Child),
    Mount(PathBuf),
}

impl Drop for Clean {
    fn drop(&mut self) {
        match self {
            Self::Process(child) => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
            Self::Mount(path) => {
                // It may never have been mounted.
                let _ = Command::new("umount").arg(path).output();
            }
        }
    }
}

pub(crate) fn runs(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    let output = output.expect("a program");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    output
}

pub(crate) fn shell(script: &str, directory: &Path) {
    let output = Command::new("sh")
        .args(["-euc", script])
        .current_dir(directory)
        .output()
        .expect("sh");
    assert!(output.status.success(), "{output:?}");
}

/// Whether the test can run here; says so if not.
pub(crate) fn is_possible() -> bool {
    let temporary = tempfile::tempdir().expect("directory");
    let owner = fs::metadata(temporary.path()).expect("metadata").uid();
    let is_missing = |program: &&str| Command::new(program).arg("--version").output().is_err();
    let needed = ["docker-registry", "skopeo", "zstd", "setcap"];
    let missing: Vec<_> = needed.into_iter().filter(is_missing).collect();
    match (owner, missing.is_empty()) {
        (0, true) => true,
        _ => {
            eprintln!("skipped: needs root and {needed:?}; missing: {missing:?}");
            false
        }
    }
}

/// A directory for a test, on a file system that overlay file systems can write to.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("directory")
}

pub(crate) fn registry(directory: &Path) -> (Clean, String) {
    registry_that(directory, "")
}

/// A registry with a line more in its configuration. What an earlier one in the directory had, it has as well.
pub(crate) fn registry_that(directory: &Path, line: &str) -> (Clean, String) {
    let free = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = free.local_addr().expect("address").to_string();
    drop(free);
    let conf = directory.join("registry.yml");
    let text = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n{line}\n",
        directory.join("registry").display()
    );
    fs::write(&conf, text).expect("writes");
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&conf)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let registry = Clean::Process(child);
    for _ in 0..100 {
        if TcpStream::connect(&address).is_ok() {
            return (registry, address);
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("the registry does not answer");
}

/// Directories `0`, `1`, `2`: what the layers of an image add, with whiteouts as they stand in archives.
pub(crate) fn write_layers(directory: &Path) {
    shell(
        r"
        umask 022
        mkdir -p 0/etc 0/usr/bin 0/tmp 0/data/old 0/gone 0/home/app 1/etc 1/usr/bin 1/data 1/home 2/data/new 2/tmp
        chmod 1777 0/tmp 2/tmp
        printf 'root:x:0:0:root:/root:/bin/sh\n' > 0/etc/passwd
        printf secret > 0/etc/shadow; chmod 0640 0/etc/shadow; chown 0:42 0/etc/shadow
        head -c 300000 /dev/urandom > 0/usr/bin/tool; chmod 4755 0/usr/bin/tool
        cp 0/usr/bin/tool 0/usr/bin/ping; setcap cap_net_raw+ep 0/usr/bin/ping
        ln 0/usr/bin/tool 0/usr/bin/same
        ln -s tool 0/usr/bin/link; ln -s /absolute/nowhere 0/usr/bin/dangling; chown -h 7:8 0/usr/bin/link
        ln -s usr/bin 0/bin
        printf old > 0/data/old/file; printf x > 0/gone/file
        printf '' > 0/home/app/empty; chown -R 1000:1001 0/home/app; chmod 0700 0/home/app
        printf x > 0/home/removed
        touch -d '2001-02-03 04:05:06.789' 0/etc/passwd 0/home/app/empty; touch -h -d '1999-01-01' 0/usr/bin/link
        touch -d '1965-01-01' 0/data/old/file
        name=$(printf 'n%.0s' $(seq 200)); mkdir -p 0/$name/$name; printf long > 0/$name/$name/$name
        printf 'root:x:0:0:root:/root:/bin/bash\n' > 1/etc/passwd
        printf '' > 1/.wh.gone; printf '' > 1/home/.wh.removed; printf '' > 1/home/.wh.never
        printf '' > 1/data/.wh..wh..opq; printf kept > 1/data/kept
        printf y > 1/usr/bin/link2
        printf new > 2/data/new/file; printf '' > 2/data/.wh.kept
        find 0 1 2 -type d -exec touch -d '2020-01-01 01:02:03.25' {} +
        ",
        directory,
    );
    for layer in ["0", "1", "2"] {
        let tar = format!("{layer}.tar");
        shell(
            &format!(
                "tar --format=pax --pax-option=delete=atime,delete=ctime --xattrs --xattrs-include='*' -cf {tar} -C {layer} ."
            ),
            directory,
        );
    }
    shell("gzip -k 0.tar; zstd -q 1.tar", directory);
}

/// Makes an image of files and pushes it with skopeo; returns its digest in the registry.
pub(crate) fn push(
    directory: &Path,
    address: &str,
    layers: &[(&str, &str)],
    format: &str,
) -> String {
    let layout = directory.join(format!("layout-{format}"));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("directory");
    let put = |media_type: &str, blob: &[u8]| {
        let digest = Digest::of(blob);
        fs::write(blobs.join(digest.hex()), blob).expect("writes");
        json!({"mediaType": media_type, "digest": digest, "size": blob.len()})
    };
    let read = |name: &str| fs::read(directory.join(name)).expect("reads");
    let described: Vec<Value> = layers
        .iter()
        .map(|(file, suffix)| {
            let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
            put(&media_type, &read(file))
        })
        .collect();
    let diff_ids: Vec<Digest> = layers
        .iter()
        .map(|(file, _)| {
            let tar = file.trim_end_matches(".gz").trim_end_matches(".zst");
            Digest::of(&read(tar))
        })
        .collect();
    let config = json!({
        "os": "linux", "architecture": "amd64", "config": {"Cmd": ["tool"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = put(
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": described,
    });
    let mut manifest = put(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string().as_bytes(),
    );
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "1"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).expect("writes");
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("writes");
    let remote = format!("docker://{address}/app/{format}:1");
    runs(
        "skopeo",
        &[
            "copy",
            "--dest-tls-verify=false",
            "--format",
            format,
            &format!("oci:{}:1", layout.display()),
            &remote,
        ],
    );
    let shown = runs(
        "skopeo",
        &[
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            &remote,
        ],
    );
    let digest = String::from_utf8(shown.stdout).expect("text");
    format!("{address}/app/{format}@{}", digest.trim())
}
