//! What is added to a pod: the Initializer, the service mesh, and the volume that they share with the application.

pub(crate) use contrast_policy::INITIALIZER;
use contrast_policy::{SERVICE_MESH, SERVICE_MESH_PROGRAM};
use contrast_resources::{ResourceError, Step, YamlFile};
use serde::Serialize;
use serde_json::{Value, json};

use super::image_store;

/// Images of the injected containers; replaced with `--image-replacements` by those of one's own registry. A release is built with the
/// references that `cargo xtask images` printed; any other build has digests that no registry serves.
pub(super) const INITIALIZER_IMAGE: &str = match option_env!("CONTRAST_INITIALIZER_IMAGE") {
    Some(released) => released,
    None => concat!(
        "registry.example.com/contrast/initializer:",
        env!("CARGO_PKG_VERSION"),
        "@sha256:9b1c7f0a4c3e5d2f6a8b0c1d2e3f405162738495a6b7c8d9eaf0b1c2d3e4f506"
    ),
};
pub(super) const SERVICE_MESH_IMAGE: &str = match option_env!("CONTRAST_SERVICE_MESH_IMAGE") {
    Some(released) => released,
    None => concat!(
        "registry.example.com/contrast/service-mesh:",
        env!("CARGO_PKG_VERSION"),
        "@sha256:8a0b6e9f3b2d4c1e597a9fb0c1d2e3f4051627384a5b6c7d8e9fa0b1c2d3e4f5"
    ),
};

/// An image that `generate` injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Injected {
    /// Name of the container.
    pub name: &'static str,
    /// The image's reference, with tag and digest.
    pub reference: &'static str,
}

/// The images that `generate` injects unless they are replaced.
pub fn injected() -> Vec<Injected> {
    let image = |name, reference| Injected { name, reference };
    vec![
        image(INITIALIZER, INITIALIZER_IMAGE),
        image(SERVICE_MESH, SERVICE_MESH_IMAGE),
    ]
}

pub(crate) const SECRETS_VOLUME: &str = "contrast-secrets";
pub(super) const SECRETS_PATH: &str = "/contrast";
/// Here the guest looks for credentials, by the volume's name.
pub(super) const PULL_CREDENTIALS_VOLUME: &str = "contrast-pull-credentials";
const PULL_CREDENTIALS_PATH: &str = "/contrast-pull-credentials";

/// The volume for credentials, if the pod has it.
pub(super) fn pull_credentials_volume(spec: &Value) -> Option<&str> {
    let mut volumes = items(spec, "volumes").iter();
    volumes.find_map(|volume| {
        volume["name"]
            .as_str()
            .filter(|name| *name == PULL_CREDENTIALS_VOLUME)
    })
}

/// Settings of the service mesh, from the pod's annotations.
#[derive(Default)]
pub(super) struct Mesh<'a> {
    pub(super) ingress: Option<&'a str>,
    pub(super) egress: Option<&'a str>,
    pub(super) admin_port: Option<&'a str>,
    pub(super) metrics_port: Option<&'a str>,
}

impl Mesh<'_> {
    /// Whether the pod has any of the settings.
    pub(super) fn is_wanted(&self) -> bool {
        let all = [
            self.ingress,
            self.egress,
            self.admin_port,
            self.metrics_port,
        ];
        all.iter().any(Option::is_some)
    }
}

/// What the pod's annotations say of what its injected containers tell.
#[derive(Clone, Copy, Default)]
pub(super) struct Telemetry<'a> {
    pub(super) log_exposure: Option<&'a str>,
    pub(super) traces_endpoint: Option<&'a str>,
}

impl Telemetry<'_> {
    pub(super) fn of_initializer(self, container: &mut Value) {
        self.of_service_mesh(container);
        if let Some(endpoint) = self.traces_endpoint {
            push(
                &mut container["env"],
                json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint}),
            );
        }
    }

    pub(super) fn of_service_mesh(self, container: &mut Value) {
        if let Some(exposure) = self.log_exposure {
            push(
                &mut container["env"],
                json!({"name": "CONTRAST_LOG_EXPOSURE", "value": exposure}),
            );
        }
    }
}

