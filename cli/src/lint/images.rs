//! Images.

use contrast_images::{ImageCache, ImageReference, ReferenceError};

use super::{
    Notes,
    model::{Pod, keys, text},
    rules,
};

pub(super) fn check<'a>(pod: &Pod<'a>, images: &ImageCache, notes: &mut Notes<'a>) {
    for container in pod.containers() {
        let path = keys(&["image"]);
        let image = text(&container.value["image"]);
        if image.is_empty() {
            let text = (
                "the container has no image",
                "write `image: repository@sha256:<digest>`",
            );
            notes.container(&rules::IMAGE_MALFORMED, &container, &path, text);
            continue;
        }
        match ImageReference::parse(image) {
            Err(ReferenceError::NoDigest { .. }) if images.pinned(image).is_none() => {
                let text = (
                    format!("the image `{image}` has no digest"),
                    format!("write `{image}@sha256:<digest>`"),
                );
                notes.container(&rules::IMAGE_WITHOUT_DIGEST, &container, &path, text);
            }
            Ok(_) | Err(ReferenceError::NoDigest { .. }) => {}
            Err(_) => {
                let text = (
                    format!("`{image}` is no image reference"),
                    "write `[registry/]repository[:tag]@sha256:<64 lower-case hex digits>`",
                );
                notes.container(&rules::IMAGE_MALFORMED, &container, &path, text);
            }
        }
    }
}
