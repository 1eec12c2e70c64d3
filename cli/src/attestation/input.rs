//! From files to evidence.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;
use contrast_attestation::{
    Evidence, EvidenceFormatError, SnpCertificates, SnpEvidence, TdxEvidence, Tee,
    snp::{self, CertificateGuid, Report, ReportFile, ReportFormatError, SigningKey},
    tdx::{CollateralKey, QuoteDetails, QuoteFormatError},
    vtpm::{HclReport, HclReportError},
};
use contrast_collateral::{Bundle, BundleError, Collateral, Completion, Item, thim_certificates};
use der::Decode as _;
use x509_cert::Certificate;

use super::vtpm::TpmInputError;
use crate::{
    diagnostic::Diagnose,
    exit::Exit,
    workspace::{self, WorkspaceError},
};

/// Where evidence comes from: one evidence file, or raw parts.
#[derive(Debug, Clone, Args)]
pub struct EvidenceArgs {
    /// Evidence file (protobuf `contrast.v1.evidence.Evidence`)
    #[arg(value_name = "FILE", conflicts_with_all = ["snp_report", "tdx_quote"])]
    #[arg(required_unless_present_any = ["snp_report", "tdx_quote", "azure"])]
    pub evidence: Option<PathBuf>,

    /// SEV-SNP attestation report, 1184 bytes, alone, in the firmware's answer, or with a certificate table after it (an
    /// extended report); without a table, its certificate comes from --vek or --collateral
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tdx_quote", "azure"])]
    pub snp_report: Option<PathBuf>,

    /// VCEK or VLEK certificate of the report's signer, DER or PEM, or the answer of Azure's metadata service with it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tdx_quote", "evidence"])]
    pub vek: Option<PathBuf>,

    /// ASK (or ASVK) and ARK, PEM as AMD serves them, DER, or the answer of Azure's metadata service; may be repeated [default: AMD's for VCEKs, built in]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tdx_quote", "evidence"])]
    pub chain: Vec<PathBuf>,

    /// Revocation list signed by the ARK, DER or PEM
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tdx_quote", "evidence"])]
    pub crl: Option<PathBuf>,

    /// TDX quote, version 4 or 5
    #[arg(long, value_name = "FILE")]
    pub tdx_quote: Option<PathBuf>,

    /// HCL report of an Azure confidential VM: contents of its vTPM's NV index 0x01400001
    #[arg(long, value_name = "FILE", conflicts_with = "evidence")]
    #[arg(required_unless_present_any = ["snp_report", "tdx_quote", "evidence"])]
    pub azure: Option<PathBuf>,

    /// Quote of the vTPM, TPMS_ATTEST
    #[arg(
        long,
        value_name = "FILE",
        requires = "azure",
        requires = "tpm_signature",
        // clap drops a `requires` whose subject conflicts with what is there.
        conflicts_with_all = ["snp_report", "evidence"]
    )]
    pub tpm_quote: Option<PathBuf>,

    /// Signature of the vTPM's quote, TPMT_SIGNATURE or its bare RSA signature
    #[arg(long, value_name = "FILE", requires = "tpm_quote")]
    pub tpm_signature: Option<PathBuf>,

    /// Values of the quoted SHA-256 PCRs, as `tpm2_pcrread sha256` prints them
    #[arg(long, value_name = "FILE", requires = "tpm_quote")]
    pub tpm_pcrs: Option<PathBuf>,

    /// What the vendor publishes: directories or files with answers of AMD's KDS or Intel's PCS (VCEKs, chains, CRLs, TCB
    /// infos, QE identities), recognised by content, as `contrast collateral fetch` writes them; may be repeated
    #[arg(long, value_name = "PATH")]
    pub collateral: Vec<PathBuf>,
}

