//! Keys of the owners: read, or created where the defaults are used and the files are missing.

use std::{fs, io, path::Path};

use contrast_clock::SystemEntropy;
use contrast_pki::{
    WorkloadOwnerKey,
    shares::{SeedShareOwnerKey, generate_owner_key_pem},
};
use zeroize::Zeroizing;

use super::{GenerateError, Mode, Options, write::Change};

/// Public halves for the manifest, in hex, and the files that are to be created.
pub(super) struct OwnerKeys {
    pub(super) workload: Vec<String>,
    pub(super) seedshare: Vec<String>,
    pub(super) notices: Vec<String>,
    created: Vec<(std::path::PathBuf, Zeroizing<String>)>,
}

impl OwnerKeys {
    pub(super) fn changes(&self) -> impl Iterator<Item = Change> {
        self.created.iter().map(|(path, pem)| {
            Change::private(path.clone(), Zeroizing::new(pem.as_bytes().to_vec()))
        })
    }
}

pub(super) fn load(options: &Options) -> Result<OwnerKeys, GenerateError> {
    let mut keys = OwnerKeys {
        workload: Vec::new(),
        seedshare: Vec::new(),
        notices: Vec::new(),
        created: Vec::new(),
    };
    if !options.disable_updates {
        for path in &options.workload_owner_keys {
            let unusable = |reason: String| owner_key(path, "workload owner", reason);
            if spared(options, path, options.create_workload_owner_key) {
                continue;
            }
            let pem = keys.pem(
                path,
                options.create_workload_owner_key,
                options.mode,
                || {
                    let key = WorkloadOwnerKey::generate(&SystemEntropy);
                    key.and_then(|key| key.to_pem())
                        .map_err(|error| unusable(error.to_string()))
                },
            )?;
            let public = WorkloadOwnerKey::public_key_from_pem(&pem);
            keys.workload.push(hex::encode(
                public.map_err(|error| unusable(error.to_string()))?,
            ));
        }
    }
    for path in &options.seedshare_owner_keys {
        let unusable = |reason: String| owner_key(path, "seed share owner", reason);
        if spared(options, path, options.create_seedshare_owner_key) {
            continue;
        }
        let pem = keys.pem(
            path,
            options.create_seedshare_owner_key,
            options.mode,
            || generate_owner_key_pem().map_err(|error| unusable(error.to_string())),
        )?;
        let public = SeedShareOwnerKey::from_pem(&pem);
        let public = public.map_err(|error| unusable(error.to_string()))?;
        keys.seedshare.push(hex::encode(public.as_der()));
    }
    Ok(keys)
}

/// Where nothing is written, a default key that is missing is none that an existing manifest lacks: whoever checks it, as a
/// pipeline does, need not have the owners' keys.
fn spared(options: &Options, path: &Path, default: bool) -> bool {
    options.mode != Mode::Write && default && !path.exists() && options.manifest.exists()
}

impl OwnerKeys {
    fn pem(
        &mut self,
        path: &Path,
        create: bool,
        mode: Mode,
        generate: impl FnOnce() -> Result<Zeroizing<String>, GenerateError>,
    ) -> Result<Zeroizing<String>, GenerateError> {
        match fs::read_to_string(path) {
            Ok(pem) => Ok(Zeroizing::new(pem)),
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                let pem = generate()?;
                let notice = match mode {
                    Mode::Write => format!("created {}; keep it safe", path.display()),
                    Mode::Diff | Mode::Check => format!(
                        "{} is missing and would be created; the manifest is compared with a key that is thrown away",
                        path.display()
                    ),
                };
                self.notices.push(notice);
                self.created.push((path.to_owned(), pem.clone()));
                Ok(pem)
            }
            Err(source) => Err(GenerateError::File {
                action: "read",
                path: path.to_owned(),
                source,
            }),
        }
    }
}

fn owner_key(path: &Path, kind: &'static str, reason: String) -> GenerateError {
    GenerateError::OwnerKey {
        path: path.to_owned(),
        kind,
        reason,
    }
}
