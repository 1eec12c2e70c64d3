//! The software stand-in for an AMD processor of product line Milan.

mod authority;
mod chip;
mod guest;

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};

use crate::{PolicyHash, appraisal::SnpDemands};

use super::{SoftwareTeeError, certificate::encode_time};
use authority::Authority;
use chip::Chip;

pub use chip::SnpCertificate;
pub use guest::SnpGuest;

const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const AUTHORITY_YEARS: u32 = 25;
const CHIP_YEARS: u32 = 7;

/// ARK, ASK and one chip. Cheap to clone.
#[derive(Clone)]
pub(super) struct SnpPlatform {
    ark: Arc<Authority>,
    ask: Arc<Authority>,
    chip: Arc<Chip>,
}

impl SnpPlatform {
    /// Makes two RSA-4096 keys and one P-384 key with their certificates.
    pub(super) fn generate(now: SystemTime) -> Result<Self, SoftwareTeeError> {
        let start = whole_seconds(now, now.checked_sub(HOUR))?;
        let end = |years| whole_seconds(now, now.checked_add(YEAR.saturating_mul(years)));
        let validity = (start, end(AUTHORITY_YEARS)?);
        let ark = Authority::root(&format!("ARK-{}", guest::PRODUCT), validity)?;
        let ask = ark.intermediate(&format!("SEV-{}", guest::PRODUCT), validity)?;
        let chip = Chip::generate(&ask, (start, end(CHIP_YEARS)?))?;
        Ok(Self {
            ark: Arc::new(ark),
            ask: Arc::new(ask),
            chip: Arc::new(chip),
        })
    }

    /// The same authorities with another chip.
    pub(super) fn with_another_chip(&self) -> Result<Self, SoftwareTeeError> {
        let certificate = &self.chip.certificate;
        let chip = Chip::generate(&self.ask, (certificate.not_before, certificate.not_after))?;
        Ok(Self {
            chip: Arc::new(chip),
            ..self.clone()
        })
    }

    /// Writes `snp-{ark,ask,vcek}.{key,crt}.pem`.
    pub(super) fn save(&self, directory: &Path) -> Result<(), SoftwareTeeError> {
        self.ark.save(directory, "ark")?;
        self.ask.save(directory, "ask")?;
        self.chip.save(directory)
    }

    /// Reads what [`SnpPlatform::save`] wrote.
    pub(super) fn open(directory: &Path) -> Result<Self, SoftwareTeeError> {
        Ok(Self {
            ark: Arc::new(Authority::open(directory, "ark")?),
            ask: Arc::new(Authority::open(directory, "ask")?),
            chip: Arc::new(Chip::open(directory)?),
        })
    }

    /// SHA-256 of the ARK certificate's DER.
    pub(super) fn root_sha256(&self) -> [u8; 32] {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, &self.ark.certificate_der).as_ref());
        sha256
    }

    /// What an unchanged guest meets.
    pub(super) fn demands() -> SnpDemands {
        guest::demands()
    }

    /// A guest that meets [`SnpPlatform::demands`].
    pub(super) fn guest(&self, policy: PolicyHash) -> SnpGuest {
        SnpGuest::new(self.clone(), policy)
    }

    /// A CRL of the ARK, DER, that lists the ASK or nobody.
    pub(super) fn crl(
        &self,
        revokes_ask: bool,
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> Result<Vec<u8>, SoftwareTeeError> {
        self.ark.crl(revokes_ask, (this_update, next_update))
    }

    fn ark(&self) -> &Authority {
        &self.ark
    }

    fn ask(&self) -> &Authority {
        &self.ask
    }

    fn chip(&self) -> &Chip {
        &self.chip
    }
}

impl fmt::Debug for SnpPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnpPlatform(ARK {})", hex::encode(self.root_sha256()))
    }
}

/// Certificates know whole seconds; rounding here keeps what was generated equal to what is read back.
fn whole_seconds(
    now: SystemTime,
    shifted: Option<SystemTime>,
) -> Result<SystemTime, SoftwareTeeError> {
    let shifted = shifted.ok_or(SoftwareTeeError::Time { found: now })?;
    encode_time(shifted).map(|time| time.to_system_time())
}
