//! Images that are made for a test.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use contrast_images::Digest;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

pub(crate) const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nnginx:x:101:101::/:/bin/false\n";
pub(crate) const GROUP: &[u8] = b"root:x:0:\nnginx:x:101:\nlogs:x:7:nginx\n";

/// An unpacked layer.
#[derive(Default)]
pub(crate) struct Layer(Vec<Entry>);

struct Entry {
    kind: EntryType,
    name: Vec<u8>,
    content: Vec<u8>,
    target: Vec<u8>,
}

impl Layer {
    pub(crate) fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.0.push(Entry {
            kind: EntryType::Regular,
            name: name.into(),
            content: content.into(),
            target: Vec::new(),
        });
        self
    }

    pub(crate) fn link(mut self, kind: EntryType, name: &str, target: &str) -> Self {
        self.0.push(Entry {
            kind,
            name: name.into(),
            content: Vec::new(),
            target: target.into(),
        });
        self
    }

    pub(crate) fn directory(mut self, name: &str) -> Self {
        self.0.push(Entry {
            kind: EntryType::Directory,
            name: name.into(),
            content: Vec::new(),
            target: Vec::new(),
        });
        self
    }

    pub(crate) fn push(&mut self, kind: EntryType, name: &str, content: &[u8]) {
        self.0.push(Entry {
            kind,
            name: name.into(),
            content: content.into(),
            target: Vec::new(),
        });
    }

    /// An entry after an extended header with these bytes.
    pub(crate) fn extended(self, header: &[u8], name: &str, content: &[u8]) -> Self {
        let mut layer = self;
        let kind = EntryType::XHeader;
        layer.0.push(Entry {
            kind,
            name: b"x".into(),
            content: header.into(),
            target: Vec::new(),
        });
        layer.file(name, content)
    }

    pub(crate) fn tar(&self) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for Entry {
            kind,
            name,
            content,
            target,
        } in &self.0
        {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            if kind.is_gnu_sparse() {
                header.as_gnu_mut().expect("GNU").set_real_size(0);
            }
            // Names that no honest tool writes.
            let old = header.as_old_mut();
            old.name[..name.len()].copy_from_slice(name);
            old.linkname[..target.len()].copy_from_slice(target);
            header.set_cksum();
            builder
                .append(&header, content.as_slice())
                .expect("appends");
        }
        builder.into_inner().expect("ends")
    }
}

/// A record of an extended header.
pub(crate) fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &rest].concat()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    compress(bytes, Compression::fast())
}

pub(crate) fn gzip_best(bytes: &[u8]) -> Vec<u8> {
    compress(bytes, Compression::best())
}

fn compress(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

/// An image: its documents and layers by digest.
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    /// As they are transferred, and unpacked.
    pub(crate) layers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Image {
    /// nginx, more or less.
    pub(crate) fn web() -> Self {
        let base = Layer::default()
            .directory("etc/")
            .file("etc/passwd", PASSWD)
            .file("etc/group", GROUP)
            .file("usr/bin/tool", &[7; 5000]);
        let top = Layer::default()
            .file("docker-entrypoint.sh", b"#!/bin/sh\n")
            .link(EntryType::Link, "usr/bin/same", "docker-entrypoint.sh")
            .link(EntryType::Symlink, "usr/bin/any", "/usr/bin/tool");
        let tars = [base.tar(), top.tar()];
        Self::with_layers(tars.into_iter().map(|tar| (gzip(&tar), tar)).collect())
    }

    pub(crate) fn with_layers(layers: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let config = json!({
            "os": "linux", "architecture": "amd64",
            "config": {
                "Entrypoint": ["/docker-entrypoint.sh"], "Cmd": ["nginx"], "Env": ["PATH=/usr/bin"],
                "WorkingDir": "/srv", "User": "nginx", "Volumes": {"/data": {}}, "Labels": null,
            },
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|(_, tar)| Digest::of(tar)).collect::<Vec<_>>()},
        });
        Self::with_config(&config, layers)
    }

    pub(crate) fn with_config(config: &Value, layers: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let config = serde_json::to_vec(config).expect("encodes");
        let described: Vec<Value> = layers
            .iter()
            .map(|(blob, _)| descriptor("application/vnd.oci.image.layer.v1.tar+gzip", blob))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": described,
        });
        Self {
            manifest: serde_json::to_vec(&manifest).expect("encodes"),
            config,
            layers,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    /// Everything by digest.
    pub(crate) fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let layers = self.layers.iter().map(|(blob, _)| blob);
        let all = layers.chain([&self.manifest, &self.config]);
        all.map(|blob| (Digest::of(blob).to_string(), blob.clone()))
            .collect()
    }

    /// An index with this image, one for another processor, and an attestation, as build tools write it.
    pub(crate) fn index(&self) -> Vec<u8> {
        let mut ours = descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest);
        ours["platform"] = json!({"os": "linux", "architecture": "amd64"});
        let mut other = descriptor("application/vnd.oci.image.manifest.v1+json", b"other");
        other["platform"] = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
        let mut attestation =
            descriptor("application/vnd.oci.image.manifest.v1+json", b"attestation");
        attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [other, ours, attestation],
        });
        serde_json::to_vec(&index).expect("encodes")
    }

    /// Writes an OCI layout in which the image has `name`.
    pub(crate) fn layout(&self, directory: &Path, name: &str) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("directory");
        for (digest, blob) in self.blobs() {
            fs::write(blobs.join(digest.trim_start_matches("sha256:")), blob).expect("writes");
        }
        let mut manifest = descriptor("application/vnd.oci.image.manifest.v1+json", &self.manifest);
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        fs::write(directory.join("index.json"), index.to_string()).expect("writes");
        fs::write(
            directory.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .expect("writes");
    }

    /// Writes an archive as `docker save` did before it wrote layouts.
    pub(crate) fn docker_archive(&self, file: &Path, name: &str) {
        let mut archive = Builder::new(fs::File::create(file).expect("creates"));
        let mut add = |path: &str, content: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_cksum();
            archive
                .append_data(&mut header, path, content)
                .expect("appends");
        };
        add("config.json", &self.config);
        let mut layers = Vec::new();
        for (position, (_, tar)) in self.layers.iter().enumerate() {
            let path = format!("{position}/layer.tar");
            add(&path, tar);
            layers.push(path);
        }
        // A layer that two images share is a link in such archives.
        let last = layers.pop().expect("a layer");
        let table = json!([{"Config": "config.json", "RepoTags": [name], "Layers": layers.iter().chain([&"shared/layer.tar".to_owned()]).collect::<Vec<_>>()}]);
        add("manifest.json", table.to_string().as_bytes());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        archive
            .append_link(&mut header, "shared/layer.tar", format!("../{last}"))
            .expect("appends");
        archive.finish().expect("ends");
    }
}

pub(crate) fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(blob), "size": blob.len()})
}

/// Packs a directory into a tar file.
pub(crate) fn pack(directory: &Path, file: PathBuf) -> PathBuf {
    let mut archive = Builder::new(fs::File::create(&file).expect("creates"));
    archive.append_dir_all(".", directory).expect("appends");
    archive.finish().expect("ends");
    file
}
