//! Collateral as Intel's PCS API version 4 serves it: TCB info version 3 for TDX, QE identity `TD_QE` version 2, CRLs.

use std::time::SystemTime;

use der::DateTime;
use serde_json::{Value, json};

use crate::{TdxCollateral, software::SoftwareTeeError};

use super::{QE_ISV_SVN, TEE_TCB_SVN, TdxCollateralFacts, authority::Authority, profile};

/// The platform's PCEID, 2 bytes.
pub(super) const PCE_ID: [u8; 2] = [0, 0];
/// The platform's FMSPC, 6 bytes.
pub(super) const FMSPC: [u8; 6] = [0x50, 0x80, 0x6f, 0, 0, 0];
/// The platform's PCESVN.
pub(super) const PCE_SVN: u16 = 11;
/// The platform's CPUSVN, equal to its 16 TCB components.
pub(super) const CPU_SVN: [u8; 16] = [5, 5, 2, 2, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0];
/// Hash of the key that signed the "quoting enclave".
pub(super) const QE_MR_SIGNER: [u8; 32] = [0x51; 32];
pub(super) const QE_ISV_PROD_ID: u16 = 2;
/// INIT and MODE64BIT, little endian.
pub(super) const QE_ATTRIBUTES: [u8; 16] = [0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const CURRENT_DATE: &str = "2024-03-13T00:00:00Z";
const OUTDATED_DATE: &str = "2023-02-15T00:00:00Z";
/// Named in the older TCB levels, so that messages show one.
const ADVISORIES: [&str; 1] = ["SOFTWARE-SA-00001"];

/// Signs collateral that says what `facts` say, with `revoked_pck` (DER) on the PCK CRL.
pub(super) fn build(
    authority: &Authority,
    facts: &TdxCollateralFacts,
    revoked_pck: Option<&Vec<u8>>,
) -> Result<TdxCollateral, SoftwareTeeError> {
    let Authority {
        root,
        platform_ca,
        tcb_signing,
        ..
    } = authority;
    let (from, to) = (facts.issue_date, facts.next_update);
    let tcb_info = tcb_info(facts)?.to_string();
    let qe_identity = qe_identity(facts)?.to_string();
    let signer_chain = pem_chain([&tcb_signing.certificate, &root.certificate]);
    let revoked_pck = revoked_pck.map(Vec::as_slice);
    Ok(TdxCollateral {
        pck_crl_issuer_chain: pem_chain([&platform_ca.certificate, &root.certificate]),
        root_ca_crl: profile::crl(root, from, to, None)?,
        pck_crl: profile::crl(platform_ca, from, to, revoked_pck)?,
        tcb_info_issuer_chain: signer_chain.clone(),
        tcb_info_signature: tcb_signing.key.sign_fixed(tcb_info.as_bytes())?,
        tcb_info,
        qe_identity_issuer_chain: signer_chain,
        qe_identity_signature: tcb_signing.key.sign_fixed(qe_identity.as_bytes())?,
        qe_identity,
    })
}

/// Certificates (DER) as PEM, one after the other.
pub(super) fn pem_chain<const N: usize>(certificates: [&Vec<u8>; N]) -> String {
    let blocks = certificates.map(|der| pem::Pem::new("CERTIFICATE", der.as_slice()));
    pem::encode_many(&blocks)
}

fn tcb_info(facts: &TdxCollateralFacts) -> Result<Value, SoftwareTeeError> {
    let (signer, attributes) = ("0".repeat(96), "0".repeat(16));
    let attributes_mask = "F".repeat(16);
    let [current_module, module_version, current_tdx, ..] = TEE_TCB_SVN;
    let level = |tdx: u8| {
        let mut tdx_components = [0_u8; 16];
        tdx_components[2] = tdx;
        json!({
            "sgxtcbcomponents": components(&CPU_SVN),
            "pcesvn": PCE_SVN,
            "tdxtcbcomponents": components(&tdx_components),
        })
    };
    Ok(json!({
        "id": "TDX",
        "version": 3,
        "issueDate": rfc3339(facts.issue_date)?,
        "nextUpdate": rfc3339(facts.next_update)?,
        "fmspc": hex::encode(FMSPC),
        "pceId": hex::encode(facts.pce_id),
        "tcbType": 0,
        "tcbEvaluationDataNumber": facts.tcb_evaluation_data_number,
        "tdxModule": {
            "mrsigner": signer,
            "attributes": attributes,
            "attributesMask": attributes_mask,
        },
        "tdxModuleIdentities": [{
            "id": format!("TDX_{module_version:02X}"),
            "mrsigner": signer,
            "attributes": attributes,
            "attributesMask": attributes_mask,
            "tcbLevels": [
                current(json!({"isvsvn": current_module})),
                outdated(json!({"isvsvn": current_module - 2})),
            ],
        }],
        "tcbLevels": [current(level(current_tdx)), outdated(level(current_tdx - 1))],
    }))
}

fn qe_identity(facts: &TdxCollateralFacts) -> Result<Value, SoftwareTeeError> {
    Ok(json!({
        "id": "TD_QE",
        "version": 2,
        "issueDate": rfc3339(facts.issue_date)?,
        "nextUpdate": rfc3339(facts.next_update)?,
        "tcbEvaluationDataNumber": facts.tcb_evaluation_data_number,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": hex::encode_upper(QE_ATTRIBUTES),
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": hex::encode_upper(QE_MR_SIGNER),
        "isvprodid": QE_ISV_PROD_ID,
        "tcbLevels": [
            current(json!({"isvsvn": QE_ISV_SVN})),
            outdated(json!({"isvsvn": QE_ISV_SVN - 2})),
        ],
    }))
}

fn current(tcb: Value) -> Value {
    json!({"tcb": tcb, "tcbDate": CURRENT_DATE, "tcbStatus": "UpToDate"})
}

fn outdated(tcb: Value) -> Value {
    json!({
        "tcb": tcb,
        "tcbDate": OUTDATED_DATE,
        "tcbStatus": "OutOfDate",
        "advisoryIDs": ADVISORIES,
    })
}

fn components(svns: &[u8; 16]) -> Vec<Value> {
    svns.iter().map(|svn| json!({"svn": svn})).collect()
}

/// RFC 3339 in UTC with whole seconds, as Intel writes times.
fn rfc3339(time: SystemTime) -> Result<String, SoftwareTeeError> {
    let time =
        DateTime::from_system_time(time).map_err(|_| SoftwareTeeError::Time { found: time })?;
    Ok(time.to_string())
}
