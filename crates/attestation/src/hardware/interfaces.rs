use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use contrast_guest_device::{SevGuest, TdxGuest};

use super::{
    ConfigfsIssuer, ConfigfsReports, HostVsock, QuoteGenerationService, SnpDeviceIssuer,
    TdxDeviceIssuer, answer::chain,
};
use crate::{Issuer, Tee};

/// Port of Intel's quote generation service unless its configuration says otherwise.
const QUOTE_SERVICE_PORT: u32 = 4050;
/// The level of a guest that has its machine for itself, and the only one that is accepted.
const VMPL: u32 = 0;

/// Where the interfaces of the guest are. The default is where Linux and Intel's packages have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interfaces {
    /// configfs-TSM: `/sys/kernel/config/tsm/report`.
    pub configfs: ConfigfsReports,
    /// Driver for SEV-SNP: `/dev/sev-guest`.
    pub sev_guest: PathBuf,
    /// Driver for TDX: `/dev/tdx_guest`.
    pub tdx_guest: PathBuf,
    /// Configuration of Intel's attestation library, of which `port` is read: `/etc/tdx-attest.conf`. It may be absent.
    pub tdx_configuration: PathBuf,
}

impl Default for Interfaces {
    fn default() -> Self {
        Self {
            configfs: ConfigfsReports::default(),
            sev_guest: "/dev/sev-guest".into(),
            tdx_guest: "/dev/tdx_guest".into(),
            tdx_configuration: "/etc/tdx-attest.conf".into(),
        }
    }
}

/// An interface that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The interface's path.
    pub interface: String,
    /// Why, with all causes.
    pub reason: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.interface, self.reason)
    }
}

/// A device could not be prepared.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(
        "cannot open the device; expected {expected}, root, and the device inside the container"
    )]
    Device {
        expected: &'static str,
        source: io::Error,
    },
    #[error("cannot read {}; make it readable or remove it", path.display())]
    Configuration { path: PathBuf, source: io::Error },
    #[error("expected `port` in {} to be a number from 1 to 4294967295, found {found:?}", path.display())]
    Port { path: PathBuf, found: String },
}

impl Interfaces {
    /// The issuer of the first interface that is there: configfs-TSM, the SEV-SNP device, the TDX device. Says in the log which one it is.
    /// No report is requested yet.
    ///
    /// # Errors
    /// When none can be used: every interface with its reason, in the order they were tried.
    pub fn issuer(&self) -> Result<Arc<dyn Issuer>, Vec<Unusable>> {
        let mut unusable = Vec::new();
        let mut because = |interface: &Path, error: &dyn std::error::Error| {
            unusable.push(Unusable {
                interface: interface.display().to_string(),
                reason: chain(error),
            });
        };
        match ConfigfsIssuer::probe(self.configfs.clone()) {
            Ok(issuer) => return Ok(found(issuer.tee(), self.configfs.path(), issuer)),
            Err(error) => because(self.configfs.path(), &error),
        }
        match self.sev_guest() {
            Ok(issuer) => return Ok(found(Tee::Snp, &self.sev_guest, issuer)),
            Err(error) => because(&self.sev_guest, &error),
        }
        match self.tdx_guest() {
            Ok(issuer) => return Ok(found(Tee::Tdx, &self.tdx_guest, issuer)),
            Err(error) => because(&self.tdx_guest, &error),
        }
        Err(unusable)
    }

    pub(super) fn sev_guest(&self) -> Result<SnpDeviceIssuer<SevGuest>, OpenError> {
        match SevGuest::open(&self.sev_guest) {
            Ok(device) => Ok(SnpDeviceIssuer::new(device, VMPL)),
            Err(source) => Err(OpenError::Device {
                expected: "a SEV-SNP guest with Linux 5.19 or later and its module sev-guest",
                source,
            }),
        }
    }

    fn tdx_guest(
        &self,
    ) -> Result<TdxDeviceIssuer<TdxGuest, QuoteGenerationService<HostVsock>>, OpenError> {
        let device = TdxGuest::open(&self.tdx_guest).map_err(|source| OpenError::Device {
            expected: "a TDX guest with Linux 6.2 or later and its module tdx-guest",
            source,
        })?;
        let port = quote_service_port(&self.tdx_configuration)?;
        let service = QuoteGenerationService::new(HostVsock { port });
        Ok(TdxDeviceIssuer::new(device, service))
    }
}

fn found(tee: Tee, interface: &Path, issuer: impl Issuer + 'static) -> Arc<dyn Issuer> {
    tracing::info!(%tee, interface = %interface.display(), exposure = "public", "evidence comes from hardware");
    Arc::new(issuer)
}

/// `port` in the configuration at `path`: lines of `key = value`, `#` starts a comment line. The first one counts.
fn quote_service_port(path: &Path) -> Result<u32, OpenError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(QUOTE_SERVICE_PORT),
        Err(source) => {
            return Err(OpenError::Configuration {
                path: path.to_owned(),
                source,
            });
        }
    };
    let mut settings = text.lines().filter_map(|line| line.split_once('='));
    let Some((_, value)) = settings.find(|(key, _)| key.trim() == "port") else {
        return Ok(QUOTE_SERVICE_PORT);
    };
    match value.trim().parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(OpenError::Port {
            path: path.to_owned(),
            found: value.trim().to_owned(),
        }),
    }
}
