//! The image store: a disk of the host that the guest encrypts with a key of its own, and on which it unpacks the pod's images instead of in memory.
//!
//! The guest uses it when the device `/dev/image_store` is there. A sidecar that starts first holds the device; it is the only container that gets it.

use contrast_quantity::Quantity;
use serde_json::{Value, json};

/// The sidecar that holds the device.
pub(super) const HOLDER: &str = "pvc-holder";
/// The pod's volume.
pub(super) const VOLUME: &str = "image-store";
/// Where the guest looks for the device.
const DEVICE: &str = "/dev/image_store";
/// Size without an annotation.
const DEFAULT_SIZE: &str = "10Gi";

/// The disk's size, or `None` if the pod has none. `annotation` was found to be a quantity.
pub(super) fn size(annotation: Option<&str>) -> Option<&str> {
    let size = annotation.unwrap_or(DEFAULT_SIZE);
    let none = size
        .parse()
        .is_ok_and(|size: Quantity| size == Quantity::default());
    (!none).then_some(size)
}

/// The sidecar. It is the Initializer's image, which does nothing here but wait for its end.
pub(super) fn holder(image: &str) -> Value {
    json!({
        "name": HOLDER,
        "image": image,
        "command": ["/bin/initializer", "--hold"],
        "restartPolicy": "Always",
        "securityContext": {"privileged": true},
        "resources": {"requests": {"memory": "50Mi"}, "limits": {"memory": "50Mi"}},
        "volumeDevices": [{"name": VOLUME, "devicePath": DEVICE}],
    })
}

/// The volume: a block device that Kubernetes makes with the pod and removes with it. What the user added to it stays, for example a storage class.
pub(super) fn volume(present: Option<&Value>, size: &str) -> Value {
    let ours = json!({"name": VOLUME, "ephemeral": {"volumeClaimTemplate": {"spec": {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Block",
        "resources": {"requests": {"storage": size}},
    }}}});
    let mut volume = present.cloned().unwrap_or_default();
    lay_over(&mut volume, ours);
    volume
}

/// Sets every field of `ours`, and leaves the others.
fn lay_over(present: &mut Value, ours: Value) {
    match (present, ours) {
        (Value::Object(present), Value::Object(ours)) => {
            for (key, value) in ours {
                lay_over(present.entry(key).or_insert(Value::Null), value);
            }
        }
        (present, ours) => *present = ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_that_of_the_annotation_and_zero_is_none() {
        assert_eq!(size(None), Some("10Gi"));
        assert_eq!(size(Some("2Gi")), Some("2Gi"));
        for zero in ["0", "0Gi", "0.0"] {
            assert_eq!(size(Some(zero)), None, "{zero}");
        }
    }

    #[test]
    fn storage_class_of_the_user_stays() {
        let mut own = volume(None, "1Gi");
        own["ephemeral"]["volumeClaimTemplate"]["spec"]["storageClassName"] = json!("fast");
        let mut expected = own.clone();
        expected["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"] =
            json!("2Gi");
        assert_eq!(volume(Some(&own), "2Gi"), expected);
        let odd = json!({"name": VOLUME, "ephemeral": {"volumeClaimTemplate": {"spec": "text"}}});
        assert_eq!(volume(Some(&odd), "2Gi"), volume(None, "2Gi"));
    }
}
