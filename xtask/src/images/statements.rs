//! What is said beside an image: its parts (CycloneDX 1.6) and where it comes from (in-toto Statement 1, SLSA provenance 1). Neither is
//! signed: whoever needs to believe them builds the image again and compares digests.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{
    Profile, debian::Package, layer::digest, layout::Built, programs::TARGET, spec::Image,
};
use crate::tools::ENVOY;

/// Crates that are linked into programs.
pub(super) struct Crates {
    metadata: Value,
    /// SHA-256 of each crate's file by name and version.
    checksums: BTreeMap<(String, String), String>,
}

impl Crates {
    pub(super) fn read(root: &Path) -> Result<Self> {
        let mut command = Command::new(env!("CARGO"));
        command
            .current_dir(root)
            .args(["metadata", "--format-version=1", "--locked"])
            .args(["--filter-platform", TARGET]);
        let output = command.output().context("cannot start cargo")?;
        ensure!(
            output.status.success(),
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        let lock: toml::Table = toml::from_str(&fs::read_to_string(root.join("Cargo.lock"))?)?;
        let packages = lock.get("package").and_then(toml::Value::as_array);
        let text = |package: &toml::Value, key: &str| {
            package
                .get(key)
                .and_then(toml::Value::as_str)
                .map(str::to_owned)
        };
        let checksums = packages
            .into_iter()
            .flatten()
            .filter_map(|package| {
                let key = (text(package, "name")?, text(package, "version")?);
                Some((key, text(package, "checksum")?))
            })
            .collect();
        Ok(Self {
            metadata: serde_json::from_slice(&output.stdout)?,
            checksums,
        })
    }

    /// What `package` is linked from, without what only builds or tests it.
    fn of(&self, package: &str) -> Result<Vec<Value>> {
        let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let packages: BTreeMap<String, Value> = items(&self.metadata["packages"])
            .into_iter()
            .map(|package| (text(&package["id"]), package))
            .collect();
        let nodes: BTreeMap<String, Value> = items(&self.metadata["resolve"]["nodes"])
            .into_iter()
            .map(|node| (text(&node["id"]), node))
            .collect();
        let (first, _) = packages
            .iter()
            .find(|(_, found)| found["name"] == package)
            .with_context(|| format!("the workspace has no package `{package}`"))?;
        let mut reached = BTreeSet::from([first.clone()]);
        let mut waiting = VecDeque::from([first.clone()]);
        while let Some(id) = waiting.pop_front() {
            for dependency in nodes
                .get(&id)
                .map(|node| items(&node["deps"]))
                .into_iter()
                .flatten()
            {
                let is_linked = items(&dependency["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null());
                let id = text(&dependency["pkg"]);
                if is_linked && reached.insert(id.clone()) {
                    waiting.push_back(id);
                }
            }
        }
        let found = reached.iter().filter_map(|id| packages.get(id));
        Ok(found
            .map(|package| {
                let (name, version) = (text(&package["name"]), text(&package["version"]));
                let purl = format!("pkg:cargo/{name}@{version}");
                let mut component = component(&name, &version, &purl);
                if let Some(license) = package["license"].as_str() {
                    // Old crates write a slash for OR.
                    let expression = license.replace('/', " OR ").replace("  ", " ");
                    component["licenses"] = json!([{"expression": expression}]);
                }
                if let Some(checksum) = self.checksums.get(&(name, version)) {
                    component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
                }
                component
            })
            .collect())
    }
}

fn component(name: &str, version: &str, purl: &str) -> Value {
    json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
}

fn envoy_purl() -> String {
    format!("pkg:pypi/{}@{}", ENVOY.package, ENVOY.version)
}

fn debian_purl(package: &Package) -> String {
    let Package {
        name,
        version,
        architecture,
        ..
    } = package;
    let version = version.replace('+', "%2B").replace(':', "%3A");
    format!("pkg:deb/debian/{name}@{version}?arch={architecture}&distro=bookworm")
}

/// The parts of an image.
pub(super) fn parts(
    image: &Image,
    version: &str,
    digest: &str,
    crates: &Crates,
    debian: &BTreeSet<Package>,
) -> Result<Value> {
    let mut components = crates.of(&image.package)?;
    components.extend(debian.iter().map(|package| {
        let mut component = component(&package.name, &package.version, &debian_purl(package));
        component["hashes"] = json!([{"alg": "SHA-256", "content": package.sha256}]);
        component
    }));
    if image.envoy {
        let mut envoy = component("envoy", ENVOY.version, &envoy_purl());
        envoy["type"] = json!("application");
        components.push(envoy);
    }
    let hash = digest.trim_start_matches("sha256:");
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "bom-ref": format!("pkg:oci/{}@sha256%3A{hash}", image.name),
                "name": image.name,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": hash}],
            },
        },
        "components": components,
    }))
}

/// Where an image comes from.
pub(super) fn provenance(
    root: &Path,
    image: &Image,
    built: &Built,
    profile: Profile,
    debian: &BTreeSet<Package>,
) -> Result<Value> {
    let lock = digest(&fs::read(root.join("Cargo.lock"))?);
    let sha256 = |text: &str| json!({"sha256": text.trim_start_matches("sha256:")});
    let mut materials = vec![
        json!({"name": "source", "digest": {"gitCommit": commit(root)}}),
        json!({"name": "Cargo.lock", "digest": sha256(&lock)}),
        json!({"name": "rustc", "annotations": {"version": version_of("rustc")?}}),
        // It compiles the C code of aws-lc and zstd, and is the one of the building machine.
        json!({"name": "C compiler", "annotations": {"version": version_of("musl-gcc")?}}),
    ];
    // The payload has no origin that is known here; its layer has a digest.
    materials.extend(
        built.layers.iter().map(
            |(what, digest)| json!({"name": format!("layer: {what}"), "digest": sha256(digest)}),
        ),
    );
    materials.extend(
        debian
            .iter()
            .map(|package| json!({"uri": debian_purl(package), "digest": sha256(&package.sha256)})),
    );
    if image.envoy {
        let [wheel, _] = ENVOY.hashes;
        materials.push(json!({"uri": envoy_purl(), "digest": sha256(wheel)}));
    }
    Ok(json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": image.name, "digest": sha256(&built.digest)}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:contrast:cargo-xtask-images:1",
                "externalParameters": {"image": image.name, "profile": profile.name(), "target": TARGET},
                "resolvedDependencies": materials,
            },
            "runDetails": {"builder": {"id": "urn:contrast:cargo-xtask-images:1"}},
        },
    }))
}

/// The commit that is built; `-dirty` behind it when files were changed, `unknown` outside of a repository.
fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(root)
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(text)
    };
    match (git(&["rev-parse", "HEAD"]), git(&["status", "--porcelain"])) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), _) => format!("{commit}-dirty"),
        (None, _) => "unknown".to_owned(),
    }
}

/// The first line of what a compiler says about itself.
fn version_of(compiler: &str) -> Result<String> {
    let output = Command::new(compiler)
        .arg("--version")
        .output()
        .with_context(|| format!("cannot start {compiler}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().next().filter(|_| output.status.success());
    Ok(line
        .with_context(|| format!("{compiler} does not say its version"))?
        .to_owned())
}
