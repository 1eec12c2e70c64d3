use dcap_qvl::{
    intel,
    quote::{AuthData, Quote, TDReport10},
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

/// A quote of a TD, well-formed and unverified.
#[derive(Debug)]
pub(super) struct TdQuote {
    report: TDReport10,
    pck_chain: Vec<Vec<u8>>,
}

impl TdQuote {
    /// The fields that TDX 1.0 and 1.5 have in common.
    pub(super) fn td_report(&self) -> &TDReport10 {
        &self.report
    }

    /// The PCK certificate chain that the quote carries, DER, leaf first; empty when it carries none.
    pub(super) fn pck_chain(&self) -> &[Vec<u8>] {
        &self.pck_chain
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
    check_layout(bytes, &quote, checks);
    let pck_chain = match intel::extract_cert_chain(&quote) {
        Ok(chain) => chain,
        Err(error) => {
            checks.fail(
                "PCK certificate",
                PCK_CERTIFICATE_CHAIN,
                format!("{error:#}"),
            );
            Vec::new()
        }
    };
    Some(TdQuote { report, pck_chain })
}

/// Checks what the parser is lenient about: that the signature data has the type that these versions prescribe, and that
/// each length in it is exactly what is there. Bytes after the quote mean nothing and are ignored: interfaces that deliver a
/// quote deliver it in a buffer of their size.
fn check_layout(bytes: &[u8], quote: &Quote, checks: &mut CheckList) {
    let expected = "signature data of type 6, as long as it says";
    let layout = layout(bytes, quote);
    let passed = layout.is_ok();
    let found = layout.map_or_else(
        |problem| problem,
        |length| format!("{length} bytes of type 6"),
    );
    checks.record("quote layout", expected, found, passed);
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
