use contrast_proto::evidence as wire;
use prost::Message;

use crate::{
    ReportData, SnpCertificates, Tee, VtpmEvidence, VtpmHardware, snp, tdx, vtpm::HCL_BYTES_MAX,
};

const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
const CRL_BYTES_MAX: usize = 64 * 1024;
/// A quote is about 5000 bytes; Intel's own library has room for as many as this.
pub(crate) const QUOTE_BYTES_MAX: usize = 16 * 1024;
/// TPMS_ATTEST of a quote has at most 200 bytes or so; a signature by an RSA-8192 key has 1024.
const TPM_BYTES_MAX: usize = 1024;
/// PCRs that one selection can name: TPMs have 24.
const PCRS_MAX: usize = 32;

/// Evidence of one confidential VM, as it travels. Nothing in it is trusted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// AMD SEV-SNP.
    Snp(SnpEvidence),
    /// Intel TDX.
    Tdx(TdxEvidence),
    /// SEV-SNP or TDX below a paravisor with a virtual TPM.
    Vtpm(VtpmEvidence),
}

/// An SEV-SNP attestation report with its certificates; sizes and encodings as in `evidence.proto`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnpEvidence {
    /// ATTESTATION_REPORT, 1184 bytes.
    pub report: Vec<u8>,
    /// VCEK or VLEK, DER.
    pub vek: Vec<u8>,
    /// ASK or ASVK, DER.
    pub ask: Vec<u8>,
    /// ARK, DER.
    pub ark: Vec<u8>,
    /// CRL signed by the ARK, DER; empty when the attester had none.
    pub crl: Vec<u8>,
}

/// A TDX quote with the collateral that the attester could fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TdxEvidence {
    /// Quote, version 4 or 5.
    pub quote: Vec<u8>,
    /// Collateral for the quote's platform.
    pub collateral: Option<TdxCollateral>,
}

/// What Intel publishes for one platform; encodings as in `evidence.proto`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TdxCollateral {
    /// PEM chain of the PCK CRL's issuer, leaf first.
    pub pck_crl_issuer_chain: String,
    /// Root CA CRL, DER.
    pub root_ca_crl: Vec<u8>,
    /// PCK CRL, DER.
    pub pck_crl: Vec<u8>,
    /// PEM chain of the TCB info's signer, leaf first.
    pub tcb_info_issuer_chain: String,
    /// The signed `tcbInfo` JSON, exact bytes.
    pub tcb_info: String,
    /// Signature over `tcb_info`, r || s, 64 bytes.
    pub tcb_info_signature: Vec<u8>,
    /// PEM chain of the QE identity's signer, leaf first.
    pub qe_identity_issuer_chain: String,
    /// The signed `enclaveIdentity` JSON, exact bytes.
    pub qe_identity: String,
    /// Signature over `qe_identity`, r || s, 64 bytes.
    pub qe_identity_signature: Vec<u8>,
}

/// Bytes that are no evidence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceFormatError {
    /// Not the protobuf message `contrast.v1.evidence.Evidence`.
    #[error("evidence is not a valid protobuf message")]
    NotProtobuf(#[source] prost::DecodeError),
    /// No kind that this version knows.
    #[error(
        "evidence holds no kind that this version knows; expected SEV-SNP, TDX, or either of them through a vTPM"
    )]
    UnknownKind,
    /// A PCR value that is no SHA-256 digest.
    #[error("pcr_values[{index}] has {found} bytes, expected 32 (SHA-256)")]
    PcrValue {
        /// Its position, from 0.
        index: usize,
        /// Its size in bytes.
        found: usize,
    },
    /// More PCR values than a quote can cover.
    #[error("evidence has {found} PCR values, expected at most {PCRS_MAX}")]
    PcrCount {
        /// How many.
        found: usize,
    },
    /// A part is larger than its kind ever is.
    #[error("{field} has {found} bytes, expected at most {limit}")]
    TooLarge {
        /// The part.
        field: &'static str,
        /// Its limit in bytes.
        limit: usize,
        /// Its size in bytes.
        found: usize,
    },
}

