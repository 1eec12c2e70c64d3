//! Quotes, byte for byte ("Intel TDX DCAP Quoting Library API", appendix A.3 and A.4). Integers are little endian.

use crate::{ReportData, software::SoftwareTeeError};

use super::{
    TdxGuest, TdxQuoteFormat,
    authority::Authority,
    collateral::{CPU_SVN, QE_ATTRIBUTES, QE_ISV_PROD_ID, QE_MR_SIGNER, pem_chain},
    sha256,
};

const ATTESTATION_KEY_ECDSA_P256: u16 = 2;
const TEE_TYPE_TDX: u32 = 0x81;
/// 939a7233-f79c-4ca9-940a-0db3957f0607, Intel's quoting enclave.
const QE_VENDOR_ID: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
/// Body of a version 5 quote: a TDX 1.5 report.
const BODY_TD_REPORT_15: u16 = 3;
const CERTIFICATION_PCK_CHAIN: u16 = 5;
const CERTIFICATION_QE_REPORT: u16 = 6;
const QE_MR_ENCLAVE: [u8; 32] = [0x45; 32];
const QE_AUTHENTICATION_DATA: [u8; 32] = [0x41; 32];

/// A quote of `guest`. `pck` is the PCK certificate, DER.
pub(super) fn build(
    guest: &TdxGuest,
    authority: &Authority,
    pck: &Vec<u8>,
    report_data: &ReportData,
) -> Result<Vec<u8>, SoftwareTeeError> {
    let mut quote = Vec::new();
    let version: u16 = match guest.format {
        TdxQuoteFormat::V4 => 4,
        TdxQuoteFormat::V5 => 5,
    };
    quote.extend(version.to_le_bytes());
    quote.extend(ATTESTATION_KEY_ECDSA_P256.to_le_bytes());
    quote.extend(TEE_TYPE_TDX.to_le_bytes());
    quote.extend([0; 4]);
    quote.extend(QE_VENDOR_ID);
    quote.extend([0; 20]);
    let mut report = td_report(guest, report_data);
    if guest.format == TdxQuoteFormat::V5 {
        report.extend(guest.tee_tcb_svn2.unwrap_or(guest.tee_tcb_svn));
        report.extend(guest.mr_service_td);
        quote.extend(BODY_TD_REPORT_15.to_le_bytes());
        quote.extend(length(&report)?);
    }
    quote.extend(report);
    let signature_data = signature_data(guest, authority, pck, &quote)?;
    quote.extend(length(&signature_data)?);
    quote.extend(signature_data);
    Ok(quote)
}

/// TD report body of TDX 1.0, 584 bytes.
fn td_report(guest: &TdxGuest, report_data: &ReportData) -> Vec<u8> {
    let mut report = Vec::new();
    report.extend(guest.tee_tcb_svn);
    report.extend(guest.mr_seam);
    report.extend([0; 48]); // MRSIGNERSEAM: zero for a module of Intel's
    report.extend([0; 8]); // SEAMATTRIBUTES
    report.extend(guest.td_attributes);
    report.extend(guest.xfam);
    report.extend(guest.mr_td);
    report.extend(guest.mr_config_id);
    report.extend(guest.mr_owner);
    report.extend(guest.mr_owner_config);
    report.extend(guest.rtmrs.as_flattened());
    report.extend(report_data.0);
    report
}

/// The part after the length: quote signature, attestation key, and what certifies that key.
fn signature_data(
    guest: &TdxGuest,
    authority: &Authority,
    pck: &Vec<u8>,
    signed: &[u8],
) -> Result<Vec<u8>, SoftwareTeeError> {
    let attestation_key = authority.attestation.coordinates()?;
    let chain = pem_chain([
        pck,
        &authority.platform_ca.certificate,
        &authority.root.certificate,
    ]);
    let qe_report = qe_report(guest, &attestation_key);

    let mut certification = Vec::new();
    certification.extend(&qe_report);
    let sign = |report: &Vec<u8>| authority.pck.sign_fixed(report);
    certification.extend(authority.kept_qe.get(qe_report, sign)?);
    certification.extend(short_length(&QE_AUTHENTICATION_DATA)?);
    certification.extend(QE_AUTHENTICATION_DATA);
    certification.extend(CERTIFICATION_PCK_CHAIN.to_le_bytes());
    certification.extend(length(chain.as_bytes())?);
    certification.extend(chain.as_bytes());

    let mut data = authority.attestation.sign_fixed(signed)?;
    data.extend(attestation_key);
    data.extend(CERTIFICATION_QE_REPORT.to_le_bytes());
    data.extend(length(&certification)?);
    data.extend(certification);
    Ok(data)
}

/// Report of the "quoting enclave", 384 bytes; its report data binds the attestation key.
fn qe_report(guest: &TdxGuest, attestation_key: &[u8; 64]) -> Vec<u8> {
    let binding = sha256(&[attestation_key.as_slice(), &QE_AUTHENTICATION_DATA].concat());
    let mut report = Vec::new();
    report.extend(CPU_SVN);
    report.extend([0; 4]); // MISCSELECT
    report.extend([0; 28]);
    report.extend(QE_ATTRIBUTES);
    report.extend(QE_MR_ENCLAVE);
    report.extend([0; 32]);
    report.extend(QE_MR_SIGNER);
    report.extend([0; 96]);
    report.extend(QE_ISV_PROD_ID.to_le_bytes());
    report.extend(guest.qe_isv_svn.to_le_bytes());
    report.extend([0; 60]);
    report.extend(binding);
    report.extend([0; 32]);
    report
}

fn length(bytes: &[u8]) -> Result<[u8; 4], SoftwareTeeError> {
    let length = u32::try_from(bytes.len()).map_err(|_| SoftwareTeeError::Crypto {
        action: "state a length in a quote",
    })?;
    Ok(length.to_le_bytes())
}

fn short_length(bytes: &[u8]) -> Result<[u8; 2], SoftwareTeeError> {
    let length = u16::try_from(bytes.len()).map_err(|_| SoftwareTeeError::Crypto {
        action: "state a length in a quote",
    })?;
    Ok(length.to_le_bytes())
}
