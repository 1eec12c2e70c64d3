use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    path::PathBuf,
    sync::Arc,
};

use crate::{
    Digest, DocumentError, ImageCache, ImageName, LayerError, LayerFacts, LocalError, OriginError,
    RegistryError, RegistryOptions,
    accounts::Accounts,
    chain::{Known, LayerProblem},
    document::Descriptor,
    local,
    origin::Origin,
    parallel::{layers_at_once, parallel},
    registry::Registries,
};

/// Images whose documents are read at the same time; that is waiting more than work.
const DOCUMENTS_AT_ONCE: usize = 8;

/// Looks for images, first in files, then in registries.
#[derive(Debug)]
pub struct Resolver {
    pub(crate) origins: Vec<Box<dyn Origin>>,
}

/// Is told what happens, from several threads.
pub trait Progress: Sync {
    /// So many layers, with so many bytes, will be read.
    fn begin(&self, layers: usize, bytes: u64);
    /// So many more bytes of them were read.
    fn read(&self, bytes: u64);
    /// Whether the pull is to end: then what is being read breaks off.
    fn is_over(&self) -> bool {
        false
    }
}

/// An image that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// As it was asked for.
    pub name: ImageName,
    /// What stands behind `@` in references.
    pub digest: Digest,
    /// Where it was found: `registries`, or the path of a layout or an archive.
    pub origin: String,
    /// That this digest is of this image is the asker's word: the archive knows names only.
    pub unproven: bool,
}

/// A place cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolverError {
    /// A layout or an archive.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// Registries.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Nowhere.
    #[error("it is not in {places}")]
    NotFound {
        /// Where it was looked for.
        places: String,
    },
    /// A place failed.
    #[error("{place}")]
    Origin {
        /// Which one.
        place: String,
        /// Why.
        #[source]
        source: Arc<OriginError>,
    },
    /// The image's configuration.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// One of its layers.
    #[error("layer {digest}")]
    Layer {
        /// Digest in the manifest.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: Arc<LayerError>,
    },
    /// An archive that knows names only.
    #[error(
        "{archive} has no digests that registries know; write the image as `{image}@sha256:<digest>`, or save it as an OCI archive"
    )]
    NoDigest {
        /// The archive.
        archive: String,
        /// Name with tag.
        image: String,
    },
}

/// A registry wants credentials, or others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied<'a> {
    /// The registry, as references begin.
    pub registry: &'a str,
    /// Whether it was sent some.
    pub with_credentials: bool,
}

impl ImageError {
    /// Whether a registry refuses access. What may help depends on where credentials come from, so it is for callers to say.
    pub fn denied(&self) -> Option<Denied<'_>> {
        let Self::Origin { source, .. } = self else {
            return None;
        };
        match source.as_ref() {
            OriginError::Registry(RegistryError::Denied {
                registry,
                with_credentials,
                ..
            }) => Some(Denied {
                registry,
                with_credentials: *with_credentials,
            }),
            _ => None,
        }
    }
}

