//! Tells what `generate` puts into a pod from what the user wrote, without generating. `lint` asks.

use contrast_policy::SERVICE_MESH;
use serde_json::Value;

use super::{
    image_store,
    inject::{self, Mesh, Opener},
    secure_volume::SecureVolume,
};

pub(crate) use super::inject::{INITIALIZER, SECRETS_VOLUME};

/// Fields that decide what a container does and may do. The image is left out: it may be of one's own registry, and the policy binds it.
const DECISIVE: [&str; 4] = ["command", "args", "securityContext", "volumeDevices"];

/// Whether an init container is the one that `generate` writes under its name. `pod_security` is the `securityContext` of its pod.
/// `annotation` reads those of the pod that the Initializer is injected for.
pub(crate) fn is_generated<'a>(
    container: &Value,
    pod_security: &Value,
    annotation: impl Fn(&str) -> Option<&'a str>,
) -> bool {
    let secure = SecureVolume::named(annotation);
    let initializer = |opener| {
        let mut expected = inject::initializer("", "", opener, None, pod_security);
        if let Some(secure) = &secure {
            secure.extend(&mut expected, pod_security);
        }
        expected
    };
    let expected = match container["name"].as_str() {
        // `generate --skip-service-mesh` leaves the annotations of the mesh, so they do not tell which one it is.
        Some(INITIALIZER) => vec![
            initializer(Opener::ServiceMesh),
            initializer(Opener::Initializer),
        ],
        Some(SERVICE_MESH) => vec![inject::service_mesh("", &Mesh::default(), "", pod_security)],
        Some(image_store::HOLDER) => vec![image_store::holder("")],
        _ => return false,
    };
    expected.iter().any(|expected| {
        DECISIVE
            .iter()
            .all(|field| container[*field] == expected[*field])
    })
}

/// The emptyDir of a `secure-pv`, which is made if the pod has none.
pub(crate) fn secure_mount<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<&'a str> {
    SecureVolume::named(annotation).map(|secure| secure.mount)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn own_containers_are_told_from_those_that_only_have_their_names() {
        let none = Value::Null;
        let made =
            |opener| inject::initializer("registry.example/own", "shop", opener, None, &none);
        assert!(is_generated(&made(Opener::ServiceMesh), &none, |_| None));
        let mut initializer = made(Opener::Initializer);
        assert!(is_generated(&initializer, &none, |_| None));
        let mesh = inject::service_mesh("a", &Mesh::default(), "shop", &none);
        assert!(is_generated(&mesh, &none, |_| None));
        assert!(is_generated(&image_store::holder("a"), &none, |_| None));

        let security = json!({"runAsNonRoot": true});
        let secure_pv = |value| move |name: &str| (name == "secure-pv").then_some(value);
        let secure = SecureVolume::named(secure_pv("data:state")).expect("two names");
        secure.extend(&mut initializer, &security);
        assert!(is_generated(
            &initializer,
            &security,
            secure_pv("data:state")
        ));
        // Nothing asks for the device; or for another; or the container is another one.
        assert!(!is_generated(&initializer, &security, |_| None));
        assert!(!is_generated(
            &initializer,
            &security,
            secure_pv("other:state")
        ));
        initializer["command"] = json!(["/bin/sh"]);
        assert!(!is_generated(
            &initializer,
            &security,
            secure_pv("data:state")
        ));

        let mut holder = image_store::holder("a");
        holder["args"] = json!(["-c", "x"]);
        assert!(!is_generated(&holder, &none, |_| None));
        let privileged = json!({"name": SERVICE_MESH, "command": ["/bin/service-mesh"], "securityContext": {"privileged": true}});
        assert!(!is_generated(&privileged, &none, |_| None));
        assert!(!is_generated(&json!({"name": "web"}), &none, |_| None));
    }
}