fn push(list: &mut Value, item: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

/// Who lets in connections, which the guest denies from its boot on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opener {
    /// The service mesh, when Envoy is ready.
    ServiceMesh,
    /// The Initializer, because there is no service mesh.
    Initializer,
}

/// A pod template inside a file.
pub(super) struct Place<'a> {
    pub(super) file: &'a mut YamlFile,
    pub(super) document: usize,
    /// Path of the pod template in the document.
    pub(super) template: &'a [Step],
}

impl Place<'_> {
    pub(super) fn path(&self, keys: &[&str]) -> Vec<Step> {
        self.template
            .iter()
            .cloned()
            .chain(keys.iter().map(|key| Step::key(key)))
            .collect()
    }

    pub(super) fn set(&mut self, keys: &[&str], value: &Value) -> Result<(), ResourceError> {
        let path = self.path(keys);
        self.file.set(self.document, &path, value)
    }

    pub(super) fn remove(&mut self, keys: &[&str]) -> Result<(), ResourceError> {
        let path = self.path(keys);
        self.file.remove(self.document, &path)
    }

    /// Puts an init container at `at`, or in the place of the one that has its name already.
    pub(super) fn put_init_container(
        &mut self,
        at: usize,
        container: &Value,
    ) -> Result<(), ResourceError> {
        self.put(&["spec", "initContainers"], at, container)
    }

    /// Puts a volume behind the others, or in the place of the one that has its name already.
    pub(super) fn put_volume(&mut self, volume: &Value) -> Result<(), ResourceError> {
        self.put(&["spec", "volumes"], usize::MAX, volume)
    }

    fn put(&mut self, list: &[&str], at: usize, item: &Value) -> Result<(), ResourceError> {
        let path = self.path(list);
        let present = self
            .file
            .get(self.document, &path)
            .and_then(Value::as_array);
        let mut present = present.into_iter().flatten();
        match present.position(|other| other["name"] == item["name"]) {
            Some(position) => self.file.replace(self.document, &path, position, item),
            None => self.file.insert(self.document, &path, at, item),
        }
    }

    /// Mounts the memory volume into every container that has nothing at its path. `spec` is that of the pod as it stands in the file.
    pub(super) fn mount_secrets(&mut self, spec: &Value) -> Result<(), ResourceError> {
        for (list, position, container) in containers(spec) {
            let mounts = items(container, "volumeMounts");
            let is_taken = mounts
                .iter()
                .any(|mount| is_secrets_path(&mount["mountPath"]));
            // It is ours, and has no use for them.
            if !is_taken && container["name"] != image_store::HOLDER {
                let mut path = self.path(&["spec", list]);
                path.extend([Step::Index(position), Step::key("volumeMounts")]);
                self.file
                    .insert(self.document, &path, usize::MAX, &secrets_mount())?;
            }
        }
        Ok(())
    }
}

/// Whether a container of this name is made by `generate`.
pub(super) fn is_injected(name: &str) -> bool {
    [INITIALIZER, SERVICE_MESH, image_store::HOLDER].contains(&name)
}

/// The user that all of the pod's containers run as by what their YAML says, unless that is root.
pub(super) fn application_user(spec: &Value) -> Option<u64> {
    let of = |object: &Value| object["securityContext"]["runAsUser"].as_u64();
    let pod = of(spec);
    let mut users = items(spec, "containers")
        .iter()
        .map(|container| of(container).or(pod));
    let first = users.next()??;
    users
        .all(|user| user == Some(first))
        .then_some(first)
        .filter(|user| *user != 0)
}

