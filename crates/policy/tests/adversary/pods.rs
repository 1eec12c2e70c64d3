//! The pods of `tests/pods`, their images, ConfigMaps and Secrets.

use std::{collections::BTreeMap, fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use contrast_images::ImageCache;
use contrast_policy::{ConfigObjects, PodName, PodSource};
use contrast_resources::YamlFile;
use serde_json::Value;

/// A workload.
pub(crate) struct Pod {
    pub(crate) file: String,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) generated: bool,
    pub(crate) namespace: String,
    object: Value,
    others: Vec<Value>,
    images: Value,
}

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods")
}

/// All pods.
pub(crate) fn all() -> Vec<Pod> {
    let images = fs::read(directory().join("images.json")).expect("images");
    let images: Value = serde_json::from_slice(&images).expect("JSON");
    let mut files: Vec<_> = fs::read_dir(directory())
        .expect("pods")
        .map(|entry| entry.expect("entry").path())
        .collect();
    files.sort();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.iter().map(|path| read(path, &images)).collect()
}

fn read(path: &Path, images: &Value) -> Pod {
    let file = YamlFile::parse(fs::read_to_string(path).expect("text")).expect("YAML");
    let mut objects: Vec<Value> = file
        .documents()
        .expect("documents")
        .into_iter()
        .map(|document| document.object)
        .collect();
    let others = objects.split_off(1);
    let object = objects.remove(0);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let generated = metadata["name"].is_null();
    Pod {
        file: path
            .file_name()
            .expect("name")
            .to_string_lossy()
            .into_owned(),
        kind: text(&object["kind"]),
        name: text(&metadata[if generated { "generateName" } else { "name" }]),
        generated,
        namespace: metadata["namespace"]
            .as_str()
            .unwrap_or("somewhere")
            .to_owned(),
        object,
        others,
        images: images.clone(),
    }
}

impl Pod {
    pub(crate) fn template(&self) -> &Value {
        let spec = &self.object["spec"];
        match self.kind.as_str() {
            "Pod" => &self.object,
            "CronJob" => &spec["jobTemplate"]["spec"]["template"],
            _ => &spec["template"],
        }
    }

    pub(crate) fn spec(&self) -> &Value {
        &self.template()["spec"]
    }

    /// Whether the pod gives up the content of a volume.
    pub(crate) fn mutable(&self, volume: &str) -> bool {
        let annotations = &self.template()["metadata"]["annotations"];
        annotations["contrast.edgeless.systems/mutable-volumes"] == volume
    }

    pub(crate) fn is_privileged(&self, name: &str) -> bool {
        let lists = ["initContainers", "containers"].map(|list| self.spec()[list].as_array());
        let mut containers = lists.into_iter().flatten().flatten();
        containers.any(|container| {
            container["name"] == name && container["securityContext"]["privileged"] == true
        })
    }

    pub(crate) fn image(&self, container: &Value) -> &Value {
        let image = container["image"].as_str().unwrap_or_default();
        let digest = image.split_once('@').map_or("", |(_, digest)| digest);
        &self.images["Images"][digest]
    }

    /// Values of a ConfigMap or Secret.
    pub(crate) fn config(&self, kind: &str, name: &str) -> BTreeMap<String, Vec<u8>> {
        let object = self
            .others
            .iter()
            .find(|other| other["kind"] == kind && other["metadata"]["name"] == name);
        let data = object
            .and_then(|object| object["data"].as_object())
            .cloned()
            .unwrap_or_default();
        let value = |value: &Value| match kind {
            "Secret" => STANDARD
                .decode(value.as_str().unwrap_or_default())
                .expect("base64"),
            _ => value.as_str().unwrap_or_default().as_bytes().to_vec(),
        };
        data.iter()
            .map(|(key, text)| (key.clone(), value(text)))
            .collect()
    }

    /// Files of a volume.
    pub(crate) fn files(&self, volume: &Value) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let projected = volume["projected"]["sources"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for source in std::iter::once(volume).chain(&projected) {
            for (field, kind) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
                let Some(reference) = source.get(field) else {
                    continue;
                };
                let names = [&reference["secretName"], &reference["name"]];
                let name = names
                    .into_iter()
                    .find_map(Value::as_str)
                    .unwrap_or_default();
                let values = self.config(kind, name);
                match reference["items"].as_array() {
                    None => files.extend(values),
                    Some(items) => {
                        let text = |item: &Value, key: &str| {
                            item[key].as_str().unwrap_or_default().to_owned()
                        };
                        files.extend(
                            items.iter().map(|item| {
                                (text(item, "path"), values[&text(item, "key")].clone())
                            }),
                        );
                    }
                }
            }
            if let Some(path) = source["serviceAccountToken"]["path"].as_str() {
                files.insert(path.to_owned(), b"token".to_vec());
            }
            for item in source["downwardAPI"]["items"]
                .as_array()
                .into_iter()
                .flatten()
            {
                files.insert(
                    item["path"].as_str().unwrap_or_default().to_owned(),
                    b"app=x".to_vec(),
                );
            }
        }
        files
    }

    /// The policy that is generated for it.
    pub(crate) fn rego(&self) -> String {
        let scratch = tempfile::tempdir().expect("directory");
        let cache = scratch.path().join("images.json");
        fs::write(&cache, self.images.to_string()).expect("writes");
        let mut config = ConfigObjects::default();
        for other in &self.others {
            config.insert(other);
        }
        let source = PodSource {
            kind: &self.kind,
            name: match self.generated {
                true => PodName::Generated(&self.name),
                false => PodName::Fixed(&self.name),
            },
            namespace: self.object["metadata"]["namespace"].as_str(),
            template: self.template(),
            claims: self.object["spec"]["volumeClaimTemplates"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default(),
            images: &ImageCache::read(&cache).expect("cache"),
            config: &config,
        };
        let policy = source
            .policy()
            .unwrap_or_else(|error| panic!("{}: {error}", self.file));
        policy.to_rego().expect("rego")
    }
}
