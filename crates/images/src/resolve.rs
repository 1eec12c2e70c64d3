use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    io::Read,
    num::NonZero,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    Digest, DocumentError, ImageCache, ImageName, LayerError, LayerFacts, LocalError, OriginError,
    RegistryError, RegistryOptions,
    accounts::Accounts,
    document::{Configuration, Descriptor, Manifest},
    layer, local,
    origin::{Found, Origin, check},
    registry::Registries,
};

/// How often a transfer is tried that breaks off, or brings something else.
const TRANSFERS_MAX: usize = 3;
/// Images whose documents are read at the same time; that is waiting more than work.
const DOCUMENTS_AT_ONCE: usize = 8;
/// Layers that are read at the same time, for each processor: one waits while another is hashed.
const LAYERS_PER_PROCESSOR: usize = 2;
const LAYERS_AT_ONCE_MAX: usize = 8;

/// Looks for images, first in files, then in registries.
#[derive(Debug)]
pub struct Resolver {
    origins: Vec<Box<dyn Origin>>,
}

/// Is told what happens, from several threads.
pub trait Progress: Sync {
    /// So many layers, with so many bytes, will be read.
    fn begin(&self, layers: usize, bytes: u64);
    /// So many more bytes of them were read.
    fn read(&self, bytes: u64);
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

/// An image whose documents were read.
struct Known<'a> {
    name: &'a ImageName,
    digest: Digest,
    origin: &'a dyn Origin,
    unproven: bool,
    manifest: Manifest,
    configuration: Configuration,
}

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

    fn documents<'a>(
        &'a self,
        name: &'a ImageName,
        with_digest: &ImageName,
    ) -> Result<Known<'a>, ImageError> {
        for origin in &self.origins {
            let origin = origin.as_ref();
            let failed = |source| origin_failed(origin, Arc::new(source));
            let Some(Found { digest, manifest }) = origin.find(with_digest).map_err(failed)? else {
                continue;
            };
            let unproven = digest.is_none();
            let digest = digest.or_else(|| with_digest.digest());
            let digest = digest.ok_or_else(|| ImageError::NoDigest {
                archive: origin.shown(),
                image: name.tagged(),
            })?;
            let text = configuration(origin, with_digest, &manifest.config).map_err(failed)?;
            let configuration = Configuration::parse(&text)?;
            configuration.check(manifest.layers.len())?;
            return Ok(Known {
                name,
                digest,
                origin,
                unproven,
                manifest,
                configuration,
            });
        }
        let places: Vec<String> = self.origins.iter().map(|origin| origin.shown()).collect();
        Err(ImageError::NotFound {
            places: match places.is_empty() {
                true => "the image cache, and registries are not asked".to_owned(),
                false => places.join(", "),
            },
        })
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
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let at_once = processors
            .saturating_mul(LAYERS_PER_PROCESSOR)
            .min(LAYERS_AT_ONCE_MAX);
        let read = parallel(&wanted, at_once, |images| first_layer(images, progress));
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
        let facts = image.layer(layer, progress);
        let done = facts.is_ok();
        outcome = Some((layer.digest, facts));
        if done {
            break;
        }
    }
    outcome
}

/// Several images may have the layer.
#[derive(Clone)]
enum LayerProblem {
    Origin(String, Arc<OriginError>),
    Layer(Arc<LayerError>),
}

impl Known<'_> {
    fn layer(
        &self,
        layer: &Descriptor,
        progress: &dyn Progress,
    ) -> Result<LayerFacts, LayerProblem> {
        let mut transfer = 0;
        loop {
            let source = self.origin.blob(&self.name_with_digest(), layer, transfer);
            let source = source
                .map_err(|error| LayerProblem::Origin(self.origin.shown(), Arc::new(error)))?;
            match layer::read(layer, Counting { source, progress }) {
                Ok(facts) => return Ok(facts),
                Err(error) if error.is_of_transfer() && transfer < TRANSFERS_MAX - 1 => {
                    transfer += 1;
                }
                Err(error) => return Err(LayerProblem::Layer(Arc::new(error))),
            }
        }
    }

    /// Mirrors may differ in what they have by tag and by digest; layers come from where the manifest came from.
    fn name_with_digest(&self) -> ImageName {
        self.name.with_digest(self.digest)
    }

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
                (Some(LayerProblem::Layer(source)), _) => {
                    let source = Arc::clone(source);
                    return Err(ImageError::Layer { digest, source });
                }
                (Some(LayerProblem::Origin(place, source)), _) => {
                    let (place, source) = (place.clone(), Arc::clone(source));
                    return Err(ImageError::Origin { place, source });
                }
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

fn origin_failed(origin: &dyn Origin, source: Arc<OriginError>) -> ImageError {
    ImageError::Origin {
        place: origin.shown(),
        source,
    }
}

struct Counting<'a, R> {
    source: R,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.progress.read(count as u64);
        Ok(count)
    }
}

/// Reads a configuration and checks it against its digest.
fn configuration(
    origin: &dyn Origin,
    name: &ImageName,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, OriginError> {
    let mut transfer = 0;
    loop {
        match configuration_once(origin, name, descriptor, transfer) {
            Err(OriginError::Read { .. } | OriginError::Digest { .. })
                if transfer < TRANSFERS_MAX - 1 =>
            {
                transfer += 1;
            }
            outcome => return outcome,
        }
    }
}

fn configuration_once(
    origin: &dyn Origin,
    name: &ImageName,
    descriptor: &Descriptor,
    transfer: usize,
) -> Result<Vec<u8>, OriginError> {
    let mut text = Vec::new();
    // The manifest limits the size.
    let source = origin.blob(name, descriptor, transfer)?;
    source
        .take(descriptor.size.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(|source| OriginError::Read { source })?;
    check("configuration", Digest::of(&text), descriptor.digest)?;
    Ok(text)
}

/// Applies `work` to all items, some at the same time; results are in the order of the items.
fn parallel<T: Sync, R: Send>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results: Mutex<BTreeMap<usize, R>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..at_once.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(position) else {
                        break;
                    };
                    let result = work(item);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.insert(position, result);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_values().collect()
}