/// A file that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] WorkspaceError),
    /// No attestation report.
    #[error("`{}` is no attestation report", .path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ReportFormatError,
    },
    /// No TDX quote.
    #[error("`{}` is no TDX quote", .path.display())]
    Quote {
        /// The file.
        path: PathBuf,
        /// Why.
        source: QuoteFormatError,
    },
    /// No evidence of ours.
    #[error("`{}` is no evidence file", .path.display())]
    Evidence {
        /// The file.
        path: PathBuf,
        /// The option that takes what it is instead, if it is anything.
        option: Option<&'static str>,
        /// Why.
        source: EvidenceFormatError,
    },
    /// Neither PEM nor DER of what was expected.
    #[error("`{}` holds no {expected} in DER or PEM", .path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// Why.
        source: der::Error,
    },
    /// The chain is not two certificates.
    #[error("expected two certificates in --chain, an ASK (or ASVK) and an ARK; found {found}")]
    Chain {
        /// How many were found.
        found: usize,
    },
    /// Nothing is built in for VLEKs.
    #[error(
        "--chain is missing, and only the chains of VCEKs are built in; the report was signed by a VLEK"
    )]
    NoChain,
    /// No evidence was named.
    #[error("expected an evidence file, --snp-report, --tdx-quote or --azure; found none of them")]
    Nothing,
    /// No HCL report.
    #[error("`{}` is no HCL report", .path.display())]
    Hcl {
        /// The file.
        path: PathBuf,
        /// Why.
        source: HclReportError,
    },
    /// An HCL report with a TDREPORT, alone.
    #[error(
        "the HCL report is of a TDX machine; give the quote over its TDREPORT with --tdx-quote, and its --collateral"
    )]
    NoQuote,
    /// The files of the TPM are not what they should be.
    #[error(transparent)]
    Tpm(#[from] TpmInputError),
    /// An answer of Azure's metadata service that is none.
    #[error("`{}` {problem}", .path.display())]
    Thim {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Collateral that cannot be read.
    #[error("cannot use --collateral")]
    Collateral(#[from] BundleError),
    /// Collateral without something that every quote needs.
    #[error("expected {} in --collateral, found none", shown(.missing))]
    Incomplete {
        /// What is missing.
        missing: Vec<Item>,
    },
    /// A report without the certificate of its signer.
    #[error(
        "expected the report's VCEK or VLEK in --vek, or a VCEK in --collateral; found neither option"
    )]
    NoVek,
}

fn shown(items: &[Item]) -> String {
    let names: Vec<_> = items.iter().map(|item| format!("the {item}")).collect();
    names.join(", ")
}

impl Diagnose for InputError {
    fn exit(&self) -> Exit {
        Exit::Usage
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::File(error) => error.hints(),
            Self::Evidence {
                option: Some(option),
                ..
            } => vec![format!(
                "this is a part of evidence as the hardware gives it; name it with `{option}`"
            )],
            Self::NoChain => vec![
                "AMD serves it: /vlek/v1/PRODUCT/cert_chain on kdsintf.amd.com for a VLEK".into(),
            ],
            _ => Vec::new(),
        }
    }
}

impl EvidenceArgs {
    /// Reads the files, and takes from the collateral what the others lack and is valid at `now`. Sizes, encodings and versions
    /// are checked here; nothing else is.
    ///
    /// # Errors
    /// When a file is missing or is not what it should be.
    pub fn read(&self, now: SystemTime) -> Result<Completion, InputError> {
        if let Some(path) = &self.azure {
            let bytes = workspace::read("HCL report", path, "")?;
            let hardware = self.read_azure(&hcl_report(&bytes, path)?, path, now)?;
            return self.vtpm(bytes, hardware);
        }
        match (&self.snp_report, &self.tdx_quote, &self.evidence) {
            (Some(path), ..) => {
                let bytes = workspace::read("attestation report", path, "")?;
                self.snp(&bytes, path, now)
            }
            (None, Some(quote), _) => self.tdx(quote, now),
            (None, None, Some(path)) => {
                let bytes = workspace::read("evidence", path, "")?;
                let evidence = Evidence::decode(&bytes).map_err(|source| InputError::Evidence {
                    path: path.clone(),
                    option: option_for(&bytes),
                    source,
                })?;
                self.completed(readable(evidence, path)?, now)
            }
            // The command line demands one of them.
            (None, None, None) => Err(InputError::Nothing),
        }
    }

    /// The hardware's part of an Azure confidential VM's evidence.
    ///
    /// # Errors
    /// When a file is missing or is not what it should be.
    pub fn read_azure(
        &self,
        hcl: &HclReport<'_>,
        path: &Path,
        now: SystemTime,
    ) -> Result<Completion, InputError> {
        match (&self.tdx_quote, hcl.tee) {
            (Some(quote), _) => self.tdx(quote, now),
            (None, Tee::Snp) => self.snp(hcl.hardware_report, path, now),
            (None, _) => Err(InputError::NoQuote),
        }
    }

