use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    Digest, ImageError, ImageReference, Progress, Resolver, Store,
    chain::Known,
    document::Descriptor,
    parallel::{layers_at_once, parallel},
};

/// An image whose layers are all in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledImage {
    /// Digests of its unpacked layers, the lowest first.
    pub diff_ids: Vec<Digest>,
    /// Directories of its layers, the lowest first; a layer that the image has twice is in the higher place only, where it covers all
    /// that it has in the lower one.
    pub layers: Vec<PathBuf>,
    /// The image's configuration, JSON (OCI image specification, "Image Configuration").
    pub configuration: Vec<u8>,
}

/// An image cannot be pulled.
#[derive(Debug, thiserror::Error)]
#[error("cannot pull image `{image}`")]
pub struct PullError {
    /// The reference.
    pub image: String,
    /// Why not.
    #[source]
    pub source: ImageError,
}

impl Resolver {
    /// Unpacks into the store what it does not have of an image yet, several layers at the same time. Every document and every layer is
    /// what the reference's digest says; layers that are not are not in the store.
    ///
    /// # Errors
    /// When the image is not there, is not what its digests say, or cannot be written; then layers that were right are in the store.
    pub fn pull(
        &self,
        image: &ImageReference,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<PulledImage, PullError> {
        let failed = |source| PullError {
            image: image.to_string(),
            source,
        };
        let known = self.documents(image.name(), image.name()).map_err(failed)?;
        if known.unproven {
            return Err(failed(ImageError::NoDigest {
                archive: known.origin.shown(),
                image: image.name().tagged(),
            }));
        }
        known.unpack(store, progress).map_err(failed)?;
        let diff_ids = known.configuration.diff_ids;
        let mut layers = Vec::new();
        for (position, diff_id) in diff_ids.iter().enumerate() {
            let above = diff_ids.iter().skip(position).skip(1);
            if above.clone().all(|other| other != diff_id) {
                layers.push(store.path(*diff_id));
            }
        }
        Ok(PulledImage {
            diff_ids,
            layers,
            configuration: known.text,
        })
    }
}

impl Known<'_> {
    fn unpack(&self, store: &Store, progress: &dyn Progress) -> Result<(), ImageError> {
        let layers = self.manifest.layers.iter();
        let layers = layers.zip(&self.configuration.diff_ids);
        let wanted: BTreeMap<Digest, &Descriptor> = layers
            .map(|(layer, diff_id)| (*diff_id, layer))
            .filter(|(diff_id, _)| store.layer(*diff_id).is_none())
            .collect();
        let mut wanted: Vec<(Digest, &Descriptor)> = wanted.into_iter().collect();
        // The largest first, so that none is left over at the end.
        wanted.sort_by_key(|(_, layer)| std::cmp::Reverse(layer.size));
        let sizes = wanted.iter().map(|(_, layer)| layer.size);
        progress.begin(wanted.len(), sizes.fold(0, u64::saturating_add));
        let stop = AtomicBool::new(false);
        let first_problem = Mutex::new(None);
        parallel(&wanted, layers_at_once(), |(diff_id, layer)| {
            let unpacked = self.layer(layer, progress, &|layer, source| {
                let source = Stoppable {
                    source,
                    stop: &stop,
                };
                store.unpack(layer, Some(*diff_id), source)
            });
            if let Err(problem) = unpacked
                && !stop.swap(true, Ordering::Relaxed)
            {
                let mut first = first_problem.lock().unwrap_or_else(PoisonError::into_inner);
                *first = Some(problem.of_image(layer.digest));
            }
        });
        let problem = first_problem.into_inner();
        problem
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }
}

/// Ends when another layer has failed: the image is lost then.
struct Stoppable<'a, R> {
    source: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(io::Error::other("another layer of the image failed")),
            false => self.source.read(buffer),
        }
    }
}
