use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use contrast_clock::SystemEntropy;
use contrast_pki::{
    WorkloadOwnerKey,
    shares::{SeedShareOwnerKey, generate_owner_key_pem},
};
use serde_json::{Value, json};

use super::{Build, programs::workspace_root};

/// As `openssl genpkey -algorithm X25519` writes it. It guards nothing but tests.
const X25519_OWNER: &str = include_str!("x25519-owner.pem");

/// An owner's laptop: a workspace directory in which the real `contrast` runs.
#[derive(Debug)]
pub struct Owner {
    workspace: PathBuf,
    build: Build,
}

/// What one run of `contrast` printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Files with the private keys of one person who owns a deployment with others.
#[derive(Debug, Clone)]
pub struct OwnerKeys {
    /// Approves updates.
    pub workload: String,
    /// Recovers the seed.
    pub seed_share: String,
}

impl Owner {
    /// A workspace in `workspace` that holds copies of the sample application's YAML.
    ///
    /// # Errors
    /// When files cannot be copied.
    pub fn with_sample_application(workspace: &Path) -> Result<Self> {
        let resources = workspace.join("resources");
        fs::create_dir_all(&resources)?;
        for entry in fs::read_dir(workspace_root().join("deploy/examples/votes"))? {
            let source = entry?.path();
            let name = source.file_name().context("file name")?;
            fs::copy(&source, resources.join(name))?;
        }
        Ok(Self {
            workspace: workspace.to_owned(),
            build: Build::this()?,
        })
    }

    /// The same laptop, with the `contrast` of another build.
    #[must_use]
    pub(super) fn of(mut self, build: &Build) -> Self {
        self.build = build.clone();
        self
    }

    /// The workspace directory.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Path of a file in the workspace.
    pub fn file(&self, name: &str) -> PathBuf {
        self.workspace.join(name)
    }

    /// Text of a file in the workspace.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Changes the manifest, as a person with an editor does.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn edit_manifest(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut manifest = serde_json::from_str(&self.read("manifest.json")?)?;
        change(&mut manifest);
        let text = serde_json::to_string_pretty(&manifest)?;
        Ok(fs::write(self.file("manifest.json"), text)?)
    }

    /// Makes keys for further owners, of both kinds, until there are `count`, and writes into the manifest that `needed` of them must
    /// agree. The second one's seed share is for an X25519 key, the others' for RSA.
    ///
    /// # Errors
    /// When keys cannot be made or the manifest not be changed.
    pub fn share_with_others(&self, needed: u8, count: u8) -> Result<Vec<OwnerKeys>> {
        let mut owners = vec![OwnerKeys {
            workload: "workload-owner.pem".to_owned(),
            seed_share: "seedshare-owner.pem".to_owned(),
        }];
        for number in 2..=count {
            let owner = OwnerKeys {
                workload: format!("workload-owner-{number}.pem"),
                seed_share: format!("seedshare-owner-{number}.pem"),
            };
            let key = WorkloadOwnerKey::generate(&SystemEntropy)?.to_pem()?;
            fs::write(self.file(&owner.workload), key.as_bytes())?;
            match number {
                2 => fs::write(self.file(&owner.seed_share), X25519_OWNER)?,
                _ => fs::write(self.file(&owner.seed_share), generate_owner_key_pem()?)?,
            }
            owners.push(owner);
        }
        let workload = |owner: &OwnerKeys| -> Result<String> {
            let pem = self.read(&owner.workload)?;
            Ok(hex::encode(WorkloadOwnerKey::public_key_from_pem(&pem)?))
        };
        let seed_share = |owner: &OwnerKeys| self.seed_share_owner(&owner.seed_share);
        let workload: Vec<_> = owners.iter().map(workload).collect::<Result<_>>()?;
        let seed_share: Vec<_> = owners.iter().map(seed_share).collect::<Result<_>>()?;
        self.edit_manifest(|manifest| {
            manifest["WorkloadOwnerPubKeys"] = json!(workload);
            manifest["WorkloadOwnerThreshold"] = json!(needed);
            manifest["SeedshareOwnerPubKeys"] = json!(seed_share);
            manifest["SeedshareThreshold"] = json!(needed);
        })?;
        Ok(owners)
    }

    /// How manifests name the seed share owner whose private key is in the file `name`.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn seed_share_owner(&self, name: &str) -> Result<String> {
        let key = SeedShareOwnerKey::from_pem(&self.read(name)?)?;
        Ok(hex::encode(key.as_der()))
    }

    /// Runs `contrast` with `arguments` in the workspace, whatever the outcome.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_contrast(&self, arguments: &[&str]) -> Result<Output> {
        self.try_contrast_of(&self.build, arguments)
    }

    /// The same with the `contrast` of another build.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_contrast_of(&self, build: &Build, arguments: &[&str]) -> Result<Output> {
        let output = Command::new(build.program("contrast")?)
            .args(arguments)
            .current_dir(&self.workspace)
            .output()
            .context("cannot start contrast")?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs `contrast` and expects success.
    ///
    /// # Errors
    /// When it fails; the error shows what it printed.
    pub fn contrast(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.try_contrast(arguments)?;
        ensure!(
            output.code == 0,
            "contrast {} ended with {}\n{}{}",
            arguments.join(" "),
            output.code,
            output.stdout,
            output.stderr
        );
        Ok(output)
    }
}
