//! What the kubelet reads of the generated YAML.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use contrast_policy::{INITDATA_ANNOTATION, Initdata};
use contrast_resources::{Step, YamlFile, pod_template_path};
use serde_json::Value;

/// Every object in the YAML files of `directory`.
pub(super) fn documents(directory: &Path) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let file = YamlFile::parse(text).with_context(|| path.display().to_string())?;
        objects.extend(
            file.documents()?
                .into_iter()
                .map(|document| document.object),
        );
    }
    Ok(objects)
}

/// The pod template of a workload.
pub(super) fn pod_template(object: &Value) -> Option<&Value> {
    pod_template_path(object)?
        .iter()
        .try_fold(object, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Index(index) => value.get(index),
        })
}

/// The initdata document in a pod template's annotation, exact bytes.
pub(super) fn initdata(template: &Value) -> Result<Option<Vec<u8>>> {
    let annotation = template["metadata"]["annotations"][INITDATA_ANNOTATION].as_str();
    let initdata = annotation.map(Initdata::from_annotation).transpose()?;
    Ok(initdata.map(|initdata| initdata.bytes().to_vec()))
}