impl Evidence {
    /// The TEE that this evidence claims to come from.
    pub fn tee(&self) -> Tee {
        match self {
            Self::Snp(_) => Tee::Snp,
            Self::Tdx(_) => Tee::Tdx,
            Self::Vtpm(evidence) => evidence.hardware.tee(),
        }
    }

    /// The report data that the evidence shows; none when it holds no readable report, and none for vTPM evidence, whose
    /// quote shows only the hash of its report data. Not verified.
    pub fn report_data(&self) -> Option<ReportData> {
        match self {
            Self::Snp(evidence) => {
                let report = snp::Report::parse(&evidence.report).ok()?;
                Some(ReportData(report.report_data))
            }
            Self::Tdx(evidence) => tdx::report_data(&evidence.quote),
            Self::Vtpm(_) => None,
        }
    }

    /// Encodes as protobuf message `contrast.v1.evidence.Evidence`.
    pub fn encode(&self) -> Vec<u8> {
        self.to_wire().encode_to_vec()
    }

    /// Decodes a protobuf message `contrast.v1.evidence.Evidence`.
    ///
    /// # Errors
    /// When the bytes are no such message, hold an unknown kind, or a part exceeds its size limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceFormatError> {
        let message = wire::Evidence::decode(bytes).map_err(EvidenceFormatError::NotProtobuf)?;
        match message.kind.ok_or(EvidenceFormatError::UnknownKind)? {
            wire::evidence::Kind::Snp(snp) => Ok(Self::Snp(SnpEvidence {
                report: limited("report", &snp.report, CERTIFICATE_BYTES_MAX)?,
                vek: limited("vek", &snp.vek, CERTIFICATE_BYTES_MAX)?,
                ask: limited("ask", &snp.ask, CERTIFICATE_BYTES_MAX)?,
                ark: limited("ark", &snp.ark, CERTIFICATE_BYTES_MAX)?,
                crl: limited("crl", &snp.crl, CRL_BYTES_MAX)?,
            })),
            wire::evidence::Kind::Tdx(tdx) => Ok(Self::Tdx(tdx_from_wire(tdx)?)),
            wire::evidence::Kind::Vtpm(vtpm) => Ok(Self::Vtpm(vtpm_from_wire(vtpm)?)),
        }
    }

    fn to_wire(&self) -> wire::Evidence {
        let kind = match self.clone() {
            Self::Snp(snp) => wire::evidence::Kind::Snp(wire::SnpEvidence {
                report: snp.report.into(),
                vek: snp.vek.into(),
                ask: snp.ask.into(),
                ark: snp.ark.into(),
                crl: snp.crl.into(),
            }),
            Self::Tdx(tdx) => wire::evidence::Kind::Tdx(tdx_to_wire(tdx)),
            Self::Vtpm(vtpm) => wire::evidence::Kind::Vtpm(vtpm_to_wire(vtpm)),
        };
        wire::Evidence { kind: Some(kind) }
    }
}

fn tdx_from_wire(tdx: wire::TdxEvidence) -> Result<TdxEvidence, EvidenceFormatError> {
    Ok(TdxEvidence {
        quote: limited("quote", &tdx.quote, QUOTE_BYTES_MAX)?,
        collateral: tdx.collateral.map(|collateral| TdxCollateral {
            pck_crl_issuer_chain: collateral.pck_crl_issuer_chain,
            root_ca_crl: collateral.root_ca_crl.into(),
            pck_crl: collateral.pck_crl.into(),
            tcb_info_issuer_chain: collateral.tcb_info_issuer_chain,
            tcb_info: collateral.tcb_info,
            tcb_info_signature: collateral.tcb_info_signature.into(),
            qe_identity_issuer_chain: collateral.qe_identity_issuer_chain,
            qe_identity: collateral.qe_identity,
            qe_identity_signature: collateral.qe_identity_signature.into(),
        }),
    })
}

