use contrast_proto::evidence as wire;
use prost::Message;

use crate::{ReportData, Tee, snp, tdx};

const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
const CRL_BYTES_MAX: usize = 64 * 1024;
/// A quote is about 5000 bytes; Intel's own library has room for as many as this.
pub(crate) const QUOTE_BYTES_MAX: usize = 16 * 1024;

/// Evidence of one confidential VM, as it travels. Nothing in it is trusted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// AMD SEV-SNP.
    Snp(SnpEvidence),
    /// Intel TDX.
    Tdx(TdxEvidence),
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
    #[error("evidence holds no kind that this version knows; expected SEV-SNP or TDX")]
    UnknownKind,
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
        }
    }

    /// The report data that the evidence shows; none when it holds no readable report. Not verified.
    pub fn report_data(&self) -> Option<ReportData> {
        match self {
            Self::Snp(evidence) => {
                let report = snp::Report::parse(&evidence.report).ok()?;
                Some(ReportData(report.report_data))
            }
            Self::Tdx(evidence) => tdx::report_data(&evidence.quote),
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
            wire::evidence::Kind::Tdx(tdx) => Ok(Self::Tdx(TdxEvidence {
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
            })),
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
            Self::Tdx(tdx) => wire::evidence::Kind::Tdx(wire::TdxEvidence {
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
            }),
        };
        wire::Evidence { kind: Some(kind) }
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
