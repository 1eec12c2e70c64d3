//! The recorded requests of `../shared/policy-cases`, each with the verdict that it must get.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may panic, and says why it skips"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use contrast_images::ImageCache;
use contrast_policy::{ConfigObjects, PodName, PodSource, RecordedCase, judge_cases};
use contrast_resources::YamlFile;

/// Images that the recorded pods name: what their registries say about them.
const IMAGES: &str = include_str!("recorded-images.json");

/// Requests that were recorded as allowed and are refused here: folder, description, the rule. `docs/reference/policy-coverage.md`
/// says why.
const STRICTER: [(&str, &str, &str); 6] = [
    ("copyfile", "a dirname can have trailing dots", "F04"),
    ("copyfile", "directory in top-level shared directory", "F04"),
    (
        "copyfile",
        "symlink beneath top-level shared directory",
        "F04",
    ),
    (
        "createcontainer/security_context/supplemental_groups",
        "Correct additionalGIDs for security context fsGroup, supplementalGroups",
        "C10",
    ),
    (
        "createcontainer/volumes/config_map",
        "CreateContainer with config map volume",
        "C10",
    ),
    (
        "createcontainer/volumes/container_image",
        "CreateContainer with a container image having volumes",
        "C10",
    ),
];

fn folders(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .expect("directory")
        .map(|entry| entry.expect("entry").path())
        .collect();
    entries.sort();
    if entries.iter().any(|path| path.ends_with("testcases.json")) {
        found.push(directory.to_owned());
    }
    for path in entries.into_iter().filter(|path| path.is_dir()) {
        folders(&path, found);
    }
}

fn policy(folder: &Path, images: &ImageCache) -> String {
    let mut config = ConfigObjects::default();
    let mut pod = None;
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let file = YamlFile::parse(fs::read_to_string(&path).expect("text")).expect("YAML");
            for document in file.documents().expect("documents") {
                config.insert(&document.object);
                if document.object["kind"] == "Pod" {
                    pod = Some(document.object);
                }
            }
        }
    }
    let mut pod = pod.expect("a pod");
    for container in pod["spec"]["containers"]
        .as_array_mut()
        .expect("containers")
    {
        let image = container["image"].as_str().expect("image");
        if let Some(pinned) = images.pinned(image) {
            container["image"] = pinned.into();
        }
    }
    let metadata = &pod["metadata"];
    let name = match metadata["name"].as_str() {
        Some(name) => PodName::Fixed(name),
        None => PodName::Generated(metadata["generateName"].as_str().expect("name")),
    };
    let source = PodSource {
        kind: "Pod",
        name,
        namespace: None,
        template: &pod,
        claims: &[],
        images,
        config: &config,
    };
    source
        .policy()
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .to_rego()
        .expect("rego")
}

#[test]
fn recorded_requests_get_their_verdict() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/policy-cases");
    if !root.is_dir() {
        eprintln!("skipped: no {}", root.display());
        return;
    }
    let scratch = tempfile::tempdir().expect("directory");
    let cache = scratch.path().join("images.json");
    fs::write(&cache, IMAGES).expect("writes");
    let images = ImageCache::read(&cache).expect("cache");
    let mut found = Vec::new();
    folders(&root, &mut found);
    let mut wrong = Vec::new();
    for folder in found {
        let text = fs::read(folder.join("testcases.json")).expect("cases");
        let cases: Vec<RecordedCase> = serde_json::from_slice(&text).expect("cases");
        let verdicts = judge_cases(&policy(&folder, &images), &cases).expect("policy loads");
        let name = folder
            .strip_prefix(&root)
            .expect("below")
            .display()
            .to_string();
        for (case, verdict) in cases.iter().zip(verdicts) {
            let listed = STRICTER.iter().find(|(folder, description, _)| {
                *folder == name && *description == case.description
            });
            let as_expected = match listed {
                Some((_, _, code)) => !verdict.allowed && verdict.reason.starts_with(code),
                None => verdict.allowed == case.allowed,
            };
            if !as_expected {
                wrong.push(format!(
                    "{name}: {}: expected {}, {}",
                    case.description, case.allowed, verdict.reason
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
