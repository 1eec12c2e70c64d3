//! Images of Contrast have the version of the command that makes their policies.

use contrast_policy::SERVICE_MESH;
use serde_json::Value;

use super::{
    image_store,
    inject::{INITIALIZER, containers},
};

/// The Coordinator's container.
const COORDINATOR: &str = "coordinator";

/// The first container of Contrast whose image has a tag of another version, in words. An image without a tag says no version; a command whose own version
/// is a pre-release goes with any.
pub(super) fn mismatch(version: &str, spec: &Value, coordinator: bool) -> Option<String> {
    if version.contains('-') {
        return None;
    }
    containers(spec).find_map(|(_, _, container)| {
        let name = container["name"].as_str()?;
        let is_ours = [INITIALIZER, SERVICE_MESH, image_store::HOLDER].contains(&name)
            || (coordinator && name == COORDINATOR);
        let image = container["image"].as_str().filter(|_| is_ours)?;
        let tag = tag(image)?;
        let tagged = tag.strip_prefix('v').unwrap_or(tag);
        (tagged != version).then(|| {
            format!(
                "the container `{name}` has version {tag} of Contrast (`{image}`), this command is version {version}; write the image of version \
                 {version}, or use the command of version {tag}"
            )
        })
    })
}

/// Between the repository and the digest.
fn tag(image: &str) -> Option<&str> {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let (_, tag) = name.rsplit_once(':')?;
    (!tag.contains('/')).then_some(tag)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judge(version: &str, name: &str, image: &str, coordinator: bool) -> Option<String> {
        let spec = json!({"initContainers": [], "containers": [{"name": name, "image": image}]});
        mismatch(version, &spec, coordinator)
    }

    #[test]
    fn tag_is_the_version() {
        for image in [
            "r.example:5000/i:1.2.0@sha256:aa",
            "i:1.2.0",
            "i:v1.2.0",
            "i@sha256:aa",
            "r.example:5000/i",
        ] {
            assert_eq!(
                judge("1.2.0", "contrast-initializer", image, false),
                None,
                "{image}"
            );
        }
        for (name, coordinator) in [
            ("contrast-initializer", false),
            ("contrast-service-mesh", false),
            ("pvc-holder", true),
            ("coordinator", true),
        ] {
            let text = judge(
                "1.2.0",
                name,
                "r.example:5000/i:1.1.0@sha256:aa",
                coordinator,
            )
            .unwrap_or_default();
            assert!(
                text.contains("1.1.0") && text.contains("1.2.0") && text.contains(name),
                "{text}"
            );
        }
    }

    #[test]
    fn others_have_their_own_versions() {
        assert_eq!(judge("1.2.0", "coordinator", "i:7", false), None);
        assert_eq!(judge("1.2.0", "web", "i:7", true), None);
    }

    #[test]
    fn development_builds_go_with_any() {
        assert_eq!(
            judge("1.3.0-dev", "contrast-initializer", "i:latest", false),
            None
        );
        assert!(judge("1.3.0", "contrast-initializer", "i:latest", false).is_some());
    }
}
