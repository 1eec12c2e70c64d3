//! Keys of the owners: read, or created where the defaults are used and the files are missing.

use std::{fs, io, path::Path};

use contrast_clock::SystemEntropy;
use contrast_pki::{
    WorkloadOwnerKey,
    shares::{SeedShareOwnerKey, generate_owner_key_pem},
};
use zeroize::Zeroizing;

use super::{GenerateError, Options, write::Change};

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
            let pem = keys.pem(path, options.create_workload_owner_key, || {
                let key = WorkloadOwnerKey::generate(&SystemEntropy);
                key.and_then(|key| key.to_pem())
                    .map_err(|error| unusable(error.to_string()))
            })?;
            let public = WorkloadOwnerKey::public_key_from_pem(&pem);
            keys.workload.push(hex::encode(
                public.map_err(|error| unusable(error.to_string()))?,
            ));
        }
    }
    for path in &options.seedshare_owner_keys {
        let unusable = |reason: String| owner_key(path, "seed share owner", reason);
        let pem = keys.pem(path, options.create_seedshare_owner_key, || {
            generate_owner_key_pem().map_err(|error| unusable(error.to_string()))
        })?;
        let public = SeedShareOwnerKey::from_pem(&pem);
        let public = public.map_err(|error| unusable(error.to_string()))?;
        keys.seedshare.push(hex::encode(public.as_pkcs1_der()));
    }
    Ok(keys)
}

impl OwnerKeys {
    fn pem(
        &mut self,
        path: &Path,
        create: bool,
        generate: impl FnOnce() -> Result<Zeroizing<String>, GenerateError>,
    ) -> Result<Zeroizing<String>, GenerateError> {
        match fs::read_to_string(path) {
            Ok(pem) => Ok(Zeroizing::new(pem)),
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => {
                let pem = generate()?;
                self.notices
                    .push(format!("created {}; keep it safe", path.display()));
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
