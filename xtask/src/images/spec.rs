//! `deploy/images/images.toml`: what is in each image.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

pub(super) const DIRECTORY: &str = "deploy/images";

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    /// Debian packages to take programs from.
    pub(super) packages: Vec<String>,
    #[serde(rename = "image")]
    pub(super) images: Vec<Image>,
}

/// One image.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Image {
    /// Last part of the repository's name.
    pub(super) name: String,
    pub(super) title: String,
    /// Cargo package; its program is named like the image.
    pub(super) package: String,
    /// Programs of Debian, each with the libraries that it is linked to.
    #[serde(default)]
    pub(super) programs: Vec<String>,
    /// Directory of libraries that a program loads at run time.
    pub(super) libraries: Option<String>,
    /// Whether the program asks servers of the web.
    #[serde(default)]
    pub(super) certificates: bool,
    #[serde(default)]
    pub(super) envoy: bool,
    /// Whether it carries the runtime for nodes.
    #[serde(default)]
    pub(super) payload: bool,
    /// `UID:GID`.
    pub(super) user: String,
}

impl Image {
    /// Whether it has files of Debian's packages.
    pub(super) fn is_of_debian(&self) -> bool {
        !self.programs.is_empty() || self.libraries.is_some() || self.certificates || self.envoy
    }
}

impl Spec {
    /// Reads the file; keeps the images that `only` names, or all.
    pub(super) fn read(root: &Path, only: &[String]) -> Result<Self> {
        let path = root.join(DIRECTORY).join("images.toml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut spec: Self =
            toml::from_str(&text).with_context(|| format!("{} is wrong", path.display()))?;
        let known = |name: &String| spec.images.iter().any(|image| image.name == *name);
        if let Some(unknown) = only.iter().find(|name| !known(name)) {
            let names: Vec<_> = spec
                .images
                .iter()
                .map(|image| image.name.as_str())
                .collect();
            bail!(
                "there is no image `{unknown}`; there are {}",
                names.join(", ")
            );
        }
        if !only.is_empty() {
            spec.images.retain(|image| only.contains(&image.name));
        }
        Ok(spec)
    }
}
