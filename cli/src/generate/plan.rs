//! Inputs to plan: what every file will be, and which workloads there are. No file is written here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use contrast_images::Progress;
use contrast_measure::VcpuCount;
use contrast_policy::{ConfigObjects, INITDATA_ANNOTATION, Initdata};
use contrast_resources::{
    CustomTemplate, Document, ResourceError, Step, YamlFile, pod_template_path,
};
use serde_json::{Value, json};

use super::{
    GenerateError, Options, annotations,
    images::{self, Images},
    inject::{Place, containers},
    injection::{self, Surroundings},
    inputs::{InputFile, read_failed},
    platforms::{self, Platform},
    policies::{self, Identity, annotation, label},
    sealing,
    secure_volume::Claims,
    services::Services,
    vcpus, versions,
};

/// What will be.
pub(super) struct Plan {
    pub(super) files: Vec<InputFile>,
    pub(super) workloads: Vec<PlannedWorkload>,
    /// What the operator should know.
    pub(super) notices: Vec<String>,
}

pub(super) struct PlannedWorkload {
    pub(super) identity: Identity,
    pub(super) coordinator: bool,
    pub(super) secret_id: Option<String>,
    pub(super) initdata: Initdata,
    /// Names of the Services that lead to it.
    pub(super) service_names: Vec<String>,
    /// How many vCPUs its VMs have.
    pub(super) vcpus: VcpuCount,
    pub(super) injected: Vec<String>,
    /// Names of the sealed secrets that it gets.
    pub(super) sealed_secrets: Vec<String>,
    /// `None` when nobody named one.
    pub(super) platform: Option<Platform>,
}

impl PlannedWorkload {
    /// Id of its workload secret.
    pub(super) fn id(&self) -> String {
        let chosen = self.secret_id.clone();
        chosen.unwrap_or_else(|| self.identity.default_secret_id())
    }
}

/// Where a workload stands.
pub(super) struct Found {
    pub(super) file: usize,
    pub(super) document: Document,
    template_path: Vec<Step>,
    /// The pod template as the user wrote it.
    pub(super) template: Value,
    pub(super) identity: Identity,
    pub(super) coordinator: bool,
}

