use std::{collections::BTreeMap, io::Read, sync::Arc};

use serde::Deserialize;

use super::{Files, LocalError};
use crate::{
    Digest, ImageName,
    document::{Configuration, Descriptor, MANIFESTS_MAX, Manifest, json, within},
    origin::{Found, Origin, OriginError},
};

/// Table of images in an archive of `docker save` and of `podman save --format docker-archive`.
pub(super) const MANIFEST: &str = "manifest.json";
const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// An archive in Docker's older format: images have names, but no manifest that registries know, so no digest.
#[derive(Debug)]
pub(super) struct DockerArchive<F> {
    files: F,
    /// By name with tag.
    images: BTreeMap<String, Arc<Manifest>>,
    /// Files of configurations and layers, by their digests.
    blobs: BTreeMap<Digest, String>,
}

impl<F: Files> DockerArchive<F> {
    pub(super) fn open(files: F) -> Result<Self, LocalError> {
        let missing = |file: &str| LocalError::Missing {
            path: files.path().to_owned(),
            file: file.to_owned(),
        };
        let unusable = |file: &str, source| LocalError::Document {
            path: files.path().to_owned(),
            file: file.to_owned(),
            source,
        };
        let text = files.document(MANIFEST)?.ok_or_else(|| missing(MANIFEST))?;
        let entries = json("table of images", &text).and_then(|entries: Vec<Image>| {
            within("number of images", entries.len(), MANIFESTS_MAX)?;
            Ok(entries)
        });
        let entries = entries.map_err(|source| unusable(MANIFEST, source))?;
        let mut images = BTreeMap::new();
        let mut blobs = BTreeMap::new();
        for image in entries {
            let text = files
                .document(&image.config)?
                .ok_or_else(|| missing(&image.config))?;
            let configuration = Configuration::parse(&text)
                .and_then(|configuration| {
                    configuration.check(image.layers.len())?;
                    Ok(configuration)
                })
                .map_err(|source| unusable(&image.config, source))?;
            let config = Descriptor::new(CONFIG_TYPE, Digest::of(&text), text.len() as u64);
            blobs.insert(config.digest, image.config);
            let mut layers = Vec::new();
            for (file, diff_id) in image.layers.into_iter().zip(configuration.diff_ids) {
                let size = files.size(&file).ok_or_else(|| missing(&file))?;
                layers.push(Descriptor::new(LAYER_TYPE, diff_id, size));
                blobs.insert(diff_id, file);
            }
            let manifest =
                Manifest::new(config, layers).map_err(|source| unusable(MANIFEST, source))?;
            // It may have many names.
            let manifest = Arc::new(manifest);
            for tag in image.repo_tags.unwrap_or_default() {
                if let Ok(name) = ImageName::parse(&tag) {
                    images.insert(name.tagged(), Arc::clone(&manifest));
                }
            }
        }
        Ok(Self {
            files,
            images,
            blobs,
        })
    }
}

impl<F: Files> Origin for DockerArchive<F> {
    fn shown(&self) -> String {
        self.files.path().display().to_string()
    }

    fn find(&self, name: &ImageName) -> Result<Option<Found>, OriginError> {
        // Without a tag the reference says nothing that this archive knows.
        let manifest = match (name.tag(), name.digest()) {
            (None, Some(_)) => None,
            _ => self.images.get(&name.tagged()),
        };
        Ok(manifest.map(|manifest| Found {
            digest: None,
            manifest: manifest.as_ref().clone(),
        }))
    }

    fn blob(
        &self,
        _: &ImageName,
        blob: &Descriptor,
        _: usize,
    ) -> Result<Box<dyn Read + '_>, OriginError> {
        let missing = |file: String| LocalError::Missing {
            path: self.files.path().to_owned(),
            file,
        };
        let file = self.blobs.get(&blob.digest);
        let file = file.ok_or_else(|| missing(blob.digest.to_string()))?;
        let content = self.files.open(file)?;
        Ok(content.ok_or_else(|| missing(file.clone()))?)
    }
}
