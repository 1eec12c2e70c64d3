use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;

use crate::{
    Issuer, PolicyHash, Tee,
    hardware::{
        CloudHost, ConfigfsIssuer, ConfigfsReports, NoCloudHost, ReportError, TpmDevice, VtpmError,
        VtpmIssuer,
    },
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
    /// Directory of a saved software TEE (`SoftwareTee::save`); `None` on real hardware, which is asked through configfs-TSM.
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
        "no TEE that could be asked for evidence; expected configfs-TSM at {}, or a virtual TPM with an HCL report at {TPM_DEVICE} (for development, set {SOFTWARE_TEE_VARIABLE} \
         to the directory of a software TEE)",
        path.display()
    )]
    NoTee {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it is not there.
        source: ReportError,
    },
    /// There is a TPM, but not for us.
    #[error("cannot open the TPM at {}; expected to be allowed to read and write it", path.display())]
    Tpm {
        /// The device.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The virtual TPM has an HCL report, but gives no evidence.
    #[error("the virtual TPM at {} cannot be asked for evidence", path.display())]
    Vtpm {
        /// The device.
        path: PathBuf,
        /// Why.
        source: VtpmError,
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
            return hardware_issuer(ConfigfsReports::default())
                .or_else(|error| vtpm_issuer(Path::new(TPM_DEVICE), host).unwrap_or(Err(error)));
        };
        let initdata = self.initdata.as_deref().ok_or(PlatformError::NoInitdata)?;
        software_issuer(directory, self.software_kind, policy_hash_of(initdata)?)
    }
}

fn hardware_issuer(reports: ConfigfsReports) -> Result<Arc<dyn Issuer>, PlatformError> {
    let path = reports.path().to_owned();
    match ConfigfsIssuer::probe(reports) {
        Ok(issuer) => {
            tracing::info!(tee = %issuer.tee(), interface = %path.display(), "evidence comes from hardware");
            Ok(Arc::new(issuer))
        }
        Err(source) => Err(PlatformError::NoTee { path, source }),
    }
}

/// The issuer of a guest below a paravisor; none when the TPM at `device` is absent or has no HCL report. To be tried last: a
/// report of the hardware itself needs no paravisor to be trusted.
fn vtpm_issuer(
    device: &Path,
    host: Arc<dyn CloudHost>,
) -> Option<Result<Arc<dyn Issuer>, PlatformError>> {
    let tpm = match TpmDevice::open(device) {
        Ok(tpm) => tpm,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(source) => {
            return Some(Err(PlatformError::Tpm {
                path: device.to_owned(),
                source,
            }));
        }
    };
    match VtpmIssuer::probe(tpm, host) {
        Ok(issuer) => {
            tracing::info!(tee = %issuer.tee(), interface = %device.display(), "evidence comes from hardware, through a virtual TPM");
            Some(Ok(Arc::new(issuer)))
        }
        // Any machine may have a TPM; only a paravisor's has this index.
        Err(VtpmError::Tpm { source, .. }) if source.is_absent() => None,
        Err(source) => Some(Err(PlatformError::Vtpm {
            path: device.to_owned(),
            source,
        })),
    }
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
