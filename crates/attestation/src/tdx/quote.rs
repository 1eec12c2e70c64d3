use aws_lc_rs::{
    digest::{self, SHA256},
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use dcap_qvl::{
    intel,
    quote::{AuthData, Quote, TDReport10, TDReport15},
};

use crate::CheckList;

/// Certification data type 5: the PCK certificate chain as PEM, leaf first.
const PCK_CERTIFICATE_CHAIN: &str = "certification data of type 5 (PCK certificate chain)";

/// Certification data type 6: the quoting enclave's report and what certifies it.
const QE_REPORT_CERTIFICATION: u16 = 6;
/// QE report (384), its signature (64), two lengths (2, 4) and a type (2), without what has a variable length.
const QE_REPORT_CERTIFICATION_BYTES: usize = 456;
/// Quote signature (64), attestation key (64), a type (2) and a length (4).
const AUTHENTICATION_BYTES: usize = 134;

/// Where the fields that are the guest's alone start in a TD report: MRTD, MRCONFIGID, MROWNER, MROWNERCONFIG, RTMR0 to RTMR3
/// and REPORTDATA ("Intel TDX DCAP Quoting Library API", A.3.2).
const GUEST_FIELDS: usize = 136;
/// Where they end: the size of a TD report of TDX 1.0.
const GUEST_FIELDS_END: usize = 584;
/// ECDSA P-256 signature, r || s.
const SIGNATURE_BYTES: usize = 64;
/// A TD report of TDX 1.5: that of 1.0, TEE_TCB_SVN_2 (16) and MRSERVICETD (48).
const TD_REPORT_15_BYTES: usize = GUEST_FIELDS_END + 16 + 48;
/// SEC 1 section 2.3.3: an uncompressed point is 04 || x || y.
const UNCOMPRESSED_POINT: u8 = 4;

/// A quote of a TD, well-formed and unverified.
#[derive(Debug)]
pub(super) struct TdQuote {
    quote: Quote,
    report: TDReport10,
    /// Bytes from the start that mean something; known when the layout is exact.
    length: Option<usize>,
}

impl TdQuote {
    /// Version of the quote's format.
    pub(super) fn version(&self) -> u16 {
        self.quote.header.version
    }

    /// The fields that TDX 1.0 and 1.5 have in common.
    pub(super) fn td_report(&self) -> &TDReport10 {
        &self.report
    }

    /// The whole report of TDX 1.5; none for one of TDX 1.0.
    pub(super) fn td_report_15(&self) -> Option<&TDReport15> {
        self.quote.report.as_td15()
    }

    /// The PCK certificate chain that the quote carries, DER, leaf first; empty, with a failed check, when it carries none.
    pub(super) fn pck_chain(&self, checks: &mut CheckList) -> Vec<Vec<u8>> {
        intel::extract_cert_chain(&self.quote).unwrap_or_else(|error| {
            checks.fail(
                "PCK certificate",
                PCK_CERTIFICATE_CHAIN,
                format!("{error:#}"),
            );
            Vec::new()
        })
    }

    /// SHA-256 over `root` and over every byte of the quote, except the fields that are the guest's alone, the quote signature
    /// and what follows the quote. Two quotes with the same fingerprint differ in nothing but that. None when the layout is
    /// not exact.
    pub(super) fn platform(&self, bytes: &[u8], root: &[u8; 32]) -> Option<[u8; 32]> {
        let signed = self.quote.signed_length();
        let body = self.body_offset()?;
        let parts = [
            bytes.get(..body.checked_add(GUEST_FIELDS)?)?,
            bytes.get(body.checked_add(GUEST_FIELDS_END)?..signed)?,
            // The length of the signature data (4 bytes), then the signature.
            bytes.get(signed..signed.checked_add(4)?)?,
            bytes.get(signed.checked_add(4 + SIGNATURE_BYTES)?..self.length?)?,
        ];
        let mut context = digest::Context::new(&SHA256);
        context.update(root);
        for part in parts {
            // Each after its length, so that no two ways of cutting the same bytes collide.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.finish().as_ref().try_into().ok()
    }

    /// Whether the attestation key in the quote signed header and TD report.
    pub(super) fn is_signed_by_its_key(&self, bytes: &[u8]) -> bool {
        let AuthData::V4(auth) = &self.quote.auth_data else {
            return false;
        };
        let mut point = [UNCOMPRESSED_POINT; 65];
        for (to, from) in point.iter_mut().skip(1).zip(auth.ecdsa_attestation_key) {
            *to = from;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        let signed = bytes.get(..self.quote.signed_length());
        signed.is_some_and(|signed| key.verify(signed, &auth.ecdsa_signature).is_ok())
    }

    /// Where the TD report starts: what is signed ends with it.
    fn body_offset(&self) -> Option<usize> {
        let report = match &self.quote.report {
            dcap_qvl::quote::Report::TD10(_) => GUEST_FIELDS_END,
            dcap_qvl::quote::Report::TD15(_) => TD_REPORT_15_BYTES,
            // Reports of enclaves and of later modules are verified from scratch each time.
            _ => return None,
        };
        self.quote.signed_length().checked_sub(report)
    }
}

/// Parses a quote of version 4 or 5; `None` and a failed check when it is none.
pub(super) fn parse(bytes: &[u8], checks: &mut CheckList) -> Option<TdQuote> {
    const FIELD: &str = "quote";
    const EXPECTED: &str = "a TDX quote of version 4 or 5";
    let quote = match Quote::parse(bytes) {
        Ok(quote) => quote,
        Err(error) => {
            checks.fail(FIELD, EXPECTED, format!("{} bytes: {error:#}", bytes.len()));
            return None;
        }
    };
    let version = quote.header.version;
    let Some(report) = quote.report.as_td10().copied() else {
        checks.fail(
            FIELD,
            EXPECTED,
            format!("an SGX quote of version {version}"),
        );
        return None;
    };
    checks.record(FIELD, EXPECTED, format!("version {version}"), true);
    let length = check_layout(bytes, &quote, checks);
    Some(TdQuote {
        quote,
        report,
        length,
    })
}

/// Checks what the parser is lenient about: that the signature data has the type that these versions prescribe, and that
/// each length in it is exactly what is there. Bytes after the quote mean nothing and are ignored: interfaces that deliver a
/// quote deliver it in a buffer of their size. Returns the quote's length.
fn check_layout(bytes: &[u8], quote: &Quote, checks: &mut CheckList) -> Option<usize> {
    const FIELD: &str = "quote layout";
    const EXPECTED: &str = "signature data of type 6, as long as it says";
    match layout(bytes, quote) {
        Ok(length) => {
            checks.record(FIELD, EXPECTED, format!("{length} bytes of type 6"), true);
            // The length of the signature data (u32) stands between the signed part and it.
            quote.signed_length().checked_add(length)?.checked_add(4)
        }
        Err(problem) => {
            checks.fail(FIELD, EXPECTED, problem);
            None
        }
    }
}

/// The length of the signature data, or what is wrong with it.
fn layout(bytes: &[u8], quote: &Quote) -> Result<usize, String> {
    let AuthData::V4(auth) = &quote.auth_data else {
        return Err("signature data of a version 3 quote".to_owned());
    };
    let outer = &auth.certification_data;
    if outer.cert_type != QE_REPORT_CERTIFICATION {
        return Err(format!("signature data of type {}", outer.cert_type));
    }
    let inner = &auth.qe_report_data;
    let inner_bytes = QE_REPORT_CERTIFICATION_BYTES
        .saturating_add(inner.qe_auth_data.data.len())
        .saturating_add(inner.certification_data.body.data.len());
    if outer.body.data.len() != inner_bytes {
        return Err(format!(
            "certification data of {} bytes that states {}",
            inner_bytes,
            outer.body.data.len()
        ));
    }
    let auth_bytes = AUTHENTICATION_BYTES.saturating_add(outer.body.data.len());
    // The length of the signature data (u32, little endian) follows the signed part.
    let rest = bytes
        .get(quote.signed_length()..)
        .and_then(<[u8]>::split_first_chunk::<4>);
    let (stated, rest) = rest.ok_or("no signature data")?;
    let stated = u32::from_le_bytes(*stated);
    if usize::try_from(stated) != Ok(auth_bytes) {
        return Err(format!(
            "signature data of {auth_bytes} bytes that states {stated}"
        ));
    }
    match rest.len() < auth_bytes {
        true => Err("signature data beyond the end".to_owned()),
        false => Ok(auth_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let mut checks = CheckList::default();
            let parsed = parse(&bytes, &mut checks);
            prop_assert!(parsed.is_some() || !checks.passed());
        }

        #[test]
        fn arbitrary_bytes_behind_a_td_header_never_panic(
            version in 3_u16..7,
            body in proptest::collection::vec(any::<u8>(), 0..2048),
        ) {
            let mut bytes = vec![0; 48];
            bytes[..2].copy_from_slice(&version.to_le_bytes());
            bytes[2] = 2;
            bytes[4] = 0x81;
            bytes.extend(body);
            let mut checks = CheckList::default();
            let parsed = parse(&bytes, &mut checks);
            prop_assert!(parsed.is_some() || !checks.passed());
        }
    }
}
