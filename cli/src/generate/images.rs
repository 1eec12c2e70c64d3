//! The images of all workloads: found once, before any policy is made.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use contrast_images::{
    ImageCache, ImageError, ImageName, Progress, RegistryOptions, ResolveError, Resolved, Resolver,
};
use serde_json::Value;

use super::{GenerateError, Mode, Options, inject::containers};

/// Registry of images that are not published.
const PLACEHOLDER: &str = "registry.example.com/";

/// Where images are looked for.
#[derive(Debug, Clone)]
pub struct ImageOptions {
    /// Cache of what is known; may be absent.
    pub cache: PathBuf,
    /// OCI layouts and archives of images.
    pub sources: Vec<PathBuf>,
    /// How registries are asked; `None` if they are not.
    pub registries: Option<RegistryOptions>,
    /// Look for the digests of tags again, also of those that the cache knows.
    pub refresh_tags: bool,
}

/// What is known of the images.
pub(super) struct Images {
    pub(super) cache: ImageCache,
    /// Who said just now what a tag means, by name with tag.
    fresh: BTreeMap<String, String>,
    pub(super) notices: Vec<String>,
}

pub(super) fn read_cache(options: &Options) -> Result<ImageCache, GenerateError> {
    let mut cache = ImageCache::read(&options.images.cache)?;
    if options.images.refresh_tags {
        cache.forget_tags();
    }
    Ok(cache)
}

/// Finds out what the cache does not know of the images of `templates`, and adds it to the cache's file when files may be written:
/// also when other images fail, so that nothing is transferred twice.
pub(super) fn resolve<'a>(
    options: &Options,
    mut cache: ImageCache,
    templates: impl Iterator<Item = &'a Value>,
    progress: &dyn Progress,
) -> Result<Images, GenerateError> {
    let mut names = BTreeSet::new();
    for template in templates {
        for (_, _, container) in containers(&template["spec"]) {
            let image = container["image"].as_str().unwrap_or_default();
            // What is no reference, or has no digest where it must, is refused when the policy is made: the message names the container.
            let name = ImageName::parse(image).ok();
            let allowed = |name: &ImageName| !options.require_digests || name.digest().is_some();
            names.extend(name.filter(allowed));
        }
    }
    let names: Vec<ImageName> = names.into_iter().collect();
    let resolver = Resolver::new(&options.images.sources, options.images.registries.as_ref())
        .map_err(|source| GenerateError::ImageSource(Box::new(source)))?;
    let outcome = resolver.resolve(&names, &mut cache, progress);
    if options.mode == Mode::Write {
        cache.add_to(&options.images.cache)?;
    }
    let mut notices = Vec::new();
    let resolved = match outcome {
        Ok(resolved) => resolved,
        Err(mut error) => {
            // Without registries a gap is the user's decision.
            let offline = options.images.registries.is_none();
            let (gaps, failed): (Vec<_>, Vec<_>) = error
                .images
                .into_iter()
                .partition(|(_, error)| offline && matches!(error, ImageError::NotFound { .. }));
            let gaps = gaps.iter().filter(|(name, _)| name.digest().is_some());
            let gaps: Vec<String> = gaps.map(|(name, _)| format!("`{name}`")).collect();
            if !gaps.is_empty() {
                notices.push(format!(
                    "taken to run as root without variables of their own, because no registry is asked and neither the image cache nor an image source has them: {}",
                    gaps.join(", ")
                ));
            }
            error.images = failed;
            match error.images.is_empty() {
                true => error.resolved,
                false => return Err(GenerateError::Images(Box::new(error))),
            }
        }
    };
    notices.extend(resolved.iter().filter(|image| image.unproven).map(unproven));
    let fresh = resolved
        .into_iter()
        .filter(|image| image.name.digest().is_none())
        .map(|image| (image.name.tagged(), image.origin));
    Ok(Images {
        cache,
        fresh: fresh.collect(),
        notices,
    })
}

/// What may help with images that cannot be used.
pub(super) fn hints(error: &ResolveError) -> Vec<String> {
    let placeholder =
        |(name, _): &(ImageName, ImageError)| name.repository().starts_with(PLACEHOLDER);
    let mut hints = Vec::new();
    if error.images.iter().any(placeholder) {
        hints.push(format!(
            "`{PLACEHOLDER}…` stands for images that you build: name yours with `--image-replacements`"
        ));
    }
    let denied = error.images.iter().filter_map(|(_, error)| error.denied());
    let registries: BTreeSet<&str> = denied.map(|denied| denied.registry).collect();
    hints.extend(registries.iter().map(|registry| {
        format!("log in with `docker login {registry}`, or `podman login {registry}`, as somebody who may pull from there")
    }));
    if !error.images.iter().all(placeholder) {
        hints.push("without a network, name OCI layouts or archives with `--image-source`, or fill the image cache and use `--offline`".to_owned());
    }
    hints
}

fn unproven(image: &Resolved) -> String {
    format!(
        "image `{}`: {} has no digests, so that it is this image is what the YAML says",
        image.name, image.origin
    )
}

impl Images {
    /// `image` with the digest of its tag, and who says so; `None` if it has a digest, or is not known.
    pub(super) fn pinned(&self, image: &str) -> Option<(String, String)> {
        let pinned = self.cache.pinned(image)?;
        let name = ImageName::parse(image).ok()?;
        let origin = self.fresh.get(&name.tagged());
        let says = match origin {
            Some(origin) => format!("as it is now in {origin}"),
            None => "as the image cache says".to_owned(),
        };
        Some((pinned, says))
    }
}