    fn snp(&self, bytes: &[u8], path: &Path, now: SystemTime) -> Result<Completion, InputError> {
        let file = report_file(bytes, path)?;
        let mut chain = Vec::new();
        for file in &self.chain {
            match thim(file)? {
                Some(answer) => chain.extend([answer.ask, answer.ark]),
                None => chain.extend(certificates(file, "chain of certificates")?),
            }
        }
        let is_vek = |der: &mut Vec<u8>| snp::Endorsement::read(der).is_some();
        let in_chain = chain.extract_if(.., is_vek).next();
        let vek = match &self.vek {
            Some(vek) => match thim(vek)? {
                Some(answer) => answer.vek,
                None => certificates(vek, "VCEK or VLEK certificate")?.swap_remove(0),
            },
            None => in_chain.unwrap_or_else(|| vek_in(&file)),
        };
        if vek.is_empty() && self.collateral.is_empty() {
            return Err(InputError::NoVek);
        }
        if chain.is_empty() {
            let table = [CertificateGuid::ASK, CertificateGuid::ARK];
            let table = table.map(|guid| file.certificate(guid).to_vec());
            chain.extend(table.into_iter().filter(|der| !der.is_empty()));
        }
        let report = report(file.report, path)?;
        let (ask, ark) = match chain.is_empty() {
            // The collateral may name the product, or hold the chain.
            true if !self.collateral.is_empty() => built_in(&report, &vek).unwrap_or_default(),
            true => built_in(&report, &vek)?,
            false => sorted(chain)?,
        };
        let crl = match &self.crl {
            Some(path) => revocation_list(&workspace::read("CRL", path, "")?, path)?,
            None => file.certificate(CertificateGuid::CRL).to_vec(),
        };
        let evidence = SnpEvidence {
            report: file.report.to_vec(),
            vek,
            ask,
            ark,
            crl,
        };
        self.completed(Evidence::Snp(evidence), now)
    }

    fn tdx(&self, path: &Path, now: SystemTime) -> Result<Completion, InputError> {
        let quote = workspace::read("TDX quote", path, "")?;
        details(&quote, path)?;
        let collateral = match (CollateralKey::of(&quote), self.collateral.is_empty()) {
            (Some(key), false) => {
                let collateral = Bundle::read(&self.collateral)?.tdx_collateral(&key, now);
                Some(collateral.map_err(|missing| InputError::Incomplete { missing })?)
            }
            // Without a PCK certificate nothing can be verified, whatever the collateral says.
            (None, _) | (_, true) => None,
        };
        Ok(as_given(Evidence::Tdx(TdxEvidence { quote, collateral })))
    }

    fn completed(&self, evidence: Evidence, now: SystemTime) -> Result<Completion, InputError> {
        if self.collateral.is_empty() {
            return Ok(as_given(evidence));
        }
        let bundle = Bundle::read(&self.collateral)?;
        Ok(Collateral::offline()
            .with_bundle(bundle)
            .complete(&evidence, now))
    }
}

fn as_given(evidence: Evidence) -> Completion {
    Completion {
        evidence,
        remarks: Vec::new(),
        unseen: Vec::new(),
    }
}

/// Parses an HCL report that was read from `path`.
///
/// # Errors
/// When it is none.
pub fn hcl_report<'a>(bytes: &'a [u8], path: &Path) -> Result<HclReport<'a>, InputError> {
    HclReport::parse(bytes).map_err(|source| InputError::Hcl {
        path: path.to_owned(),
        source,
    })
}

/// The option that takes a file with these contents.
fn option_for(bytes: &[u8]) -> Option<&'static str> {
    let kinds = [
        (ReportFile::read(bytes).is_ok(), "--snp-report"),
        (QuoteDetails::parse(bytes).is_ok(), "--tdx-quote"),
        (HclReport::parse(bytes).is_ok(), "--azure"),
    ];
    let kind = kinds.into_iter().find(|(is_it, _)| *is_it);
    kind.map(|(_, option)| option)
}

fn readable(evidence: Evidence, path: &Path) -> Result<Evidence, InputError> {
    match &evidence {
        Evidence::Snp(snp) => report(&snp.report, path).map(drop)?,
        Evidence::Tdx(tdx) => details(&tdx.quote, path).map(drop)?,
        Evidence::Vtpm(vtpm) => {
            let hcl = hcl_report(&vtpm.hcl_report, path)?;
            match vtpm.hardware.evidence(&hcl) {
                Evidence::Snp(snp) => report(&snp.report, path).map(drop)?,
                Evidence::Tdx(tdx) => details(&tdx.quote, path).map(drop)?,
                _ => {}
            }
        }
        _ => {}
    }
    Ok(evidence)
}

