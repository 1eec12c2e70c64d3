//! `initializer pull-image`, compared with what `tar` unpacks.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use contrast_images::Digest;
use serde_json::{Value, json};

use crate::{
    serve_images::HTPASSWD,
    support::{
        Clean, directory, is_possible, push, registry, registry_that, runs, shell, write_layers,
    },
};

/// What `tar` makes of the layers: whiteouts first, then the rest.
fn unpack_with_tar(directory: &Path, into: &Path) {
    fs::create_dir(into).expect("directory");
    shell(
        &format!(
            "
            cd {into}
            for layer in 0 1 2; do
                find ../$layer -name '.wh.*' | while read whiteout; do
                    place=${{whiteout#../$layer/}}; around=$(dirname $place); name=$(basename $place)
                    case $name in
                        .wh..wh..opq) find $around -mindepth 1 -delete;;
                        *) rm -rf $around/${{name#.wh.}};;
                    esac
                done
                tar --xattrs --xattrs-include='*' --exclude='.wh.*' -xpf ../$layer.tar
            done
            ",
            into = into.display()
        ),
        directory,
    );
}

/// Everything that is to be kept of a tree, except for its root.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first_of_inode: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        let mut paths: Vec<_> = fs::read_dir(&directory)
            .expect("directory")
            .map(|entry| entry.expect("entry").path())
            .collect();
        paths.sort();
        for path in paths {
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let kind = metadata.file_type();
            let content = if kind.is_symlink() {
                let target = fs::read_link(&path).expect("link");
                format!("link to {}", target.display())
            } else if kind.is_file() {
                let content = fs::read(&path).expect("reads");
                format!("{} bytes, {}", content.len(), Digest::of(&content))
            } else {
                assert!(kind.is_dir() && !kind.is_char_device(), "{path:?}");
                left.push(path.clone());
                "directory".to_owned()
            };
            let relative = path.strip_prefix(root).expect("below").to_owned();
            let same = first_of_inode
                .entry(metadata.ino())
                .or_insert_with(|| relative.clone());
            let text = format!(
                "{content}; mode {:o}; owner {}:{}; time {}.{}; links {:?}; {}",
                metadata.permissions().mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.mtime(),
                metadata.mtime_nsec(),
                (!kind.is_dir()).then_some(&*same),
                capabilities(&path),
            );
            found.insert(relative, text);
        }
    }
    found
}

fn capabilities(path: &Path) -> String {
    let name = OsString::from(path);
    if name.as_bytes().len() > 4000 {
        return String::new();
    }
    let output = runs("getcap", &[&path.to_string_lossy()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rest = text.trim().strip_prefix(&*path.to_string_lossy());
    rest.unwrap_or_default().to_owned()
}

struct Guest {
    directory: PathBuf,
    conf: PathBuf,
}

impl Guest {
    fn new(directory: &Path, address: &str) -> Self {
        let conf = directory.join("registries.conf");
        let text = format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n");
        fs::write(&conf, text).expect("writes");
        Self {
            directory: directory.to_owned(),
            conf,
        }
    }

    fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    fn pull(&self, image: &str, bundle: &str) -> (Output, Clean) {
        let bundle = self.directory.join(bundle);
        let output = Command::new(env!("CARGO_BIN_EXE_initializer"))
            .env_clear()
            .args(["pull-image", image, "--store"])
            .arg(self.store())
            .arg("--bundle")
            .arg(&bundle)
            .arg("--registries-conf")
            .arg(&self.conf)
            .output()
            .expect("runs");
        (output, Clean::Mount(bundle.join("rootfs")))
    }

    fn layers(&self) -> Vec<String> {
        let layers = fs::read_dir(self.store().join("layers")).expect("layers");
        let names = layers.map(|layer| layer.expect("layer").file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }
}

#[test]
fn pulled_tree_is_what_tar_unpacks() {
    if !is_possible() {
        return;
    }
    let directory = directory();
    let directory = directory.path();
    let (_registry, address) = registry(directory);
    write_layers(directory);
    let expected = directory.join("expected");
    unpack_with_tar(directory, &expected);
    let expected = tree(&expected);
    assert!(expected.len() > 20, "{expected:#?}");
    assert!(expected[Path::new("usr/bin/ping")].contains("cap_net_raw"));
    assert!(expected[Path::new("usr/bin/tool")].contains("mode 104755"));

    let guest = Guest::new(directory, &address);
    let oci = [("0.tar.gz", "+gzip"), ("1.tar.zst", "+zstd"), ("2.tar", "")];
    let docker = [("0.tar.gz", "+gzip"), ("1.tar", ""), ("2.tar", "")];
    for (format, layers) in [("oci", oci), ("v2s2", docker)] {
        let image = push(directory, &address, &layers, format);
        let (output, _mounted) = guest.pull(&image, format);
        assert!(output.status.success(), "{output:?}");
        let bundle = directory.join(format);
        let pulled = tree(&bundle.join("rootfs"));
        for (path, text) in &expected {
            assert_eq!(pulled.get(path), Some(text), "{path:?} of {format}");
        }
        assert_eq!(
            pulled.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>()
        );
        let config: Value =
            serde_json::from_slice(&fs::read(bundle.join("image.json")).expect("reads"))
                .expect("JSON");
        assert_eq!(config["config"]["Cmd"], json!(["tool"]));
        // The second one finds all layers there.
        assert_eq!(guest.layers().len(), 3);
        let (again, _none) = guest.pull(&image, format);
        let text = String::from_utf8_lossy(&again.stderr).into_owned();
        assert!(text.contains("holds another bundle"), "{text}");
        assert_eq!(tree(&bundle.join("rootfs")), pulled);
        // What the container writes does not reach the layers.
        fs::write(bundle.join("rootfs/etc/passwd"), "changed").expect("writes");
        fs::remove_dir_all(bundle.join("rootfs/usr")).expect("removes");
    }
    assert_eq!(
        fs::read_dir(guest.store().join("tmp"))
            .expect("tmp")
            .count(),
        0
    );
    let absent = format!("{address}/app/oci@{}", Digest::of(b""));
    let (output, _mounted) = guest.pull(&absent, "none");
    let left = fs::read_dir(directory.join("none")).expect("bundle");
    assert_eq!(left.count(), 0, "a failure leaves nothing behind");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("it is not in registries"), "{text}");
    let (output, _mounted) = guest.pull("docker.io/library/nginx:1", "tag");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("has no digest, so the host could run anything"),
        "{text}"
    );
}

#[test]
fn registry_that_wants_credentials_is_told_with_the_flag_for_them() {
    if !is_possible() {
        return;
    }
    let directory = directory();
    let passwords = directory.path().join("htpasswd");
    fs::write(&passwords, HTPASSWD).expect("writes");
    let line = format!(
        "auth: {{htpasswd: {{realm: private, path: {}}}}}",
        passwords.display()
    );
    let (_registry, address) = registry_that(directory.path(), &line);
    let guest = Guest::new(directory.path(), &address);
    let image = format!("{address}/app@{}", Digest::of(b""));
    let (output, _mounted) = guest.pull(&image, "bundle");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for says in ["`--credentials FILE`", "no credentials are stored for it"] {
        assert!(text.contains(says), "{text}");
    }
    assert!(!text.contains("docker login"), "{text}");
}
