use super::{CertificateGuid, CertificateTable, REPORT_BYTES, Report, ReportFormatError};

/// STATUS and REPORT_SIZE (4 bytes each, little-endian) and 24 reserved bytes, before the report in MSG_REPORT_RSP.
const RESPONSE_HEADER_BYTES: usize = 32;

/// A report in the forms in which tools write it to files:
///
/// | form | bytes |
/// | --- | --- |
/// | report | 1184, or more when the rest is zeros |
/// | the firmware's answer, MSG_REPORT_RSP (AMD publication 56860) | a header of 32 bytes with status 0 and size 1184, the report, zeros |
/// | extended report | the report, and the host's certificate table after it |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportFile<'a> {
    /// ATTESTATION_REPORT, 1184 bytes.
    pub report: &'a [u8],
    /// The table of an extended report; one without entries otherwise.
    pub certificates: CertificateTable<'a>,
}

impl<'a> ReportFile<'a> {
    /// Reads a file.
    ///
    /// # Errors
    /// When it has none of these forms, or holds a report of an unknown version.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ReportFormatError> {
        let (report, rest) = match response(bytes) {
            Some(found) => found,
            None => bytes
                .split_at_checked(REPORT_BYTES)
                .ok_or(ReportFormatError::Size { found: bytes.len() })?,
        };
        Report::parse(report)?;
        let rest = match rest.iter().any(|byte| *byte != 0) {
            true => rest,
            false => &[],
        };
        let certificates = CertificateTable::parse(rest)
            .map_err(|_| ReportFormatError::Size { found: bytes.len() })?;
        Ok(Self {
            report,
            certificates,
        })
    }

    /// An entry of the table; empty when there is none.
    pub fn certificate(&self, guid: CertificateGuid) -> &'a [u8] {
        self.certificates.get(guid).unwrap_or_default()
    }
}

/// The report in MSG_REPORT_RSP, and what follows it.
fn response(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<RESPONSE_HEADER_BYTES>()?;
    let (status, size) = header.split_first_chunk::<4>()?;
    let (size, reserved) = size.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
    let is_success = *status == [0; 4] && size == REPORT_BYTES;
    match is_success && reserved.iter().all(|byte| *byte == 0) {
        true => rest.split_at_checked(REPORT_BYTES),
        false => None,
    }
}

#[cfg(all(test, feature = "software-tee"))]
mod tests {
    use crate::{
        Evidence, Issuer as _, PolicyHash, ReportData, SnpEvidence, snp::encode_certificate_table,
        software::fixture::software_tee,
    };

    use super::*;

    #[expect(clippy::panic, reason = "helpers of tests fail like tests")]
    fn evidence() -> SnpEvidence {
        let guest = software_tee().snp_guest(PolicyHash([1; 32]));
        let Ok(Evidence::Snp(evidence)) = guest.issue(&ReportData([1; 64])) else {
            panic!("the software TEE issues SNP evidence");
        };
        evidence
    }

    #[test]
    fn the_report_is_found_in_every_form() {
        let SnpEvidence { report, vek, .. } = evidence();
        let table = encode_certificate_table(&[(CertificateGuid::VCEK, &vek)]);
        let header = [&[0; 4][..], &1184_u32.to_le_bytes(), &[0; 24]].concat();
        for (file, has_table) in [
            (report.clone(), false),
            ([&report[..], &[0; 16]].concat(), false),
            ([&header[..], &report, &[0; 2784]].concat(), false),
            ([&report[..], &table].concat(), true),
        ] {
            let read = ReportFile::read(&file).expect("a report");
            assert_eq!(read.report, report);
            assert_eq!(read.certificate(CertificateGuid::VCEK) == vek, has_table);
        }
    }

    #[test]
    fn anything_else_around_a_report_is_refused() {
        let SnpEvidence { report, .. } = evidence();
        let failed = [
            &[1, 0, 0, 0][..],
            &1184_u32.to_le_bytes(),
            &[0; 24],
            &report,
        ]
        .concat();
        for file in [
            report[..1183].to_vec(),
            [&report[..], b"noise"].concat(),
            [&[0][..], &report].concat(),
            failed,
            Vec::new(),
        ] {
            assert!(ReportFile::read(&file).is_err());
        }
    }
}