fn report_file<'a>(bytes: &'a [u8], path: &Path) -> Result<ReportFile<'a>, InputError> {
    ReportFile::read(bytes).map_err(|source| InputError::Report {
        path: path.to_owned(),
        source,
    })
}

/// The signer's certificate in an extended report.
fn vek_in(file: &ReportFile<'_>) -> Vec<u8> {
    let kinds = [CertificateGuid::VCEK, CertificateGuid::VLEK];
    let found = kinds.map(|kind| file.certificate(kind));
    let vek = found.into_iter().find(|der| !der.is_empty());
    vek.unwrap_or_default().to_vec()
}

fn report(bytes: &[u8], path: &Path) -> Result<Report, InputError> {
    Report::parse(bytes).map_err(|source| InputError::Report {
        path: path.to_owned(),
        source,
    })
}

fn details(bytes: &[u8], path: &Path) -> Result<QuoteDetails, InputError> {
    QuoteDetails::parse(bytes).map_err(|source| InputError::Quote {
        path: path.to_owned(),
        source,
    })
}

/// AMD's own ASK and ARK for the product that report or certificate show. Of an unknown product there are none, and of a
/// report that nobody signed they are as good as any: the verifier says what is wrong with such evidence.
fn built_in(report: &Report, vek: &[u8]) -> Result<(Vec<u8>, Vec<u8>), InputError> {
    let endorsement = snp::Endorsement::read(vek);
    // The certificate says what it is; a bit in the report may be what was tampered with.
    let is_vlek = match &endorsement {
        Some(endorsement) => endorsement.hardware_id.is_none(),
        None => report.signing_key() == SigningKey::Vlek,
    };
    if is_vlek {
        return Err(InputError::NoChain);
    }
    let certified = endorsement.map(|endorsement| endorsement.product);
    match report.product().or(certified) {
        Some(product) => {
            let chain = snp::vendor_chain(product);
            Ok((chain.ask.to_vec(), chain.ark.to_vec()))
        }
        None => Ok((Vec::new(), Vec::new())),
    }
}

/// ASK and ARK in this order. The ARK issued itself; which of them are AMD's, and what two are that do not look like it, is for
/// the verifier to say.
fn sorted(chain: Vec<Vec<u8>>) -> Result<(Vec<u8>, Vec<u8>), InputError> {
    let is_self_issued = |der: &[u8]| {
        Certificate::from_der(der).is_ok_and(|certificate| {
            let tbs = certificate.tbs_certificate();
            tbs.issuer() == tbs.subject()
        })
    };
    match <[Vec<u8>; 2]>::try_from(chain) {
        Ok([first, second]) => match is_self_issued(&first) && !is_self_issued(&second) {
            true => Ok((second, first)),
            false => Ok((first, second)),
        },
        Err(chain) => Err(InputError::Chain { found: chain.len() }),
    }
}

/// The certificates in an answer of Azure's metadata service (JSON); none when the file is no JSON.
fn thim(path: &Path) -> Result<Option<SnpCertificates>, InputError> {
    let bytes = workspace::read("certificates", path, "")?;
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Ok(None);
    }
    thim_certificates(&bytes)
        .map(Some)
        .map_err(|problem| InputError::Thim {
            path: path.to_owned(),
            problem,
        })
}

/// At least one certificate, DER.
fn certificates(path: &Path, expected: &'static str) -> Result<Vec<Vec<u8>>, InputError> {
    let bytes = workspace::read(expected, path, "")?;
    let blocks = from_pem(&bytes);
    let certificates = if blocks.is_empty() {
        vec![bytes]
    } else {
        blocks
    };
    for der in &certificates {
        Certificate::from_der(der).map_err(|source| InputError::Encoding {
            path: path.to_owned(),
            expected,
            source,
        })?;
    }
    Ok(certificates)
}

/// A CRL, DER.
fn revocation_list(bytes: &[u8], path: &Path) -> Result<Vec<u8>, InputError> {
    let der = from_pem(bytes)
        .into_iter()
        .next()
        .unwrap_or_else(|| bytes.to_vec());
    match x509_cert::crl::CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der) {
        Ok(_) => Ok(der),
        Err(source) => Err(InputError::Encoding {
            path: path.to_owned(),
            expected: "certificate revocation list",
            source,
        }),
    }
}

/// The contents of all PEM blocks; none when there is no PEM.
fn from_pem(bytes: &[u8]) -> Vec<Vec<u8>> {
    let blocks = pem::parse_many(bytes).unwrap_or_default();
    blocks.into_iter().map(pem::Pem::into_contents).collect()
}