fn tdx_to_wire(tdx: TdxEvidence) -> wire::TdxEvidence {
    wire::TdxEvidence {
        quote: tdx.quote.into(),
        collateral: tdx.collateral.map(|collateral| wire::TdxCollateral {
            pck_crl_issuer_chain: collateral.pck_crl_issuer_chain,
            root_ca_crl: collateral.root_ca_crl.into(),
            pck_crl: collateral.pck_crl.into(),
            tcb_info_issuer_chain: collateral.tcb_info_issuer_chain,
            tcb_info: collateral.tcb_info,
            tcb_info_signature: collateral.tcb_info_signature.into(),
            qe_identity_issuer_chain: collateral.qe_identity_issuer_chain,
            qe_identity: collateral.qe_identity,
            qe_identity_signature: collateral.qe_identity_signature.into(),
        }),
    }
}

fn vtpm_from_wire(vtpm: wire::VtpmEvidence) -> Result<VtpmEvidence, EvidenceFormatError> {
    let hardware = match vtpm.hardware.ok_or(EvidenceFormatError::UnknownKind)? {
        wire::vtpm_evidence::Hardware::Snp(snp) => VtpmHardware::Snp(SnpCertificates {
            vek: limited("vek", &snp.vek, CERTIFICATE_BYTES_MAX)?,
            ask: limited("ask", &snp.ask, CERTIFICATE_BYTES_MAX)?,
            ark: limited("ark", &snp.ark, CERTIFICATE_BYTES_MAX)?,
            crl: limited("crl", &snp.crl, CRL_BYTES_MAX)?,
        }),
        wire::vtpm_evidence::Hardware::Tdx(tdx) => VtpmHardware::Tdx(tdx_from_wire(tdx)?),
    };
    if vtpm.pcr_values.len() > PCRS_MAX {
        let found = vtpm.pcr_values.len();
        return Err(EvidenceFormatError::PcrCount { found });
    }
    let values = vtpm.pcr_values.iter().enumerate();
    let values = values.map(|(index, value)| {
        <[u8; 32]>::try_from(value.as_ref()).map_err(|_| EvidenceFormatError::PcrValue {
            index,
            found: value.len(),
        })
    });
    Ok(VtpmEvidence {
        hcl_report: limited("hcl_report", &vtpm.hcl_report, HCL_BYTES_MAX)?,
        hardware,
        tpm_quote: limited("tpm_quote", &vtpm.tpm_quote, TPM_BYTES_MAX)?,
        tpm_signature: limited("tpm_signature", &vtpm.tpm_signature, TPM_BYTES_MAX)?,
        pcr_values: values.collect::<Result<_, _>>()?,
    })
}

fn vtpm_to_wire(vtpm: VtpmEvidence) -> wire::VtpmEvidence {
    let hardware = match vtpm.hardware {
        VtpmHardware::Snp(snp) => wire::vtpm_evidence::Hardware::Snp(wire::SnpCertificates {
            vek: snp.vek.into(),
            ask: snp.ask.into(),
            ark: snp.ark.into(),
            crl: snp.crl.into(),
        }),
        VtpmHardware::Tdx(tdx) => wire::vtpm_evidence::Hardware::Tdx(tdx_to_wire(tdx)),
    };
    let values = vtpm.pcr_values.into_iter();
    wire::VtpmEvidence {
        hcl_report: vtpm.hcl_report.into(),
        hardware: Some(hardware),
        tpm_quote: vtpm.tpm_quote.into(),
        tpm_signature: vtpm.tpm_signature.into(),
        pcr_values: values.map(|value| value.to_vec().into()).collect(),
    }
}

