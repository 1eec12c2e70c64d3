//! A TEE in software, for development, demonstrations and tests. **It protects nothing.**
//!
//! It emits the real binary formats (an SNP report signed by a P-384 VCEK under an RSA-4096 ASK and ARK; a TDX quote under
//! a P-256 PCK chain with its own collateral), so that everything from the parser to the last check is the production
//! path. Only the roots are its own, and they are worth nothing to anybody who has not put them into a manifest as a
//! reference value of kind `insecure`. Whoever can read a software TEE's directory can impersonate every workload of such
//! a manifest: the private keys of both roots lie in it, in clear.
//!
//! Cargo feature `software-tee` (on by default) compiles it in. Verification of evidence does not depend on it.

mod certificate;
mod directory;
mod snp;
mod tdx;
#[cfg(test)]
mod tests;
mod vtpm;

use std::{io, path::Path, path::PathBuf, time::SystemTime};

use crate::{Demands, PolicyHash, ReferenceValue, Root, Tee};

pub use snp::{SnpCertificate, SnpGuest};
pub use tdx::{TdxCollateralFacts, TdxGuest, TdxPck, TdxQuoteFormat};
pub use vtpm::{VtpmGuest, VtpmGuestHardware, encode_hcl_report, hcl_report, runtime_data};

/// One software "machine": the roots, intermediate and attestation keys of an AMD and of an Intel processor.
#[derive(Debug)]
pub struct SoftwareTee {
    snp: snp::SnpPlatform,
    tdx: tdx::TdxPlatform,
}

/// The software TEE could not be made, saved or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoftwareTeeError {
    /// The cryptography library refused.
    #[error("cannot {action}: the cryptography library refused")]
    Crypto {
        /// What was tried.
        action: &'static str,
    },
    /// A certificate could not be encoded or decoded.
    #[error("cannot {action}")]
    Certificate {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: der::Error,
    },
    /// A time that no certificate can state.
    #[error("certificates cannot start or end at {found:?}; expected a time from 1970 to 9999")]
    Time {
        /// The time.
        found: SystemTime,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written. Existing files are never replaced.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{} holds no {expected}; generate the software TEE again in an empty directory", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
}

impl SoftwareTee {
    /// Makes all keys and certificates; certificates are valid from an hour before `now`. Takes seconds: two RSA-4096 keys.
    ///
    /// # Errors
    /// When the cryptography library fails or no certificate can be valid at `now`.
    pub fn generate(now: SystemTime) -> Result<Self, SoftwareTeeError> {
        Ok(Self {
            snp: snp::SnpPlatform::generate(now)?,
            tdx: tdx::TdxPlatform::generate(now)?,
        })
    }

    /// Writes keys and certificates to `directory` as PEM files that only their owner can read. **The private keys are not
    /// encrypted.** The directory is created when it does not exist; existing files are never replaced.
    ///
    /// # Errors
    /// When a file exists already or cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), SoftwareTeeError> {
        self.snp.save(directory)?;
        self.tdx.save(directory)
    }

    /// Reads what [`SoftwareTee::save`] wrote.
    ///
    /// # Errors
    /// When a file is missing, unreadable, or holds something else.
    pub fn open(directory: &Path) -> Result<Self, SoftwareTeeError> {
        Ok(Self {
            snp: snp::SnpPlatform::open(directory)?,
            tdx: tdx::TdxPlatform::open(directory)?,
        })
    }

    /// SHA-256 of the root certificate's DER: of the ARK, or of the stand-in for Intel's root CA.
    pub fn root_sha256(&self, tee: Tee) -> [u8; 32] {
        match tee {
            Tee::Snp => self.snp.root_sha256(),
            Tee::Tdx => self.tdx.root_sha256(),
        }
    }

    /// The reference value that an unchanged [`SoftwareTee::snp_guest`] or [`SoftwareTee::tdx_guest`] meets: kind insecure,
    /// pinned to this software TEE's root.
    pub fn reference_value(&self, tee: Tee) -> ReferenceValue {
        ReferenceValue {
            name: format!("insecure software {tee}"),
            root: Root::Insecure {
                sha256: self.root_sha256(tee),
            },
            demands: match tee {
                Tee::Snp => Demands::Snp(snp::SnpPlatform::demands()),
                Tee::Tdx => Demands::Tdx(tdx::TdxPlatform::demands()),
            },
            vtpm: None,
        }
    }

    /// An SNP guest that was "started" with `policy`.
    pub fn snp_guest(&self, policy: PolicyHash) -> SnpGuest {
        self.snp.guest(policy)
    }

    /// An SNP guest on another chip whose certificates come from the same ARK and ASK.
    ///
    /// # Errors
    /// When the cryptography library fails.
    pub fn another_snp_chip(&self, policy: PolicyHash) -> Result<SnpGuest, SoftwareTeeError> {
        Ok(self.snp.with_another_chip()?.guest(policy))
    }

    /// A CRL of the ARK, DER, valid from `this_update` to `next_update`, that lists the ASK or nobody. To be put into
    /// [`SnpGuest::crl`].
    ///
    /// # Errors
    /// When a time cannot be encoded or the cryptography library fails.
    pub fn snp_crl(
        &self,
        revokes_ask: bool,
        this_update: SystemTime,
        next_update: SystemTime,
    ) -> Result<Vec<u8>, SoftwareTeeError> {
        self.snp.crl(revokes_ask, this_update, next_update)
    }

    /// A TDX guest that was "started" with `policy`.
    pub fn tdx_guest(&self, policy: PolicyHash) -> TdxGuest {
        self.tdx.guest(policy)
    }

    /// A guest below a paravisor that measured `policy` into PCR 8 of its virtual TPM. HOSTDATA and MRCONFIGID are zero: they are not
    /// the guest's. Makes a new attestation key.
    ///
    /// # Errors
    /// When the cryptography library fails.
    pub fn vtpm_guest(&self, tee: Tee, policy: PolicyHash) -> Result<VtpmGuest, SoftwareTeeError> {
        let none = PolicyHash([0; 32]);
        let hardware = match tee {
            Tee::Snp => VtpmGuestHardware::Snp(Box::new(self.snp_guest(none))),
            Tee::Tdx => VtpmGuestHardware::Tdx(Box::new(self.tdx_guest(none))),
        };
        VtpmGuest::new(hardware, policy)
    }

    /// The reference value that an unchanged [`SoftwareTee::vtpm_guest`] meets.
    pub fn vtpm_reference_value(&self, tee: Tee) -> ReferenceValue {
        ReferenceValue {
            name: format!("insecure software {tee} through a vTPM"),
            vtpm: Some(vtpm::demands()),
            ..self.reference_value(tee)
        }
    }
}

/// One software TEE for all tests of this crate: its RSA keys take seconds to make.
#[cfg(test)]
pub(crate) mod fixture {
    use std::{
        sync::OnceLock,
        time::{Duration, SystemTime},
    };

    use super::SoftwareTee;

    /// When the fixture was made: 2027-01-15T08:00:00Z.
    pub(crate) fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    pub(crate) fn software_tee() -> &'static SoftwareTee {
        static TEE: OnceLock<SoftwareTee> = OnceLock::new();
        TEE.get_or_init(|| SoftwareTee::generate(now()).expect("generates"))
    }
}
