//! Writes well-formed inputs, made by the software TEE, to `fuzz/corpus`, so that fuzzing starts behind the first checks.

use std::{
    error::Error,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use contrast_attestation::{
    Evidence, Issuer as _, PolicyHash, ReportData, Tee,
    snp::{CertificateGuid, encode_certificate_table},
    software::SoftwareTee,
    vtpm::{HclReport, TpmQuote},
};

fn main() -> Result<(), Box<dyn Error>> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let tee = SoftwareTee::generate(now)?;
    let crl = tee.snp_crl(true, now, now + Duration::from_secs(86_400))?;
    let data = ReportData([2; 64]);
    for version in 2..=5 {
        let mut guest = tee.snp_guest(PolicyHash([1; 32]));
        guest.version = version;
        let evidence = guest.issue(&data)?;
        if let Evidence::Snp(snp) = &evidence {
            seed("snp_report", version, &snp.report)?;
            seed("vcek_extensions", version, &snp.vek)?;
            for (which, part) in [(0, &snp.vek), (1, &snp.ask), (2, &crl)] {
                seed(
                    "snp_chain",
                    which,
                    &[&[u8::try_from(which)?], part.as_slice()].concat(),
                )?;
            }
            let entries: [(CertificateGuid, &[u8]); 2] = [
                (CertificateGuid::VCEK, &snp.vek),
                (CertificateGuid::CRL, b"list"),
            ];
            seed(
                "certificate_table",
                version,
                &encode_certificate_table(&entries),
            )?;
            seed(
                "hcl_report",
                version,
                &hcl(&snp.report, 2, 1 + version % 3)?,
            )?;
        }
        seed("evidence_frame", version, &evidence.encode())?;
    }
    let evidence = tee.tdx_guest(PolicyHash([1; 32])).issue(&data)?;
    seed("evidence_frame", 0, &evidence.encode())?;
    if let Evidence::Tdx(tdx) = evidence {
        seed("tdx_quote", 4, &tdx.quote)?;
        if let Some(collateral) = tdx.collateral {
            let parts: [&[u8]; 6] = [
                collateral.tcb_info.as_bytes(),
                collateral.qe_identity.as_bytes(),
                &collateral.pck_crl,
                &collateral.root_ca_crl,
                collateral.tcb_info_issuer_chain.as_bytes(),
                collateral.qe_identity_issuer_chain.as_bytes(),
            ];
            for (which, part) in (0..).zip(parts) {
                seed("tcb_info", which, &[&[u8::try_from(which)?], part].concat())?;
            }
        }
    }
    for (number, request) in (0..).zip([
        "/v1/transit/encrypt/a/b\n{\"plaintext\":\"AAEC\",\"associated_data\":\"YWFk\",\"key_version\":\"7\"}",
        "/v1/transit/decrypt/a%2Fb\n{\"batch_input\":[{\"ciphertext\":\"vault:v1:AAAA\",\"reference\":\"r\"}]}",
        "/v1/transit/datakey/wrapped/a/b\n{\"bits\":512}",
        "/v1/transit/hmac/a/b/sha2-512\n{\"input\":\"AAEC\"}",
        "/v1/transit/verify/a/b\n{\"input\":\"\",\"signature\":\"vault:v3:AAAA\",\"marshaling_algorithm\":\"asn1\"}",
        "/v1/transit/random/platform/24\n{\"format\":\"hex\"}",
        "/v1/transit/hash/sha3-256\n{\"input\":\"YWJj\",\"format\":\"base64\"}",
    ]) {
        seed("transit_request", number, request.as_bytes())?;
    }
    let nonce = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    let query = format!("nonce={nonce}&policies=omit");
    seed("attest_request", 0, query.as_bytes())?;
    let body = format!("{{\"nonce\":\"{nonce}=\",\"policies\":\"omit\"}}");
    seed("attest_request", 1, body.as_bytes())?;
    let quote = tpm_quote();
    TpmQuote::parse(&quote)?;
    seed("tpm_quote", 0, &quote)?;
    for (number, kind) in (10..).zip([Tee::Snp, Tee::Tdx]) {
        let evidence = tee.vtpm_guest(kind, PolicyHash([1; 32]))?.issue(&data)?;
        seed("evidence_frame", number, &evidence.encode())?;
        if let Evidence::Vtpm(vtpm) = evidence {
            seed("hcl_report", number, &vtpm.hcl_report)?;
            seed("tpm_quote", number, &vtpm.tpm_quote)?;
            let quote = [
                sized(&vtpm.tpm_quote),
                vec![0, 0x14, 0, 0x0B],
                sized(&vtpm.tpm_signature),
            ]
            .concat();
            let length = u32::try_from(quote.len())?.to_be_bytes();
            let body = [length.as_slice(), &quote, &[0; 5]].concat();
            seed("tpm_response", number, &response(0x8002, &body))?;
            let mut body = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 0x0B, 3, 0x10, 1, 0, 0, 0, 0, 2];
            body.extend(vtpm.pcr_values.iter().flat_map(|value| sized(value)));
            seed("tpm_response", number + 10, &response(0x8001, &body))?;
        }
    }
    Ok(())
}

fn seed(target: &str, number: u32, bytes: &[u8]) -> std::io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(format!("seed-{number}")), bytes)
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

fn response(tag: u16, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len() + 10).unwrap_or(u32::MAX);
    let mut bytes = tag.to_be_bytes().to_vec();
    bytes.extend(size.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

fn hcl(report: &[u8], report_type: u32, hash_type: u32) -> Result<Vec<u8>, Box<dyn Error>> {
    let json =
        br#"{"keys":[{"kid":"HCLAkPub","kty":"RSA","e":"AQAB","n":"AQAB"}],"user-data":"00"}"#;
    let mut bytes = b"HCLA".to_vec();
    bytes.resize(32, 0);
    bytes.extend(report);
    let length = u32::try_from(json.len())?;
    for word in [20 + length, 1, report_type, hash_type, length] {
        bytes.extend(u32::to_le_bytes(word));
    }
    bytes.extend(json);
    HclReport::parse(&bytes)?;
    Ok(bytes)
}

fn tpm_quote() -> Vec<u8> {
    let mut quote = vec![0xff, 0x54, 0x43, 0x47, 0x80, 0x18, 0, 1, 7, 0, 2, 8, 9];
    quote.resize(quote.len() + 25, 0);
    quote.extend([0, 0, 0, 1, 0, 0x0B, 3, 1, 1, 0, 0, 2, 3, 4]);
    quote
}
