//! Images from layouts, archives and registries, honest and otherwise.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may panic, and says why it is skipped"
)]

mod authentication;
mod differences;
mod fixture;
mod honest;
mod hostile;
mod poisoning;
mod pulled;
mod registry;
mod transfers;

use contrast_images::{ImageCache, ImageName, Progress, Resolved, Resolver};

struct Silent;

impl Progress for Silent {
    fn begin(&self, _layers: usize, _bytes: u64) {}
    fn read(&self, _bytes: u64) {}
}

/// Resolves one image with an empty cache; errors as they are shown.
fn resolve(resolver: &Resolver, name: &ImageName) -> Result<(Resolved, ImageCache), String> {
    let mut cache = ImageCache::default();
    let resolved = resolver.resolve(std::slice::from_ref(name), &mut cache, &Silent);
    let mut resolved = resolved.map_err(|error| error.to_string())?;
    Ok((resolved.remove(0), cache))
}

fn digest(image: &ImageName) -> String {
    image.digest().expect("a digest").to_string()
}
