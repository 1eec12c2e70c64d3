//! The JSON documents of an image: index, manifest, configuration (OCI image specification 1.1; Docker image manifest version 2,
//! schema 2, has the same shape).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Digest, ImageConfig, shown::shown};

/// The largest index or manifest: what registries accept (OCI distribution specification, "Pushing Manifests").
pub(crate) const MANIFEST_MAX: u64 = 4 * 1024 * 1024;
/// The largest configuration.
pub(crate) const CONFIG_MAX: u64 = 8 * 1024 * 1024;
/// The largest layer, as it is transferred.
const LAYER_MAX: u64 = 128 * 1024 * 1024 * 1024;
/// Overlay file systems cannot stack more; container runtimes stop at 127.
const LAYERS_MAX: usize = 500;
pub(crate) const MANIFESTS_MAX: usize = 1000;
const OS: &str = "linux";
const ARCHITECTURE: &str = "amd64";
const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Media types of indexes and manifests that are understood.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A document is unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// Not the JSON that it should be.
    #[error("the {what} is malformed")]
    Json {
        /// Which document.
        what: &'static str,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Index and manifest at once: readers would disagree on what it is (CVE-2021-41190).
    #[error(
        "the manifest is ambiguous: it has both `manifests` and `config` or `layers`, or is called what it is not"
    )]
    Ambiguous,
    /// Not of version 2.
    #[error(
        "the manifest has schemaVersion {found}, expected 2; build or copy the image again with a current tool"
    )]
    Schema {
        /// The version, 0 when there is none.
        found: u64,
    },
    /// Not a container image.
    #[error(
        "it is no container image: the type of its configuration is `{}`",
        shown(found)
    )]
    NoImage {
        /// Media type of the configuration.
        found: String,
    },
    /// For another platform.
    #[error(
        "it is for {}; confidential pods need {OS}/{ARCHITECTURE}",
        shown(found)
    )]
    Platform {
        /// Platforms that there are.
        found: String,
    },
    /// Too much of something.
    #[error("the {what} is too large: {found}, at most {limit} are read")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// Size or number.
        found: u64,
        /// How much is read.
        limit: u64,
    },
    /// Manifest and configuration contradict each other.
    #[error("the manifest has {layers} layers, but its configuration lists {diff_ids} diff ids")]
    Layers {
        /// Layers of the manifest.
        layers: usize,
        /// Diff ids of the configuration.
        diff_ids: usize,
    },
}

/// Reference to content (OCI image specification, "Content Descriptors").
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// Bytes.
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            platform: None,
            annotations: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

/// An index or a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Index(Index),
    Manifest(Manifest),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    /// The lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

impl Document {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        let raw: Raw = json("manifest", text)?;
        if raw.schema_version != 2 {
            return Err(DocumentError::Schema {
                found: raw.schema_version,
            });
        }
        let called = raw.media_type.unwrap_or_default();
        match (raw.manifests, raw.config, raw.layers) {
            (Some(_), None, None) if MANIFEST_TYPES.contains(&called.as_str()) => {
                Err(DocumentError::Ambiguous)
            }
            (None, Some(_), Some(_)) if INDEX_TYPES.contains(&called.as_str()) => {
                Err(DocumentError::Ambiguous)
            }
            (Some(manifests), None, None) => {
                within(
                    "number of manifests in the index",
                    manifests.len(),
                    MANIFESTS_MAX,
                )?;
                Ok(Self::Index(Index { manifests }))
            }
            (None, Some(config), Some(layers)) => Manifest::new(config, layers).map(Self::Manifest),
            (None, config, _) => Err(DocumentError::NoImage {
                found: config.map(|config| config.media_type).unwrap_or_default(),
            }),
            _ => Err(DocumentError::Ambiguous),
        }
    }
}

/// Checks that a text is an index with an image for confidential pods, a manifest, or a configuration.
///
/// # Errors
/// When it is none of them.
pub fn check_document(text: &[u8]) -> Result<(), DocumentError> {
    match Document::parse(text) {
        Ok(Document::Index(index)) => index.select().map(|_| ()),
        Ok(Document::Manifest(_)) => Ok(()),
        Err(DocumentError::Schema { found: 0 }) => Configuration::parse(text).map(|_| ()),
        Err(error) => Err(error),
    }
}

