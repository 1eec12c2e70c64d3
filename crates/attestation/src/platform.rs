use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;

use crate::{
    Issuer, PolicyHash, ReportData, Tee,
    hardware::{CloudHost, Interfaces, NoCloudHost, Unusable, vtpm_issuer},
};

/// The TPM of a guest, behind the kernel's resource manager.
const TPM_DEVICE: &str = "/dev/tpmrm0";
/// Names the directory of a software TEE.
const SOFTWARE_TEE_VARIABLE: &str = "CONTRAST_INSECURE_SOFTWARE_TEE";
/// Names the initdata document of a guest of the software TEE.
const INITDATA_VARIABLE: &str = "CONTRAST_INSECURE_INITDATA";

/// How a guest reaches its TEE.
///
/// | field | environment variable |
/// | --- | --- |
/// | `software_tee` | `CONTRAST_INSECURE_SOFTWARE_TEE` |
/// | `software_kind` | `CONTRAST_INSECURE_SOFTWARE_TEE_KIND` (`snp` or `tdx`, default `snp`) |
/// | `initdata` | `CONTRAST_INSECURE_INITDATA` |
///
/// Reading the environment is up to the binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// Directory of a saved software TEE (`SoftwareTee::save`); `None` on real hardware, which is asked
    /// through the first of its [`Interfaces`].
    pub software_tee: Option<PathBuf>,
    /// The kind of evidence that the software TEE emits.
    pub software_kind: Tee,
    /// The initdata document that the software TEE's guest was "started" with; its SHA-256 is the policy hash. On real
    /// hardware the host passes that hash at launch.
    pub initdata: Option<PathBuf>,
}

/// There is no TEE that this process could ask for evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlatformError {
    /// Neither hardware that this version can ask nor a software TEE.
    #[error(
        "no TEE that could be asked for evidence. Run this in an SEV-SNP or TDX guest whose kernel offers one of these, and give the \
         container access to it:{} (for development, set {SOFTWARE_TEE_VARIABLE} to the directory of a software TEE)",
        list(tried)
    )]
    NoTee {
        /// Every interface, in the order of trying.
        tried: Vec<Unusable>,
    },
    /// The software TEE needs the document whose hash the host would have passed at launch.
    #[error(
        "{SOFTWARE_TEE_VARIABLE} is set, but {INITDATA_VARIABLE} is not; set it to the pod's initdata document"
    )]
    NoInitdata,
    /// The initdata document could not be read.
    #[error("cannot read initdata {}; set {INITDATA_VARIABLE} to a readable file", path.display())]
    Initdata {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The software TEE was compiled out.
    #[error(
        "{SOFTWARE_TEE_VARIABLE} is set, but this build has no software TEE (feature `software-tee`); unset it, or use a \
         development build"
    )]
    SoftwareTeeCompiledOut,
    /// The software TEE's directory is unusable.
    #[cfg(feature = "software-tee")]
    #[error("cannot open the software TEE in {}; set {SOFTWARE_TEE_VARIABLE} to a directory that holds one", path.display())]
    SoftwareTee {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: Box<crate::software::SoftwareTeeError>,
    },
}

impl IssuerConfig {
    /// The issuer that this configuration names. Reads files.
    ///
    /// # Errors
    /// When there is no TEE to ask, or a file is missing or unusable; each message names the variable to set.
    pub fn issuer(&self) -> Result<Arc<dyn Issuer>, PlatformError> {
        self.issuer_on(Arc::new(NoCloudHost))
    }

    /// Like [`Self::issuer`]; `host` is the cloud provider's side of a guest with a virtual TPM, and asked for nothing elsewhere.
    ///
    /// # Errors
    /// When there is no TEE to ask, or a file is missing or unusable; each message names the variable to set.
    pub fn issuer_on(&self, host: Arc<dyn CloudHost>) -> Result<Arc<dyn Issuer>, PlatformError> {
        let Some(directory) = self.software_tee.as_deref() else {
            return Interfaces::default().issuer().or_else(|mut tried| {
                // Last: a report of the hardware itself needs no paravisor to be trusted.
                vtpm_issuer(Path::new(TPM_DEVICE), host).map_err(|unusable| {
                    tried.push(unusable);
                    PlatformError::NoTee { tried }
                })
            });
        };
        let initdata = self.initdata.as_deref().ok_or(PlatformError::NoInitdata)?;
        software_issuer(directory, self.software_kind, policy_hash_of(initdata)?)
    }

    /// Hash of the document that this guest was started with, as its TEE has it; `nonce` is random. Of the software TEE that is the hash of
    /// the document that its variable names.
    ///
    /// # Errors
    /// When there is no TEE to ask, or a file is missing or unusable; each message names the variable to set.
    pub fn own_policy_hash(&self, nonce: &ReportData) -> Result<PolicyHash, PlatformError> {
        if self.software_tee.is_none() {
            let hash = Interfaces::default().own_policy_hash(nonce);
            return hash.map_err(|tried| PlatformError::NoTee { tried });
        }
        // That there is such a TEE at all.
        self.issuer()?;
        let initdata = self.initdata.as_deref().ok_or(PlatformError::NoInitdata)?;
        policy_hash_of(initdata)
    }
}

/// One line each.
fn list(tried: &[Unusable]) -> String {
    let lines = tried.iter().map(|unusable| format!("\n  {unusable}"));
    lines.chain(["\n".to_owned()]).collect()
}

fn policy_hash_of(initdata: &Path) -> Result<PolicyHash, PlatformError> {
    let document = fs::read(initdata).map_err(|source| PlatformError::Initdata {
        path: initdata.to_owned(),
        source,
    })?;
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, &document).as_ref());
    Ok(PolicyHash(hash))
}

#[cfg(feature = "software-tee")]
fn software_issuer(
    directory: &Path,
    kind: Tee,
    policy: PolicyHash,
) -> Result<Arc<dyn Issuer>, PlatformError> {
    let tee = crate::software::SoftwareTee::open(directory).map_err(|source| {
        PlatformError::SoftwareTee {
            path: directory.to_owned(),
            source: Box::new(source),
        }
    })?;
    match kind {
        Tee::Snp => Ok(Arc::new(tee.snp_guest(policy))),
        Tee::Tdx => Ok(Arc::new(tee.tdx_guest(policy))),
    }
}

#[cfg(not(feature = "software-tee"))]
fn software_issuer(_: &Path, _: Tee, _: PolicyHash) -> Result<Arc<dyn Issuer>, PlatformError> {
    Err(PlatformError::SoftwareTeeCompiledOut)
}
