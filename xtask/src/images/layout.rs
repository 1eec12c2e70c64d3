//! Images as OCI layouts and archives (OCI Image Format Specification 1.1: image-layout, manifest, config).

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    layer::{Packed, append, digest},
    spec::Image,
};

/// When everything was made: layers and configurations of one input have one digest.
const CREATED: &str = "1970-01-01T00:00:00Z";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Where Debian's programs look for each other.
const SEARCH: &str = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// An image with all its blobs.
#[derive(Debug)]
pub(super) struct Built {
    /// Of the manifest, `sha256:…`.
    pub(super) digest: String,
    /// What made each layer, and the digest of its uncompressed archive.
    pub(super) layers: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
}

impl Built {
    /// Puts an image together; the layers are in their order, each with what made it. `name` is what container engines call it when they
    /// load it; it is beside the image, not in it.
    pub(super) fn new(
        image: &Image,
        version: &str,
        name: &str,
        layers: Vec<(Packed, String)>,
    ) -> Result<Self> {
        let mut blobs = Vec::new();
        let configuration = json!({
            "created": CREATED,
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "User": image.user,
                "Env": [SEARCH],
                "Entrypoint": [format!("/bin/{}", image.name)],
                "WorkingDir": "/",
                "Labels": {
                    "org.opencontainers.image.title": format!("Contrast {}", image.title),
                    "org.opencontainers.image.version": version,
                    "org.opencontainers.image.licenses": "Apache-2.0",
                },
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": layers.iter().map(|(layer, _)| &layer.diff_id).collect::<Vec<_>>(),
            },
            "history": layers
                .iter()
                .map(|(_, by)| json!({"created": CREATED, "created_by": by}))
                .collect::<Vec<_>>(),
        });
        let made = layers.iter();
        let made = made.map(|(layer, by)| (by.clone(), layer.diff_id.clone()));
        let made = made.collect();
        let configuration = blob(&mut blobs, CONFIG, serde_json::to_vec(&configuration)?);
        let layers: Vec<Value> = layers
            .into_iter()
            .map(|(layer, _)| blob(&mut blobs, LAYER, layer.gzip))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": configuration,
            "layers": layers,
        });
        let mut descriptor = blob(&mut blobs, MANIFEST, serde_json::to_vec(&manifest)?);
        let digest = descriptor["digest"].as_str().unwrap_or_default().to_owned();
        descriptor["platform"] = json!({"architecture": "amd64", "os": "linux"});
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [descriptor],
        });
        let mut files = vec![
            (
                "oci-layout".to_owned(),
                serde_json::to_vec(&json!({"imageLayoutVersion": "1.0.0"}))?,
            ),
            ("index.json".to_owned(), serde_json::to_vec(&index)?),
        ];
        files.append(&mut blobs);
        files.sort();
        files.dedup_by(|one, other| one.0 == other.0);
        Ok(Self {
            digest,
            layers: made,
            files,
        })
    }

    /// Writes the layout `DIRECTORY/NAME` and the archive `DIRECTORY/NAME.tar`.
    pub(super) fn write(&self, directory: &Path, name: &str) -> Result<()> {
        let layout = directory.join(name);
        if layout.exists() {
            fs::remove_dir_all(&layout)?;
        }
        fs::create_dir_all(layout.join("blobs/sha256"))?;
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in &self.files {
            fs::write(layout.join(path), content)
                .with_context(|| format!("cannot write {path} into {}", layout.display()))?;
            append(&mut archive, path, content, 0o644)?;
        }
        let archive_path = directory.join(format!("{name}.tar"));
        fs::write(&archive_path, archive.into_inner()?)
            .with_context(|| format!("cannot write {}", archive_path.display()))
    }
}

/// Keeps a blob and returns its descriptor.
fn blob(files: &mut Vec<(String, Vec<u8>)>, media_type: &str, content: Vec<u8>) -> Value {
    let digest = digest(&content);
    let descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
    let path = format!("blobs/{}", digest.replace(':', "/"));
    files.push((path, content));
    descriptor
}