fn limited(
    field: &'static str,
    bytes: &[u8],
    limit: usize,
) -> Result<Vec<u8>, EvidenceFormatError> {
    match bytes.len() {
        found if found > limit => Err(EvidenceFormatError::TooLarge {
            field,
            limit,
            found,
        }),
        _ => Ok(bytes.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_survives_the_wire() {
        let evidence = Evidence::Tdx(TdxEvidence {
            quote: vec![4; 600],
            collateral: Some(TdxCollateral {
                tcb_info: "{}".into(),
                tcb_info_signature: vec![1; 64],
                ..TdxCollateral::default()
            }),
        });
        assert_eq!(
            Evidence::decode(&evidence.encode()).expect("decodes"),
            evidence
        );
    }

    #[test]
    fn vtpm_evidence_survives_the_wire() {
        for hardware in [
            VtpmHardware::Snp(SnpCertificates {
                vek: vec![1; 10],
                ask: vec![2; 10],
                ark: vec![3; 10],
                crl: vec![4; 10],
            }),
            VtpmHardware::Tdx(TdxEvidence {
                quote: vec![4; 600],
                collateral: Some(TdxCollateral::default()),
            }),
        ] {
            let evidence = Evidence::Vtpm(VtpmEvidence {
                hcl_report: vec![5; 1300],
                hardware,
                tpm_quote: vec![6; 100],
                tpm_signature: vec![7; 256],
                pcr_values: vec![[8; 32], [9; 32]],
            });
            assert_eq!(
                Evidence::decode(&evidence.encode()).expect("decodes"),
                evidence
            );
        }
    }

    #[test]
    fn a_vtpm_part_of_a_wrong_size_is_named() {
        let message = |change: fn(&mut wire::VtpmEvidence)| {
            let mut vtpm = wire::VtpmEvidence {
                hardware: Some(wire::vtpm_evidence::Hardware::Snp(
                    wire::SnpCertificates::default(),
                )),
                ..wire::VtpmEvidence::default()
            };
            change(&mut vtpm);
            let kind = Some(wire::evidence::Kind::Vtpm(vtpm));
            Evidence::decode(&wire::Evidence { kind }.encode_to_vec()).map(drop)
        };
        assert!(message(|_| ()).is_ok());
        for (change, expected) in [
            (
                (|vtpm| vtpm.pcr_values = vec![vec![0; 32].into(), vec![0; 20].into()])
                    as fn(&mut wire::VtpmEvidence),
                "pcr_values[1] has 20 bytes, expected 32 (SHA-256)",
            ),
            (
                |vtpm| vtpm.pcr_values = vec![vec![0; 32].into(); 33],
                "evidence has 33 PCR values, expected at most 32",
            ),
            (
                |vtpm| vtpm.hcl_report = vec![0; 65537].into(),
                "hcl_report has 65537 bytes, expected at most 65536",
            ),
            (
                |vtpm| vtpm.tpm_quote = vec![0; 1025].into(),
                "tpm_quote has 1025 bytes, expected at most 1024",
            ),
            (
                |vtpm| vtpm.tpm_signature = vec![0; 1025].into(),
                "tpm_signature has 1025 bytes, expected at most 1024",
            ),
            (
                |vtpm| vtpm.hardware = None,
                "evidence holds no kind that this version knows; expected SEV-SNP, TDX, or either of them through a vTPM",
            ),
        ] {
            assert_eq!(message(change).expect_err("refused").to_string(), expected);
        }
    }

    #[test]
    fn oversized_part_is_named() {
        let evidence = Evidence::Snp(SnpEvidence {
            vek: vec![0; 20_000],
            ..SnpEvidence::default()
        });
        let error = Evidence::decode(&evidence.encode())
            .expect_err("too large")
            .to_string();
        assert_eq!(error, "vek has 20000 bytes, expected at most 16384");
    }

    #[test]
    fn empty_message_is_no_evidence() {
        assert!(matches!(
            Evidence::decode(&[]),
            Err(EvidenceFormatError::UnknownKind)
        ));
    }
}
