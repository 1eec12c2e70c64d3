//! Checks of a whole deployment, before anything is generated or deployed.
//!
//! [`check`] is a function from parsed YAML to findings: it reads no file and prints nothing. Each finding has one of the stable
//! codes of [`rules`]. The modules below are the groups of checks. Values of Secrets never get into a finding.

mod admission;
mod annotations;
mod host;
mod images;
mod mesh;
mod model;
mod peers;
pub mod report;
pub mod rules;
mod secrets;
mod services;
mod workloads;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use contrast_images::ImageCache;
use contrast_resources::{CustomTemplate, Positions, ResourceError, Step, YamlFile};

use model::{Container, Pod, Resource};
pub use report::Finding;
use rules::{Rule, Severity};

use crate::{diagnostic::Diagnose, exit::Exit};

/// A parsed file.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// As it is to be named in findings.
    pub path: &'a Path,
    /// What it says.
    pub yaml: &'a YamlFile,
}

impl Source<'_> {
    fn unusable(&self, source: ResourceError) -> LintError {
        LintError {
            path: self.path.to_owned(),
            source,
        }
    }
}

/// What findings depend on besides the files.
#[derive(Debug, Clone, Copy)]
pub struct Knowledge<'a> {
    /// Where custom resources have their pod templates.
    pub templates: &'a [CustomTemplate],
    /// Digests that `generate` would pin tags to.
    pub images: &'a ImageCache,
}

/// What was checked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// In the order of the files, and inside a file by place.
    pub findings: Vec<Finding>,
    /// How many workloads have a runtime class of Contrast.
    pub workloads: usize,
}

/// A file cannot be checked.
#[derive(Debug, thiserror::Error)]
#[error("`{}` cannot be used", path.display())]
pub struct LintError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: ResourceError,
}

impl Diagnose for LintError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// What `generate` tells the operator: errors and warnings, without those that it decides itself because it
/// knows more (tags).
///
/// # Errors
/// As [`check`].
pub fn notices(
    sources: &[Source<'_>],
    templates: &[CustomTemplate],
) -> Result<Vec<Finding>, LintError> {
    let images = ImageCache::default();
    let checked = check(
        sources,
        Knowledge {
            templates,
            images: &images,
        },
    )?;
    let told = checked.findings.into_iter().filter(|finding| {
        finding.severity != Severity::Advice && finding.code != rules::IMAGE_WITHOUT_DIGEST.code
    });
    Ok(told.collect())
}

/// Checks all files together, as the deployment that they are.
///
/// # Errors
/// When a document is no Kubernetes object.
pub fn check(sources: &[Source<'_>], known: Knowledge<'_>) -> Result<Checked, LintError> {
    let mut resources = Vec::new();
    for (file, source) in sources.iter().enumerate() {
        let documents = source
            .yaml
            .documents()
            .map_err(|error| source.unusable(error))?;
        resources.extend(
            documents
                .into_iter()
                .map(|document| Resource { file, document }),
        );
    }
    let pods: Vec<Pod<'_>> = resources
        .iter()
        .filter_map(|resource| Pod::of(resource, known.templates))
        .filter(Pod::is_confidential)
        .collect();
    let mut notes = Notes::default();
    workloads::check(&resources, &pods, known.templates, &mut notes);
    for pod in &pods {
        images::check(pod, known.images, &mut notes);
        host::check(pod, &mut notes);
        annotations::check(pod, &mut notes);
        mesh::check(pod, &mut notes);
        secrets::check(pod, &mut notes);
    }
    services::check(&resources, &pods, &mut notes);
    peers::check(&resources, &pods, &mut notes);
    admission::check(&resources, &pods, &mut notes);
    secrets::check_objects(&resources, &pods, &mut notes);
    Ok(Checked {
        findings: place(sources, notes.0)?,
        workloads: pods.len(),
    })
}

/// A finding that does not know its line yet.
struct Note<'a> {
    rule: &'static Rule,
    resource: &'a Resource,
    path: Vec<Step>,
    container: Option<String>,
    found: String,
    advice: String,
}

#[derive(Default)]
struct Notes<'a>(Vec<Note<'a>>);

impl<'a> Notes<'a> {
    /// Something about a resource. `path` starts at the object.
    fn resource(
        &mut self,
        rule: &'static Rule,
        resource: &'a Resource,
        path: &[Step],
        (found, advice): (impl Into<String>, impl Into<String>),
    ) {
        self.0.push(Note {
            rule,
            resource,
            path: resource.path(path),
            container: None,
            found: found.into(),
            advice: advice.into(),
        });
    }

    /// Something about a pod. `path` starts at its template.
    fn pod(
        &mut self,
        rule: &'static Rule,
        pod: &Pod<'a>,
        path: &[Step],
        text: (impl Into<String>, impl Into<String>),
    ) {
        self.resource(rule, pod.resource, &pod.path(path), text);
    }

    /// Something about an annotation of a pod.
    fn annotation(
        &mut self,
        rule: &'static Rule,
        pod: &Pod<'a>,
        name: &str,
        text: (impl Into<String>, impl Into<String>),
    ) {
        match pod.annotation_path(name) {
            (path, true) => self.pod(rule, pod, &path, text),
            (path, false) => self.resource(rule, pod.resource, &path, text),
        }
    }

    /// Something about a container. `path` starts at it.
    fn container(
        &mut self,
        rule: &'static Rule,
        container: &Container<'_, 'a>,
        path: &[Step],
        text: (impl Into<String>, impl Into<String>),
    ) {
        self.pod(rule, container.pod, &container.path(path), text);
        if let Some(note) = self.0.last_mut() {
            note.container = Some(container.name().to_owned());
        }
    }
}

/// Finds lines and columns. Only documents with findings are parsed again.
fn place(sources: &[Source<'_>], notes: Vec<Note<'_>>) -> Result<Vec<Finding>, LintError> {
    let mut parsed: BTreeMap<(usize, usize), Positions> = BTreeMap::new();
    let mut findings = Vec::new();
    for note in notes {
        let at = (note.resource.file, note.resource.document.index);
        let Some(source) = sources.get(at.0) else {
            continue;
        };
        let position = match parsed.get(&at) {
            Some(positions) => positions.of(&note.path),
            None => {
                let positions = source
                    .yaml
                    .positions(at.1)
                    .map_err(|error| source.unusable(error))?;
                let position = positions.of(&note.path);
                parsed.insert(at, positions);
                position
            }
        };
        findings.push((
            at.0,
            Finding {
                code: note.rule.code,
                name: note.rule.name,
                severity: note.rule.severity,
                file: source.path.to_owned(),
                line: position.line,
                column: position.column,
                kind: note.resource.kind().to_owned(),
                namespace: note.resource.namespace().to_owned(),
                resource: note.resource.name().to_owned(),
                container: note.container,
                found: note.found,
                advice: note.advice,
                reference: note.rule.reference(),
            },
        ));
    }
    findings.sort_by(|(a_file, a), (b_file, b)| {
        (a_file, a.line, a.column, a.code).cmp(&(b_file, b.line, b.column, b.code))
    });
    Ok(findings.into_iter().map(|(_, finding)| finding).collect())
}
