//! The TDX side of the software TEE: its own "Intel" (certificates, collateral) and guests that emit quotes.
//!
//! The authority's directory holds four private keys (PKCS#8) and the three certificates that stay the same:
//!
//! | file | content |
//! | --- | --- |
//! | `tdx-root-ca.{key,crt}.pem` | root, in place of the Intel SGX Root CA |
//! | `tdx-platform-ca.{key,crt}.pem` | issuer of PCK certificates |
//! | `tdx-tcb-signing.{key,crt}.pem` | signer of TCB info and QE identity |
//! | `tdx-pck.key.pem` | the platform's certification key |
//!
//! Everything else (PCK certificate, CRLs, TCB info, QE identity, attestation key) is made from those when the first quote asks
//! for it, and again when a guest has other facts, so that each guest can vary it, and so that a directory keeps working as
//! long as its certificates: ten years.

mod authority;
mod collateral;
mod kept;
mod profile;
mod quote;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, SHA384, digest};

use crate::{
    Evidence, IssueError, Issuer, PolicyHash, ReportData, TdxEvidence,
    appraisal::{TdxDemands, TdxTcbPolicy},
};

use self::authority::Authority;
use super::SoftwareTeeError;

/// TDX module 1.5 (version 3) at ISVSVN 5; the other components are those of the current level in the TCB info.
const TEE_TCB_SVN: [u8; 16] = [5, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// SEPT_VE_DISABLE (bit 28), which every TD must have; little endian.
const TD_ATTRIBUTES: [u8; 8] = [0, 0, 0, 0x10, 0, 0, 0, 0];
/// x87, SSE, AVX, AVX-512, PKRU, AMX; little endian.
const XFAM: [u8; 8] = [0xe7, 0x02, 0x06, 0, 0, 0, 0, 0];
/// The ISVSVN that the QE identity calls up to date.
const QE_ISV_SVN: u16 = 4;
const TCB_EVALUATION_DATA_NUMBER: u32 = 17;

/// A software "Intel" with one platform.
#[derive(Debug, Clone)]
pub(super) struct TdxPlatform(Arc<Authority>);

impl TdxPlatform {
    /// New keys and certificates, valid from an hour before `now` for ten years.
    pub(super) fn generate(now: SystemTime) -> Result<Self, SoftwareTeeError> {
        Ok(Self(Arc::new(Authority::generate(now)?)))
    }

    /// Writes keys and certificates to `dir`; files get mode 0600.
    pub(super) fn save(&self, dir: &Path) -> Result<(), SoftwareTeeError> {
        self.0.save(dir)
    }

    /// Reads what [`Self::save`] wrote.
    pub(super) fn open(dir: &Path) -> Result<Self, SoftwareTeeError> {
        Ok(Self(Arc::new(Authority::open(dir)?)))
    }

    /// SHA-256 of the root certificate's DER.
    pub(super) fn root_sha256(&self) -> [u8; 32] {
        sha256(&self.0.root.certificate)
    }

    /// A guest that was started with `policy` and meets [`Self::demands`].
    pub(super) fn guest(&self, policy: PolicyHash) -> TdxGuest {
        let mut mr_config_id = [0; 48];
        mr_config_id[..32].copy_from_slice(&policy.0);
        let demands = Self::demands();
        TdxGuest {
            format: TdxQuoteFormat::V4,
            mr_td: demands.mr_td,
            mr_seam: demands.mr_seam,
            mr_config_id,
            mr_owner: demands.mr_owner,
            mr_owner_config: demands.mr_owner_config,
            rtmrs: demands.rtmrs,
            td_attributes: TD_ATTRIBUTES,
            xfam: demands.xfam,
            tee_tcb_svn: TEE_TCB_SVN,
            tee_tcb_svn2: None,
            mr_service_td: [0; 48],
            qe_isv_svn: QE_ISV_SVN,
            pck: TdxPck {
                instance_id: Some(self.0.instance_id()),
                sgx_type: 2,
                dynamic_platform: false,
                smt_enabled: false,
                revoked: false,
            },
            collateral: Some(TdxCollateralFacts {
                issue_date: self.0.valid_from,
                next_update: self.0.valid_to,
                tcb_evaluation_data_number: TCB_EVALUATION_DATA_NUMBER,
                pce_id: collateral::PCE_ID,
            }),
            authority: Arc::clone(&self.0),
        }
    }

    /// What the default guest meets.
    pub(super) fn demands() -> TdxDemands {
        TdxDemands {
            mr_td: label_hash("software TDX MRTD"),
            mr_seam: label_hash("software TDX MRSEAM"),
            rtmrs: [
                label_hash("software TDX RTMR0"),
                label_hash("software TDX RTMR1"),
                label_hash("software TDX RTMR2"),
                [0; 48],
            ],
            rtmr0_alternatives: Vec::new(),
            rtmr0_by_vcpus: Default::default(),
            xfam: XFAM,
            allowed_piids: Vec::new(),
            memory_integrity: true,
            smt_disabled: true,
            static_platform: true,
            min_tcb_evaluation_data_number: TCB_EVALUATION_DATA_NUMBER,
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            tcb_policy: TdxTcbPolicy::default(),
        }
    }
}

/// Layout of the quotes that a software guest emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TdxQuoteFormat {
    /// Quote version 4 with a TDX 1.0 report, 584 bytes.
    V4,
    /// Quote version 5 with a TDX 1.5 report, 648 bytes.
    V5,
}