/// The Initializer as a native sidecar: it starts first, and stays to renew. `application_user` gets key and secret, `pod_security` is the `securityContext` of its pod.
pub(super) fn initializer(
    image: &str,
    coordinator_namespace: &str,
    opener: Opener,
    application_user: Option<u64>,
    pod_security: &Value,
) -> Value {
    let mut env = vec![
        json!({"name": "COORDINATOR_HOST", "value": format!("coordinator-ready.{coordinator_namespace}")}),
    ];
    if let Some(user) = application_user {
        env.push(json!({"name": "CONTRAST_FILES_OWNER", "value": user.to_string()}));
    }
    // Only root may give files to Envoy and the application, and change what the kernel lets in.
    let mut security = root(pod_security);
    if opener == Opener::Initializer {
        env.push(json!({"name": "CONTRAST_SERVICE_MESH_DISABLED", "value": "true"}));
        security["capabilities"] = json!({"add": ["NET_ADMIN"]});
    }
    json!({
        "name": INITIALIZER,
        "image": image,
        "command": ["/bin/initializer"],
        "restartPolicy": "Always",
        "env": env,
        "startupProbe": {
            "exec": {"command": ["/bin/initializer", "--check-ready"]},
            "periodSeconds": 1,
            "failureThreshold": 300,
        },
        "resources": {"requests": {"memory": "50Mi"}, "limits": {"memory": "50Mi"}},
        "securityContext": security,
        "volumeMounts": [secrets_mount()],
    })
}

/// Gives the Initializer the directory for the guest's credentials of registries.
pub(super) fn mount_pull_credentials(initializer: &mut Value) {
    push(
        &mut initializer["env"],
        json!({"name": "CONTRAST_PULL_CREDENTIALS_DIR", "value": PULL_CREDENTIALS_PATH}),
    );
    push(
        &mut initializer["volumeMounts"],
        json!({"name": PULL_CREDENTIALS_VOLUME, "mountPath": PULL_CREDENTIALS_PATH}),
    );
}

/// What makes a container run as root, whatever the pod says.
pub(super) fn root(pod_security: &Value) -> Value {
    let mut security = json!({"runAsUser": 0, "runAsGroup": 0});
    if pod_security["runAsNonRoot"] == true {
        security["runAsNonRoot"] = json!(false);
    }
    security
}

/// The service mesh as a native sidecar. `namespace` is that of the pod, `pod_security` its `securityContext`.
///
/// It redirects connections, which takes root and NET_ADMIN; Envoy itself runs as an ordinary user.
pub(super) fn service_mesh(
    image: &str,
    mesh: &Mesh<'_>,
    namespace: &str,
    pod_security: &Value,
) -> Value {
    let mut env = vec![json!({"name": "CONTRAST_NAMESPACE", "value": namespace})];
    let mut security = root(pod_security);
    security["capabilities"] = json!({"add": ["NET_ADMIN"]});
    let settings = [
        ("CONTRAST_INGRESS_PROXY_CONFIG", mesh.ingress),
        ("CONTRAST_EGRESS_PROXY_CONFIG", mesh.egress),
        ("CONTRAST_ADMIN_PORT", mesh.admin_port),
        ("CONTRAST_METRICS_PORT", mesh.metrics_port),
    ];
    for (name, value) in settings {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            env.push(json!({"name": name, "value": value}));
        }
    }
    json!({
        "name": SERVICE_MESH,
        "image": image,
        "command": [SERVICE_MESH_PROGRAM],
        "restartPolicy": "Always",
        "env": env,
        "startupProbe": {
            "exec": {"command": [SERVICE_MESH_PROGRAM, "--check-ready"]},
            "periodSeconds": 1,
            "failureThreshold": 300,
        },
        "resources": {"requests": {"memory": "100Mi"}, "limits": {"memory": "100Mi"}},
        "securityContext": security,
        "volumeMounts": [secrets_mount()],
    })
}

fn secrets_mount() -> Value {
    json!({"name": SECRETS_VOLUME, "mountPath": SECRETS_PATH})
}

/// All containers of a pod, each with its list and its place in it.
pub(crate) fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, usize, &Value)> {
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(move |list| {
            let containers = items(spec, list).iter().enumerate();
            containers.map(move |(position, container)| (list, position, container))
        })
}

pub(crate) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Kubernetes takes paths that end with `/` for the same.
pub(super) fn is_secrets_path(path: &Value) -> bool {
    let path = path.as_str().map(|path| path.trim_end_matches('/'));
    path == Some(SECRETS_PATH)
}