pub(super) fn make(
    options: &Options,
    mut files: Vec<InputFile>,
    progress: &dyn Progress,
) -> Result<Plan, GenerateError> {
    let cache = images::read_cache(options)?;
    let replacements = replacements(options)?;
    let config = config_objects(&files)?;
    let found = find(&options.pod_template_paths, &files)?;
    if found.is_empty() {
        return Err(GenerateError::NoWorkloads);
    }
    let coordinators: Vec<&Found> = found.iter().filter(|found| found.coordinator).collect();
    let [coordinator] = coordinators.as_slice() else {
        let names: Vec<String> = coordinators
            .iter()
            .map(|found| found.identity.shown())
            .collect();
        let found = match names.is_empty() {
            true => "none".to_owned(),
            false => format!("{}: {}", names.len(), names.join(", ")),
        };
        return Err(GenerateError::Coordinators { found });
    };
    let coordinator_namespace = coordinator.identity.namespace.clone();

    let claims = Claims::of(&files);
    let services = Services::of(&files)?;
    let surroundings = Surroundings {
        options,
        coordinator_namespace: &coordinator_namespace,
        replacements: &replacements,
        images: &cache,
        claims: &claims,
        registries: &sealing::registries(&options.manifest),
    };
    let mut seen = BTreeSet::new();
    let mut complete = Vec::new();
    let mut notices = Vec::new();
    for found in found {
        if !seen.insert(found.identity.default_secret_id()) {
            return Err(GenerateError::Duplicate {
                workload: found.identity.shown(),
            });
        }
        let Some(file) = files.get_mut(found.file) else {
            continue;
        };
        let injected = injection::inject(&surroundings, &found, file)?;
        notices.extend(injected.notices);
        replace_images(&found, &mut file.yaml, &replacements).map_err(|source| {
            GenerateError::Resource {
                path: file.path.clone(),
                source,
            }
        })?;
        let platform = set_runtime_class(options, &found, file)?;
        let template = current(&file.yaml, &found);
        complete.push((found, injected.containers, platform, template));
    }
    let templates = complete.iter().map(|(_, _, _, template)| template);
    let images = images::resolve(options, cache, templates, progress)?;
    notices.extend(images.notices.iter().cloned());
    let mut workloads = Vec::new();
    for (found, injected, platform, _) in complete {
        let Some(file) = files.get_mut(found.file) else {
            continue;
        };
        pin_images(options, &found, &mut file.yaml, &images, &mut notices).map_err(|source| {
            GenerateError::Resource {
                path: file.path.clone(),
                source,
            }
        })?;
        let vcpus = vcpus::set(&found, file, &mut notices)?;
        // The policy is for the pod as it stands now in the text.
        let template = current(&file.yaml, &found);
        let version = env!("CARGO_PKG_VERSION");
        if let Some(reason) = versions::mismatch(version, &template["spec"], found.coordinator) {
            return Err(GenerateError::Workload {
                workload: found.identity.shown(),
                reason,
            });
        }
        let initdata = policies::initdata(
            &found.identity,
            &found.document.object,
            &template,
            &images.cache,
            &config,
        )?;
        let mut place = place(&mut file.yaml, &found);
        place
            .set(
                &["metadata", "annotations", INITDATA_ANNOTATION],
                &json!(initdata.to_annotation()?),
            )
            .map_err(|source| GenerateError::Resource {
                path: file.path.clone(),
                source,
            })?;
        let secret_id = annotation(
            &found.document.object,
            &found.template,
            "workload-secret-id",
        );
        workloads.push(PlannedWorkload {
            secret_id: secret_id.map(str::to_owned),
            coordinator: found.coordinator,
            sealed_secrets: sealing::listed(&found),
            service_names: services.names(&found.identity.namespace, &found.template),
            identity: found.identity,
            initdata,
            vcpus,
            injected,
            platform,
        });
    }
    Ok(Plan {
        files,
        workloads,
        notices,
    })
}

/// Where a kind that Kubernetes or the user names has its pod template.
fn template_path(custom: &[CustomTemplate], object: &Value) -> Option<Vec<Step>> {
    let mut custom = custom.iter();
    pod_template_path(object).or_else(|| custom.find_map(|template| template.path(object)))
}

/// ConfigMaps and Secrets of all files: pods may refer to them.
pub(super) fn config_objects(files: &[InputFile]) -> Result<ConfigObjects, GenerateError> {
    let mut config = ConfigObjects::default();
    for file in files {
        let documents = file.yaml.documents();
        for document in documents.map_err(|source| GenerateError::Resource {
            path: file.path.clone(),
            source,
        })? {
            config.insert(&document.object);
        }
    }
    Ok(config)
}

pub(super) fn find(
    templates: &[CustomTemplate],
    files: &[InputFile],
) -> Result<Vec<Found>, GenerateError> {
    let mut all = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let documents = file.yaml.documents();
        let documents = documents.map_err(|source| GenerateError::Resource {
            path: file.path.clone(),
            source,
        })?;
        for document in documents {
            let Some(below) = template_path(templates, &document.object) else {
                continue;
            };
            let template = at(&document.object, &below).cloned().unwrap_or_default();
            let class = template["spec"]["runtimeClassName"]
                .as_str()
                .unwrap_or_default();
            if !platforms::is_confidential(class) {
                continue;
            }
            let identity = Identity::of(&document.object)?;
            let problems = annotations::problems(&document.object, &template);
            if !problems.is_empty() {
                let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
                return Err(GenerateError::Workload {
                    workload: identity.shown(),
                    reason: problems.join("; "),
                });
            }
            let coordinator = annotation(&document.object, &template, "pod-role")
                .or_else(|| label(&template, "pod-role"))
                .is_some();
            let template_path = document.path.iter().cloned().chain(below).collect();
            all.push(Found {
                file: number,
                document,
                template_path,
                template,
                identity,
                coordinator,
            });
        }
    }
    Ok(all)
}