/// What the PCK certificate says about the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxPck {
    /// Platform instance id, 16 bytes; `None` leaves the extension out, as Intel's Processor CA does.
    pub instance_id: Option<[u8; 16]>,
    /// SGX type: 0 standard, 1 scalable, 2 scalable with integrity.
    pub sgx_type: u8,
    /// Whether packages may be added after registration.
    pub dynamic_platform: bool,
    /// Whether SMT is on.
    pub smt_enabled: bool,
    /// Whether the PCK CRL lists the certificate. Takes collateral to be seen.
    pub revoked: bool,
}

/// What the collateral says beside its fixed TCB levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdxCollateralFacts {
    /// `issueDate` of TCB info and QE identity, `thisUpdate` of both CRLs.
    pub issue_date: SystemTime,
    /// `nextUpdate` of TCB info, QE identity and both CRLs.
    pub next_update: SystemTime,
    /// `tcbEvaluationDataNumber` of TCB info and QE identity.
    pub tcb_evaluation_data_number: u32,
    /// `pceId` of the TCB info; the platform's is 0000.
    pub pce_id: [u8; 2],
}

/// A TD of the software TEE. Its fields are what its quotes say, so that tests can emit evidence that must be refused.
///
/// Two TCB levels are published. Current is a `tee_tcb_svn` of at least 5 in its first byte (ISVSVN of the TDX module, whose
/// version 3 is the second byte) and 2 in its third, with a `qe_isv_svn` of at least 4. Anything older, down to 3, 1 and 2,
/// is `OutOfDate`.
#[derive(Debug, Clone)]
pub struct TdxGuest {
    /// Layout of the quote.
    pub format: TdxQuoteFormat,
    /// MRTD, SHA-384.
    pub mr_td: [u8; 48],
    /// MRSEAM, SHA-384.
    pub mr_seam: [u8; 48],
    /// MRCONFIGID: policy hash (32 bytes), then zeros.
    pub mr_config_id: [u8; 48],
    /// MROWNER.
    pub mr_owner: [u8; 48],
    /// MROWNERCONFIG.
    pub mr_owner_config: [u8; 48],
    /// RTMR0 to RTMR3, SHA-384 each.
    pub rtmrs: [[u8; 48]; 4],
    /// TD ATTRIBUTES, little endian; bit 0 is debug.
    pub td_attributes: [u8; 8],
    /// XFAM, little endian.
    pub xfam: [u8; 8],
    /// TEE_TCB_SVN.
    pub tee_tcb_svn: [u8; 16],
    /// TEE_TCB_SVN_2, which only a report of TDX 1.5 has; `None` for the same as TEE_TCB_SVN.
    pub tee_tcb_svn2: Option<[u8; 16]>,
    /// MRSERVICETD, which only a report of TDX 1.5 has; zero without service TD.
    pub mr_service_td: [u8; 48],
    /// ISVSVN of the quoting enclave.
    pub qe_isv_svn: u16,
    /// What the PCK certificate says.
    pub pck: TdxPck,
    /// The collateral; `None` for a guest that could not fetch any.
    pub collateral: Option<TdxCollateralFacts>,
    authority: Arc<Authority>,
}

impl Issuer for TdxGuest {
    fn issue(&self, report_data: &ReportData) -> Result<Evidence, IssueError> {
        let evidence = self.evidence(report_data).map_err(|error| IssueError {
            tee: "software TDX",
            reason: error.to_string(),
        })?;
        Ok(Evidence::Tdx(evidence))
    }
}

impl TdxGuest {
    fn evidence(&self, report_data: &ReportData) -> Result<TdxEvidence, SoftwareTeeError> {
        let authority = &self.authority;
        let pck = authority
            .kept_pck
            .get(self.pck.clone(), |facts| authority.pck_certificate(facts))?;
        let quote = quote::build(self, authority, &pck, report_data)?;
        let collateral = self.collateral.clone().map(|facts| {
            let revoked = self.pck.revoked.then_some(pck);
            authority
                .kept_collateral
                .get((facts, revoked), |(facts, revoked)| {
                    collateral::build(authority, facts, revoked.as_ref())
                })
        });
        let collateral = collateral.transpose()?;
        Ok(TdxEvidence { quote, collateral })
    }
}

fn sha256(data: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, data).as_ref());
    hash
}

/// A value that looks like a measurement and is the same in every software TEE.
fn label_hash(label: &str) -> [u8; 48] {
    let mut hash = [0; 48];
    hash.copy_from_slice(digest(&SHA384, label.as_bytes()).as_ref());
    hash
}

const HOUR: Duration = Duration::from_secs(3600);
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
