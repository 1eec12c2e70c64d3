//! Which pods get what: decides from options and annotations, puts it in, and tells what the user wrote otherwise.

use contrast_images::ImageCache;
use contrast_policy::SERVICE_MESH;
use contrast_resources::{Step, show};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

use super::{
    GenerateError, Options, host_secrets, image_store,
    inject::{self, Mesh, Opener, Place, SECRETS_VOLUME, Telemetry, containers, items},
    inputs::InputFile,
    overwritten,
    plan::{Found, place},
    policies::annotation,
    sealing::{self, SEALED_SECRETS},
    secure_volume::{Claims, SecureVolume},
};

/// What holds for all pods.
pub(super) struct Surroundings<'a> {
    pub(super) options: &'a Options,
    pub(super) coordinator_namespace: &'a str,
    pub(super) replacements: &'a BTreeMap<String, String>,
    pub(super) images: &'a ImageCache,
    pub(super) claims: &'a Claims,
    /// Names of the sealed credentials of registries in the manifest.
    pub(super) registries: &'a BTreeSet<String>,
}

/// What was done to a pod.
#[derive(Debug, Default)]
pub(super) struct Injected {
    /// Containers.
    pub(super) containers: Vec<String>,
    /// What the operator should know.
    pub(super) notices: Vec<String>,
}

struct Injection<'a> {
    surroundings: &'a Surroundings<'a>,
    found: &'a Found,
    file: &'a mut InputFile,
    injected: Injected,
}

/// Injects what the pod is to have.
///
/// # Errors
/// When annotations contradict each other or the pod, or the YAML cannot be changed.
pub(super) fn inject(
    surroundings: &Surroundings<'_>,
    found: &Found,
    file: &mut InputFile,
) -> Result<Injected, GenerateError> {
    let mut injection = Injection {
        surroundings,
        found,
        file,
        injected: Injected::default(),
    };
    match found.coordinator {
        true => injection.nothing_for_the_coordinator()?,
        false => injection.initializer_and_mesh()?,
    }
    injection.image_store()?;
    Ok(injection.injected)
}