impl Manifest {
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Result<Self, DocumentError> {
        if !CONFIG_TYPES.contains(&config.media_type.as_str()) {
            return Err(DocumentError::NoImage {
                found: config.media_type,
            });
        }
        within("number of layers", layers.len(), LAYERS_MAX)?;
        below("configuration", config.size, CONFIG_MAX)?;
        for layer in &layers {
            below("layer", layer.size, LAYER_MAX)?;
        }
        Ok(Self { config, layers })
    }
}

impl Index {
    /// What is for the platform of confidential pods.
    pub(crate) fn select(&self) -> Result<&Descriptor, DocumentError> {
        let ours = |platform: &Platform| {
            platform.os == OS
                && platform.architecture == ARCHITECTURE
                // Newer instructions than every confidential VM must have.
                && platform.variant.as_deref().is_none_or(|variant| variant.is_empty() || variant == "v1")
        };
        let found = self
            .manifests
            .iter()
            .find(|manifest| manifest.platform.as_ref().is_some_and(ours));
        // An index of one image needs no platform.
        let only = match self.manifests.as_slice() {
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        };
        found.or(only).ok_or_else(|| {
            let platforms = self
                .manifests
                .iter()
                .map(|manifest| match &manifest.platform {
                    Some(platform) => format!("{}/{}", platform.os, platform.architecture),
                    None => "an unnamed platform".to_owned(),
                });
            let mut platforms: Vec<String> =
                platforms.filter(|name| name != "unknown/unknown").collect();
            platforms.sort();
            platforms.dedup();
            platforms.truncate(10);
            DocumentError::Platform {
                found: match platforms.is_empty() {
                    true => "no platform".to_owned(),
                    false => platforms.join(", "),
                },
            }
        })
    }
}

/// An image's configuration (OCI image specification, "Image Configuration").
#[derive(Debug)]
pub(crate) struct Configuration {
    pub(crate) config: ImageConfig,
    /// Digests of the unpacked layers, the lowest first.
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct RawConfiguration {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    config: Option<RawRuntime>,
    rootfs: RawRootfs,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct RawRuntime {
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    working_dir: Option<String>,
    #[serde(default)]
    volumes: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<Digest>>,
}

impl Configuration {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        let raw: RawConfiguration = json("configuration", text)?;
        if raw.os != OS || raw.architecture != ARCHITECTURE {
            return Err(DocumentError::Platform {
                found: format!("{}/{}", raw.os, raw.architecture),
            });
        }
        let runtime = raw.config.unwrap_or_default();
        let volumes = runtime.volumes.unwrap_or_default();
        Ok(Self {
            config: ImageConfig {
                entrypoint: runtime.entrypoint.unwrap_or_default(),
                cmd: runtime.cmd.unwrap_or_default(),
                env: runtime.env.unwrap_or_default(),
                working_dir: runtime.working_dir.unwrap_or_default(),
                user: runtime.user.unwrap_or_default(),
                volumes: volumes.into_keys().collect(),
                ..ImageConfig::default()
            },
            diff_ids: raw.rootfs.diff_ids.unwrap_or_default(),
        })
    }

    /// Checks that the configuration is of an image with so many layers.
    pub(crate) fn check(&self, layers: usize) -> Result<(), DocumentError> {
        let diff_ids = self.diff_ids.len();
        match layers == diff_ids {
            true => Ok(()),
            false => Err(DocumentError::Layers { layers, diff_ids }),
        }
    }
}

pub(crate) fn json<'a, T: Deserialize<'a>>(
    what: &'static str,
    text: &'a [u8],
) -> Result<T, DocumentError> {
    serde_json::from_slice(text).map_err(|source| DocumentError::Json { what, source })
}

pub(crate) fn within(what: &'static str, found: usize, limit: usize) -> Result<(), DocumentError> {
    below(what, found as u64, limit as u64)
}

fn below(what: &'static str, found: u64, limit: u64) -> Result<(), DocumentError> {
    match found <= limit {
        true => Ok(()),
        false => Err(DocumentError::TooLarge { what, found, limit }),
    }
}