/// Images that cannot be used, all of them.
#[derive(Debug)]
pub struct ResolveError {
    /// By name.
    pub images: Vec<(ImageName, ImageError)>,
    /// Those that were found all the same.
    pub resolved: Vec<Resolved>,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot read ")?;
        for (position, (name, error)) in self.images.iter().enumerate() {
            if position > 0 {
                f.write_str("\ncannot read ")?;
            }
            write!(f, "image `{name}`: {error}")?;
            let mut cause = error.source();
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl Error for ResolveError {}

impl Resolver {
    /// Looks in `files` (OCI layouts, or archives of `docker save`, `podman save` and `skopeo copy`), then in registries unless they are
    /// `None`.
    ///
    /// # Errors
    /// When one of the files is neither, or the options are unusable.
    pub fn new(
        files: &[PathBuf],
        registries: Option<&RegistryOptions>,
    ) -> Result<Self, ResolverError> {
        let mut origins = Vec::new();
        for path in files {
            origins.push(local::open(path)?);
        }
        if let Some(options) = registries {
            origins.push(Box::new(Registries::new(options)?));
        }
        Ok(Self { origins })
    }

    /// Adds what is known of `images` to the cache; asks nobody for what is in it. A tag means what the cache says of it, if it does.
    ///
    /// # Errors
    /// When an image cannot be used; then what could is in the cache all the same.
    pub fn resolve(
        &self,
        images: &[ImageName],
        cache: &mut ImageCache,
        progress: &dyn Progress,
    ) -> Result<Vec<Resolved>, ResolveError> {
        let unknown: BTreeSet<&ImageName> =
            images.iter().filter(|name| !cache.knows(name)).collect();
        let unknown: Vec<(&ImageName, ImageName)> = unknown
            .into_iter()
            .map(|name| (name, cache.with_digest(name)))
            .collect();
        let found = parallel(&unknown, DOCUMENTS_AT_ONCE, |(name, with_digest)| {
            (*name, self.documents(name, with_digest))
        });
        let mut failed = Vec::new();
        let mut known = Vec::new();
        for (name, found) in found {
            match found {
                Ok(found) => known.push(found),
                Err(error) => failed.push((name.clone(), error)),
            }
        }
        let problems = self.layers(&known, cache, progress);
        let mut resolved = Vec::new();
        for image in known {
            let name = image.name;
            match image.finish(&problems, cache) {
                Ok(image) => resolved.push(image),
                Err(error) => failed.push((name.clone(), error)),
            }
        }
        match failed.is_empty() {
            true => Ok(resolved),
            false => Err(ResolveError {
                images: failed,
                resolved,
            }),
        }
    }

    /// Reads all layers that the cache does not know, each once, and adds what they say to it.
    fn layers(
        &self,
        images: &[Known<'_>],
        cache: &mut ImageCache,
        progress: &dyn Progress,
    ) -> BTreeMap<Digest, LayerProblem> {
        // What one image says of a layer may be wrong, and right in another.
        let mut wanted: BTreeMap<Digest, Vec<(&Known<'_>, &Descriptor)>> = BTreeMap::new();
        for image in images {
            for layer in &image.manifest.layers {
                if cache.layer(layer.digest).is_none() {
                    wanted.entry(layer.digest).or_default().push((image, layer));
                }
            }
        }
        let mut wanted: Vec<Vec<(&Known<'_>, &Descriptor)>> = wanted.into_values().collect();
        let size =
            |layer: &[(&Known<'_>, &Descriptor)]| layer.first().map_or(0, |(_, layer)| layer.size);
        // The largest first, so that none is left over at the end.
        wanted.sort_by_key(|layer| std::cmp::Reverse(size(layer)));
        progress.begin(
            wanted.len(),
            wanted
                .iter()
                .fold(0, |sum, layer| sum.saturating_add(size(layer))),
        );
        let read = parallel(&wanted, layers_at_once(), |images| {
            first_layer(images, progress)
        });
        let mut problems = BTreeMap::new();
        for (digest, facts) in read.into_iter().flatten() {
            match facts {
                Ok(facts) => cache.insert_layer(digest, facts),
                Err(problem) => {
                    problems.insert(digest, problem);
                }
            }
        }
        problems
    }
}

/// Reads a layer the way that the first of its images describes it, or else the next one with another repository, place or size.
fn first_layer(
    images: &[(&Known<'_>, &Descriptor)],
    progress: &dyn Progress,
) -> Option<(Digest, Result<LayerFacts, LayerProblem>)> {
    let mut tried = BTreeSet::new();
    let mut outcome = None;
    for (image, layer) in images {
        if !tried.insert((image.name.repository(), image.origin.shown(), layer.size)) {
            continue;
        }
        let facts = image.layer(layer, progress, &|layer, source| {
            LayerFacts::read(layer, source)
        });
        let done = facts.is_ok();
        outcome = Some((layer.digest, facts));
        if done {
            break;
        }
    }
    outcome
}

impl Known<'_> {
    fn finish(
        self,
        problems: &BTreeMap<Digest, LayerProblem>,
        cache: &mut ImageCache,
    ) -> Result<Resolved, ImageError> {
        let mut changes = Vec::new();
        let diff_ids = &self.configuration.diff_ids;
        for (layer, expected) in self.manifest.layers.iter().zip(diff_ids) {
            let digest = layer.digest;
            match (problems.get(&digest), cache.layer(digest)) {
                (Some(problem), _) => return Err(problem.clone().of_image(digest)),
                (None, Some(facts)) if facts.diff_id == *expected => {
                    changes.push(&facts.accounts);
                }
                (None, facts) => {
                    let source = Arc::new(LayerError::DiffId {
                        found: facts.map(|facts| facts.diff_id),
                        expected: *expected,
                    });
                    return Err(ImageError::Layer { digest, source });
                }
            }
        }
        let mut config = self.configuration.config;
        config.accounts = Accounts::of_layers(changes.into_iter());
        let layers = self.manifest.layers.iter();
        config.layers = layers.map(|layer| layer.digest).collect();
        match self.unproven {
            true => cache.insert_unproven(self.digest, config),
            false => cache.insert(&self.digest.to_string(), config),
        }
        if self.name.digest().is_none() {
            cache.pin(self.name, self.digest);
        }
        Ok(Resolved {
            name: self.name.clone(),
            digest: self.digest,
            origin: self.origin.shown(),
            unproven: self.unproven,
        })
    }
}
