//! Rules of the repository that no compiler checks: who may depend on whom, and how long files get.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// Layers of the workspace, bottom first. A crate may depend on crates of lower layers, and of its own layer only where
/// `crates/*` libraries stand beside each other.
const LAYERS: [&[&str]; 6] = [
    &[
        "contrast-proto",
        "contrast-clock",
        "contrast-guest-device",
        "contrast-mesh-annotation",
        "contrast-firewall",
        "contrast-quantity",
        "contrast-initdata",
        "contrast-platform",
        "contrast-testbed",
    ],
    &[
        "contrast-telemetry",
        "contrast-audit",
        "contrast-pki",
        "contrast-attestation",
        "contrast-attest-document",
        "contrast-measure",
        "contrast-volume",
        "contrast-ttrpc",
    ],
    &["contrast-manifest", "contrast-collateral"],
    &[
        "contrast-atls",
        "contrast-mesh-check",
        "contrast-mesh-tls",
        "contrast-policy",
        "contrast-sdk",
        "contrast-sdk-wasm",
        "contrast-resources",
        "contrast-images",
    ],
    &[
        "contrast-coordinator",
        "contrast-initializer",
        "contrast-node-installer",
        "contrast-service-mesh",
        "contrast-port-forwarder",
        "contrast-cli",
    ],
    &[
        "contrast-e2e",
        "contrast-sim",
        "xtask",
        "contrast-fuzz",
        "contrast-model",
    ],
];

/// Only these may name rustls, so that TLS is configured in one place. The clients of vendors' services and of registries give their
/// HTTP library the provider of primitives; the end-to-end tests, and those of the Initializer's
/// secret discovery, play outsiders. The check of the mesh must finish handshakes that a client refuses, in order to say why. The SDK's
/// users are no members of the mesh and show no certificate.
const MAY_USE_RUSTLS: [&str; 9] = [
    "contrast-initializer",
    "contrast-atls",
    "contrast-mesh-check",
    "contrast-mesh-tls",
    "contrast-pki",
    "contrast-collateral",
    "contrast-images",
    "contrast-sdk",
    "contrast-e2e",
];

/// The only crates with lints of their own, and why: the workspace forbids unsafe code, which cannot be taken back for one block.
const MAY_USE_UNSAFE: [(&str, &str); 2] = [
    (
        "contrast-guest-device",
        "ioctls take pointers to the kernel's structures",
    ),
    (
        "contrast-sdk-wasm",
        "a function that is exported by its name carries an unsafe attribute; there are no unsafe blocks",
    ),
];
const FORBIDDEN: &str = r#"unsafe_code = "forbid""#;

const LINES_MAX: usize = 600;
const MAIN_LINES_MAX: usize = 150;

/// Checks every rule and reports all violations together.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut violations = Vec::new();
    for manifest in find(root, &|path| path.ends_with("Cargo.toml"))? {
        if manifest.parent() != Some(root) {
            check_dependencies(root, &manifest, &mut violations)?;
            check_lints(root, &manifest, &mut violations)?;
        }
    }
    for source in find(root, &|path| {
        path.extension().is_some_and(|extension| extension == "rs")
    })? {
        check_length(root, &source, &mut violations)?;
    }
    if !violations.is_empty() {
        bail!(
            "repository rules are broken:\n  {}",
            violations.join("\n  ")
        );
    }
    Ok(())
}

fn check_dependencies(root: &Path, manifest: &Path, violations: &mut Vec<String>) -> Result<()> {
    let layer_of: BTreeMap<&str, usize> = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(layer, names)| names.iter().map(move |name| (*name, layer)))
        .collect();
    let text = fs::read_to_string(manifest)?;
    let shown = manifest.strip_prefix(root).unwrap_or(manifest).display();
    let Some(name) = text.lines().find_map(|line| line.strip_prefix("name = ")) else {
        violations.push(format!("{shown}: no package name"));
        return Ok(());
    };
    let name = name.trim_matches('"');
    let Some(own) = layer_of.get(name) else {
        violations.push(format!(
            "{shown}: {name} is in no layer of xtask/src/tidy.rs"
        ));
        return Ok(());
    };
    let dependencies = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    for line in dependencies.lines() {
        let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
        if dependency.ends_with("rustls") && !MAY_USE_RUSTLS.contains(&name) {
            violations.push(format!(
                "{shown}: only {MAY_USE_RUSTLS:?} may use {dependency}"
            ));
        }
        if let Some(layer) = layer_of.get(dependency) {
            let beside = layer == own && *own < 4;
            if !beside && layer >= own {
                violations.push(format!("{shown}: {name} must not depend on {dependency}"));
            }
        }
    }
    Ok(())
}

/// Every crate forbids unsafe code, with the workspace's lints or by itself where all is generated; those that may use it repeat the
/// workspace's lints, with `unsafe_code` denied instead.
fn check_lints(root: &Path, manifest: &Path, violations: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(manifest)?;
    let rust = section(&text, "[lints.rust]");
    if text.contains("\n[lints]\nworkspace = true")
        || rust.contains(&FORBIDDEN)
        // A workspace of its own, which inherits nothing.
        || text.contains("\n[workspace]\n")
    {
        return Ok(());
    }
    let shown = manifest.strip_prefix(root).unwrap_or(manifest).display();
    let may_use_unsafe = MAY_USE_UNSAFE
        .iter()
        .any(|(name, _)| text.contains(&format!("\nname = \"{name}\"\n")));
    if !may_use_unsafe {
        violations.push(format!(
            "{shown}: expected `[lints]` with `workspace = true`, or `{FORBIDDEN}` in [lints.rust]"
        ));
        return Ok(());
    }
    let workspace = fs::read_to_string(root.join("Cargo.toml"))?;
    for tool in ["rust", "clippy"] {
        let own = section(&text, &format!("[lints.{tool}]"));
        for lint in section(&workspace, &format!("[workspace.lints.{tool}]")) {
            let wanted = match lint {
                FORBIDDEN => r#"unsafe_code = "deny""#,
                lint => lint,
            };
            if !own.contains(&wanted) {
                violations.push(format!(
                    "{shown}: expected lint `{wanted}` in [lints.{tool}]"
                ));
            }
        }
    }
    Ok(())
}

/// The lines of a section of a manifest, without comments.
fn section<'a>(manifest: &'a str, header: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| *line != header).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

fn check_length(root: &Path, source: &Path, violations: &mut Vec<String>) -> Result<()> {
    let lines = fs::read_to_string(source)?.lines().count();
    let limit = match source.file_name() {
        Some(name) if name == "main.rs" && !source.starts_with(root.join("xtask")) => {
            MAIN_LINES_MAX
        }
        _ => LINES_MAX,
    };
    if lines > limit {
        let shown = source.strip_prefix(root).unwrap_or(source).display();
        violations.push(format!(
            "{shown}: {lines} lines, at most {limit}; split it by reason to change"
        ));
    }
    Ok(())
}

pub(crate) fn find(directory: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || path.ends_with("target") {
            continue;
        }
        if path.is_dir() {
            found.extend(find(&path, wanted)?);
        } else if wanted(&path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