impl<'a> Injection<'a> {
    fn value(&self, name: &str) -> Option<&'a str> {
        annotation(&self.found.document.object, &self.found.template, name)
    }

    /// The pod as the user wrote it.
    fn spec(&self) -> &'a Value {
        &self.found.template["spec"]
    }

    fn refuse(&self, reason: impl Into<String>) -> GenerateError {
        GenerateError::Workload {
            workload: self.found.identity.shown(),
            reason: reason.into(),
        }
    }

    fn notice(&mut self, text: &str) {
        let notice = format!(
            "{}: {}: {text}",
            self.file.path.display(),
            self.found.identity.shown()
        );
        self.injected.notices.push(notice);
    }

    /// Changes the file.
    fn change(
        &mut self,
        change: impl FnOnce(&mut Place<'_>) -> Result<(), contrast_resources::ResourceError>,
    ) -> Result<(), GenerateError> {
        let changed = change(&mut place(&mut self.file.yaml, self.found));
        changed.map_err(|source| GenerateError::Resource {
            path: self.file.path.clone(),
            source,
        })
    }

    fn nothing_for_the_coordinator(&self) -> Result<(), GenerateError> {
        for name in ["secure-pv", SEALED_SECRETS] {
            if self.value(name).is_some() {
                return Err(self.refuse(format!(
                    "the annotation {name} needs the Initializer, and the Coordinator has none; remove it"
                )));
            }
        }
        for (name, variable) in [
            ("log-exposure", "CONTRAST_LOG_EXPOSURE"),
            ("traces-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ] {
            if self.value(name).is_some() {
                return Err(self.refuse(format!(
                    "the annotation {name} is for containers that are injected, and the Coordinator has none; set {variable} in the `env` of its container"
                )));
            }
        }
        Ok(())
    }

    fn initializer_and_mesh(&mut self) -> Result<(), GenerateError> {
        let options = self.surroundings.options;
        let secure = self.secure_volume()?;
        let mesh = Mesh {
            ingress: self.value("servicemesh-ingress"),
            egress: self.value("servicemesh-egress"),
            admin_port: self.value("servicemesh-admin-interface-port"),
            metrics_port: self.value("servicemesh-metrics-port"),
        };
        let wants_mesh = mesh.is_wanted() && !options.skip_service_mesh;
        let skips = self.value("skip-initializer") == Some("true");
        let sealed = sealing::listed(self.found);
        let telemetry = Telemetry {
            log_exposure: self.value("log-exposure"),
            traces_endpoint: self.value("traces-endpoint"),
        };
        let needs = [
            ("secure-pv", secure.is_some()),
            (SEALED_SECRETS, !sealed.is_empty()),
            ("traces-endpoint", telemetry.traces_endpoint.is_some()),
        ];
        if let Some((name, _)) = needs.iter().find(|(_, wanted)| *wanted && skips) {
            return Err(self.refuse(format!(
                "the annotation {name} needs the Initializer, and skip-initializer leaves it out; remove one of them"
            )));
        }
        let pulls = sealed
            .iter()
            .any(|name| self.surroundings.registries.contains(name));
        for notice in host_secrets::notices(self.spec()) {
            self.notice(&notice);
        }
        let spec = self.spec();
        let wants_initializer = !skips && !options.skip_initializer;
        if wants_initializer {
            let namespace = self.surroundings.coordinator_namespace;
            // A sidecar that the user keeps opens the pod as ours does: not before Envoy is ready.
            let opener = match wants_mesh || has_sidecar(spec) {
                true => Opener::ServiceMesh,
                false => Opener::Initializer,
            };
            let mut container = inject::initializer(
                inject::INITIALIZER_IMAGE,
                namespace,
                opener,
                inject::application_user(spec),
                &spec["securityContext"],
            );
            telemetry.of_initializer(&mut container);
            if let Some(secure) = &secure {
                secure.extend(&mut container, &spec["securityContext"]);
                if let Some(volume) = secure.missing_volume(spec) {
                    self.change(|place| place.put_volume(&volume))?;
                }
            }
            if pulls {
                self.pull_credentials(&mut container)?;
            } else if let Some(volume) = inject::pull_credentials_volume(spec) {
                self.notice(&format!(
                    "the pod lists no credentials of a registry, and the volume `{volume}` is still there; remove it"
                ));
            }
            self.put_init_container(0, &container)?;
        }
        match &secure {
            Some(secure) if wants_initializer => {
                for advice in secure.advice(spec) {
                    self.notice(&advice);
                }
            }
            Some(_) => self.notice("secure-pv has no effect with `--skip-initializer`"),
            None => {}
        }
        if telemetry.traces_endpoint.is_some() && !wants_initializer {
            self.notice("traces-endpoint has no effect with `--skip-initializer`");
        }
        if telemetry.log_exposure.is_some() && !(wants_initializer && wants_mesh) {
            let kept = |name, skipped| skipped && has_init_container(spec, name);
            if kept(inject::INITIALIZER, !wants_initializer) || kept(SERVICE_MESH, !wants_mesh) {
                self.notice("log-exposure has no effect on containers that `--skip-initializer` and `--skip-service-mesh` keep as they are");
            } else if !wants_initializer && !wants_mesh {
                self.notice("log-exposure has no effect, because nothing is injected");
            }
        }
        if wants_mesh {
            let namespace = &self.found.identity.namespace;
            let mut container = inject::service_mesh(
                inject::SERVICE_MESH_IMAGE,
                &mesh,
                namespace,
                &spec["securityContext"],
            );
            telemetry.of_service_mesh(&mut container);
            // Before the pod's own init containers, which would otherwise speak around the mesh; behind the Initializer, for whose certificate it waits.
            let initializer = items(spec, "initContainers")
                .iter()
                .position(|other| other["name"] == inject::INITIALIZER);
            let at = match wants_initializer {
                true => initializer.unwrap_or(0).saturating_add(1),
                false => usize::MAX,
            };
            self.put_init_container(at, &container)?;
        }
        if !wants_mesh && !self.surroundings.options.skip_service_mesh {
            self.refuse_unwanted_mesh(spec)?;
        }
        match self.injected.containers.is_empty() {
            true => Ok(()),
            false => self.secrets_volume(),
        }
    }

    /// A sidecar of an earlier run, whose annotations are gone, would go on with the settings of then.
    fn refuse_unwanted_mesh(&self, spec: &Value) -> Result<(), GenerateError> {
        match has_sidecar(spec) {
            true => Err(self.refuse(format!(
                "no annotation asks for the service mesh, and the init container `{}` is still there; remove it, write the annotation again, or keep it as it is with \
                 `--skip-service-mesh`",
                SERVICE_MESH
            ))),
            false => Ok(()),
        }
    }

    fn secure_volume(&self) -> Result<Option<SecureVolume<'a>>, GenerateError> {
        let templates = items(&self.found.document.object["spec"], "volumeClaimTemplates");
        let namespace = self.found.identity.written_namespace.as_deref();
        let claims = self.surroundings.claims;
        let value = |name: &str| self.value(name);
        SecureVolume::of(value, self.spec(), templates, claims, namespace)
            .map_err(|reason| self.refuse(reason))
    }

    /// A memory volume that only the Initializer mounts, and the guest reads.
    fn pull_credentials(&mut self, initializer: &mut Value) -> Result<(), GenerateError> {
        let volumes = items(self.spec(), "volumes");
        let at = volumes
            .iter()
            .position(|volume| volume["name"] == inject::PULL_CREDENTIALS_VOLUME);
        let present = at.and_then(|at| volumes.get(at));
        let name = inject::PULL_CREDENTIALS_VOLUME;
        if present.is_some_and(|volume| volume.get("emptyDir").is_none()) {
            return Err(self.refuse(format!(
                "the volume `{name}` must be an emptyDir, because the Initializer writes the guest's credentials into it; rename yours"
            )));
        }
        let mounted = containers(self.spec())
            .filter(|(_, _, container)| container["name"] != inject::INITIALIZER)
            .find(|(_, _, container)| {
                let mut mounts = items(container, "volumeMounts").iter();
                mounts.any(|mount| mount["name"] == name)
            });
        if let Some((_, _, container)) = mounted {
            return Err(self.refuse(format!(
                "container {} mounts `{name}`, whose credentials are for the guest alone; remove the mount",
                container["name"]
            )));
        }
        let volume = json!({"name": name, "emptyDir": {"medium": "Memory"}});
        self.overwritten(&["spec", "volumes"], at, name, present, &volume);
        self.change(|place| place.put_volume(&volume))?;
        inject::mount_pull_credentials(initializer);
        Ok(())
    }

    /// The memory volume of certificate and secret.
    fn secrets_volume(&mut self) -> Result<(), GenerateError> {
        let volumes = items(self.spec(), "volumes");
        let at = volumes
            .iter()
            .position(|volume| volume["name"] == SECRETS_VOLUME);
        let present = at.and_then(|at| volumes.get(at));
        let mut volume = present
            .cloned()
            .unwrap_or_else(|| json!({"name": SECRETS_VOLUME}));
        if present.is_some_and(|volume| volume.get("emptyDir").is_none()) {
            return Err(self.refuse(format!(
                "the volume `{SECRETS_VOLUME}` must be an emptyDir, because the Initializer writes the certificate into it; rename yours"
            )));
        }
        // An emptyDir without fields may be written as nothing at all.
        if !volume["emptyDir"].is_object() {
            volume["emptyDir"] = json!({});
        }
        volume["emptyDir"]["medium"] = json!("Memory");
        self.overwritten(&["spec", "volumes"], at, SECRETS_VOLUME, present, &volume);
        self.change(|place| place.put_volume(&volume))?;
        for (_, _, container) in containers(self.spec()) {
            let name = container["name"].as_str().unwrap_or_default();
            let mounts = items(container, "volumeMounts");
            let other = mounts.iter().find(|mount| {
                inject::is_secrets_path(&mount["mountPath"]) && mount["name"] != SECRETS_VOLUME
            });
            if let (Some(other), false) = (other, inject::is_injected(name)) {
                self.notice(&format!(
                    "container `{name}` has the volume {} at {}, so it does not see certificate and secret",
                    other["name"],
                    inject::SECRETS_PATH
                ));
            }
        }
        let spec = self.current()["spec"].clone();
        self.change(|place| place.mount_secrets(&spec))
    }

    fn image_store(&mut self) -> Result<(), GenerateError> {
        let annotation = self.value("image-store-size");
        if !self.surroundings.options.inject_image_store {
            if annotation.is_some() {
                self.notice("image-store-size has no effect without `--inject-image-store`");
            }
            return Ok(());
        }
        let volumes = items(self.spec(), "volumes");
        let at = volumes
            .iter()
            .position(|volume| volume["name"] == image_store::VOLUME);
        let present = at.and_then(|at| volumes.get(at));
        let Some(size) = image_store::size(annotation) else {
            if present.is_some() {
                self.notice(&format!(
                    "image-store-size is 0, and the volume `{}` is still there; remove it and the container `{}`",
                    image_store::VOLUME,
                    image_store::HOLDER
                ));
            }
            return Ok(());
        };
        if present.is_some_and(|volume| volume.get("ephemeral").is_none()) {
            return Err(self.refuse(format!(
                "the volume `{}` must be ephemeral, because the guest's images come onto it; rename yours",
                image_store::VOLUME
            )));
        }
        let volume = image_store::volume(present, size);
        self.overwritten(
            &["spec", "volumes"],
            at,
            image_store::VOLUME,
            present,
            &volume,
        );
        self.change(|place| place.put_volume(&volume))?;
        self.put_init_container(0, &image_store::holder(inject::INITIALIZER_IMAGE))
    }

    /// Puts a container in, or in the place of the one that has its name already.
    fn put_init_container(&mut self, at: usize, container: &Value) -> Result<(), GenerateError> {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        let spec = self.spec();
        if items(spec, "containers")
            .iter()
            .any(|other| other["name"] == name.as_str())
        {
            return Err(self.refuse(format!(
                "the container `{name}` of `containers` has the name of an init container that is injected; rename it"
            )));
        }
        let list = items(spec, "initContainers");
        let position = list.iter().position(|other| other["name"] == name.as_str());
        let present = position.and_then(|position| list.get(position));
        let written = self.with_final_image(container, present);
        self.overwritten(
            &["spec", "initContainers"],
            position,
            &name,
            present,
            &written,
        );
        self.change(|place| place.put_init_container(at, container))?;
        self.injected.containers.push(name);
        Ok(())
    }

    /// The container with the image that it will have in the end. A digest behind the present image's tag is the one to which the tag is pinned.
    fn with_final_image(&self, container: &Value, present: Option<&Value>) -> Value {
        let mut container = container.clone();
        let image = container["image"].as_str().unwrap_or_default();
        let image = self
            .surroundings
            .replacements
            .get(image)
            .map_or(image, String::as_str);
        let pinned = self.surroundings.images.pinned(image);
        let image = pinned.unwrap_or_else(|| image.to_owned());
        let is_pinned = |present: &&str| {
            let digest = present.strip_prefix(image.as_str());
            digest.is_some_and(|digest| digest.starts_with("@sha256:"))
        };
        let present = present.and_then(|present| present["image"].as_str());
        let image = present
            .filter(is_pinned)
            .map_or_else(|| image.clone(), str::to_owned);
        container["image"] = json!(image);
        container
    }

    /// Tells each field that the user wrote otherwise.
    fn overwritten(
        &mut self,
        list: &[&str],
        position: Option<usize>,
        name: &str,
        present: Option<&Value>,
        written: &Value,
    ) {
        let (Some(position), Some(present)) = (position, present) else {
            return;
        };
        let mut path = place(&mut self.file.yaml, self.found).path(list);
        path.push(Step::Index(position));
        for field in overwritten::fields(&show(&path), present, written) {
            self.notice(&format!("{} (`{name}` is generated)", field.text()));
        }
    }

    /// The pod template as it is now.
    fn current(&self) -> Value {
        super::plan::current(&self.file.yaml, self.found)
    }
}

fn has_sidecar(spec: &Value) -> bool {
    has_init_container(spec, SERVICE_MESH)
}

fn has_init_container(spec: &Value, name: &str) -> bool {
    let mut containers = items(spec, "initContainers").iter();
    containers.any(|container| container["name"] == name)
}