fn replace_images(
    found: &Found,
    yaml: &mut YamlFile,
    replacements: &BTreeMap<String, String>,
) -> Result<(), ResourceError> {
    rewrite_images(found, yaml, |image| replacements.get(image).cloned())
}

/// Gives tags their digests. The policy is for these digests, whatever the tag means tomorrow.
fn pin_images(
    options: &Options,
    found: &Found,
    yaml: &mut YamlFile,
    images: &Images,
    notices: &mut Vec<String>,
) -> Result<(), ResourceError> {
    if options.require_digests {
        return Ok(());
    }
    rewrite_images(found, yaml, |image| {
        let (pinned, says) = images.pinned(image)?;
        notices.push(format!(
            "{}: pinned `{image}` to `{pinned}`, {says}",
            found.identity.shown()
        ));
        Some(pinned)
    })
}

/// Gives each container the image that `other` names instead of its own, if it names one.
fn rewrite_images(
    found: &Found,
    yaml: &mut YamlFile,
    mut other: impl FnMut(&str) -> Option<String>,
) -> Result<(), ResourceError> {
    let template = current(yaml, found);
    for (list, position, container) in containers(&template["spec"]) {
        let image = container["image"].as_str().unwrap_or_default();
        if let Some(other) = other(image) {
            let place = place(yaml, found);
            let mut path = place.path(&["spec", list]);
            path.extend([Step::Index(position), Step::key("image")]);
            place.file.set(place.document, &path, &json!(other))?;
        }
    }
    Ok(())
}

/// Writes the class of the pod's platform.
fn set_runtime_class(
    options: &Options,
    found: &Found,
    file: &mut InputFile,
) -> Result<Option<Platform>, GenerateError> {
    let spec = &found.template["spec"];
    let class = spec["runtimeClassName"].as_str().unwrap_or_default();
    let choice =
        platforms::choose(class, spec, options.reference_values.first()).map_err(|reason| {
            GenerateError::Workload {
                workload: found.identity.shown(),
                reason,
            }
        })?;
    if let Some(class) = choice.class {
        place(&mut file.yaml, found)
            .set(&["spec", "runtimeClassName"], &json!(class))
            .map_err(|source| GenerateError::Resource {
                path: file.path.clone(),
                source,
            })?;
    }
    Ok(choice.platform)
}

pub(super) fn place<'a>(yaml: &'a mut YamlFile, found: &'a Found) -> Place<'a> {
    Place {
        file: yaml,
        document: found.document.index,
        template: &found.template_path,
    }
}

/// The pod template as it is now.
pub(super) fn current(yaml: &YamlFile, found: &Found) -> Value {
    let template = yaml.get(found.document.index, &found.template_path);
    template.cloned().unwrap_or_default()
}

fn at<'a>(object: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| step.of(value))
}

fn replacements(options: &Options) -> Result<BTreeMap<String, String>, GenerateError> {
    let Some(path) = &options.image_replacements else {
        return Ok(BTreeMap::new());
    };
    let text = fs::read_to_string(path).map_err(|source| read_failed(path, source))?;
    let lines = text
        .lines()
        .enumerate()
        .map(|(number, line)| (number.saturating_add(1), line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| match line.split_once(" = ") {
            Some((image, replacement)) => {
                Ok((image.trim().to_owned(), replacement.trim().to_owned()))
            }
            None => Err(GenerateError::Replacement {
                path: path.clone(),
                line: number,
                found: line.to_owned(),
            }),
        })
        .collect()
}
