//! From a reference to the layers of its image, for `generate` and for the guest: what is read is what the digest before it says.

use std::{io::Read, sync::Arc};

use crate::{
    Digest, ImageError, ImageName, LayerError, OriginError, Progress, Resolver,
    document::{Configuration, Descriptor, Manifest},
    origin::{Found, Origin, check},
};

/// How often a transfer is tried that breaks off, or brings something else.
const TRANSFERS_MAX: usize = 3;

/// An image whose documents were read.
pub(crate) struct Known<'a> {
    pub(crate) name: &'a ImageName,
    pub(crate) digest: Digest,
    pub(crate) origin: &'a dyn Origin,
    pub(crate) unproven: bool,
    pub(crate) manifest: Manifest,
    pub(crate) configuration: Configuration,
    /// The text of the configuration.
    pub(crate) text: Vec<u8>,
}

/// Several images may have the layer.
#[derive(Clone)]
pub(crate) enum LayerProblem {
    Origin(String, Arc<OriginError>),
    Layer(Arc<LayerError>),
}

impl Resolver {
    /// Looks for an image in one place after the other, and reads its documents.
    pub(crate) fn documents<'a>(
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
                text,
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
}

impl Known<'_> {
    /// Gives the content of a layer to `read`, again when the transfer fails.
    pub(crate) fn layer<T>(
        &self,
        layer: &Descriptor,
        progress: &dyn Progress,
        read: &dyn Fn(&Descriptor, Counting<'_>) -> Result<T, LayerError>,
    ) -> Result<T, LayerProblem> {
        let mut transfer = 0;
        loop {
            let source = self.origin.blob(&self.name_with_digest(), layer, transfer);
            let source = source
                .map_err(|error| LayerProblem::Origin(self.origin.shown(), Arc::new(error)))?;
            match read(layer, Counting { source, progress }) {
                Ok(done) => return Ok(done),
                Err(error)
                    if error.is_of_transfer()
                        && transfer < TRANSFERS_MAX - 1
                        && !progress.is_over() =>
                {
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
}

impl LayerProblem {
    /// As a problem of an image that has the layer.
    pub(crate) fn of_image(self, digest: Digest) -> ImageError {
        match self {
            Self::Origin(place, source) => ImageError::Origin { place, source },
            Self::Layer(source) => ImageError::Layer { digest, source },
        }
    }
}

fn origin_failed(origin: &dyn Origin, source: Arc<OriginError>) -> ImageError {
    ImageError::Origin {
        place: origin.shown(),
        source,
    }
}

/// Content of a layer, whose reading is reported.
pub(crate) struct Counting<'a> {
    source: Box<dyn Read + 'a>,
    progress: &'a dyn Progress,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.progress.is_over() {
            return Err(std::io::Error::other("the pull was ended"));
        }
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
