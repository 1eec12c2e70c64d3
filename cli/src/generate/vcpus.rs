//! How many vCPUs a workload's VMs have: launch measurements depend on it.

use contrast_measure::{PodVcpus, VcpuCount};
use serde_json::json;

use super::{
    GenerateError,
    inputs::InputFile,
    plan::{Found, current, place},
};

/// Kata's setting `default_vcpus` for one pod. Kata adds the CPU limits that the kubelet passes on to it.
const ANNOTATION: &str = "io.katacontainers.config.hypervisor.default_vcpus";

/// Computes the number from the pod as it stands in the text, and sets the annotation where Kata alone would choose a smaller one.
///
/// Without need there is no annotation, since Kata refuses those that its configuration does not allow. One that is there would
/// change the number, so it gets the right value.
pub(super) fn set(
    found: &Found,
    file: &mut InputFile,
    notices: &mut Vec<String>,
) -> Result<VcpuCount, GenerateError> {
    let template = current(&file.yaml, found);
    let workload = found.identity.shown();
    let pod = PodVcpus::of(&template["spec"]).map_err(|source| GenerateError::Vcpus {
        workload: workload.clone(),
        source,
    })?;
    let present = &template["metadata"]["annotations"][ANNOTATION];
    let value = pod.default_vcpus().to_string();
    if value != "1" {
        notices.push(format!(
            "{workload}: needs {} vCPUs, of which Kata knows {}, so it has the annotation `{ANNOTATION}: \"{value}\"`; Kata's \
             configuration on the nodes must allow it (`enable_annotations`, `default_vcpus`)",
            pod.vcpus, pod.by_kata
        ));
    }
    if pod.by_kata > u64::from(pod.vcpus.get()) {
        notices.push(format!(
            "{workload}: its VM has {} vCPUs where {} would do, since sidecars run beside later init containers",
            pod.launched, pod.vcpus
        ));
    }
    let is_right = match present.as_str() {
        Some(present) => present == value,
        None => present.is_null() && value == "1",
    };
    if !is_right {
        if !present.is_null() {
            notices.push(format!(
                "{workload}: annotation `{ANNOTATION}` was {present}, is \"{value}\": it follows from the CPU resources"
            ));
        }
        let path = ["metadata", "annotations", ANNOTATION];
        place(&mut file.yaml, found)
            .set(&path, &json!(value))
            .map_err(|source| GenerateError::Resource {
                path: file.path.clone(),
                source,
            })?;
    }
    Ok(pod.launched)
}
