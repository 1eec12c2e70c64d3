use std::{sync::Arc, thread, time::SystemTime};

use contrast_attestation::{
    Evidence, EvidenceVerifier, IssueError, Issuer, ReportData, SnpEvidence, TdxCollateral,
    TdxEvidence, VerifiedEvidence, VerifyError,
    appraisal::SnpProduct,
    snp::{Endorsement, Report, SigningKey, vendor_chain},
    tdx::CollateralKey,
};
use contrast_clock::WallClock;

use crate::{
    Collateral, Content, Document, Found, Item, SnpSigner,
    recognise::{Recognised, recognise},
};

/// Evidence with what it lacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The evidence.
    pub evidence: Evidence,
    /// What is still missing, and why.
    pub remarks: Vec<String>,
}

impl Collateral {
    /// Puts beside `evidence` what is missing in it, and replaces what is not valid at `now` or is for another chip or TCB.
    /// What is there and valid stays: the attester may know more than the vendor's answer to this side. Evidence of
    /// other makers (software TEEs) is left as it is, since no vendor knows it.
    pub fn complete(&self, evidence: &Evidence, now: SystemTime) -> Completion {
        let mut remarks = Vec::new();
        let completed = match evidence {
            Evidence::Snp(snp) => self.complete_snp(snp, now, &mut remarks).map(Evidence::Snp),
            Evidence::Tdx(tdx) => self.complete_tdx(tdx, now, &mut remarks).map(Evidence::Tdx),
            _ => None,
        };
        Completion {
            evidence: completed.unwrap_or_else(|| evidence.clone()),
            remarks,
        }
    }

    fn complete_snp(
        &self,
        evidence: &SnpEvidence,
        now: SystemTime,
        remarks: &mut Vec<String>,
    ) -> Option<SnpEvidence> {
        let report = Report::parse(&evidence.report).ok()?;
        let signer = match report.signing_key() {
            SigningKey::Vcek => SnpSigner::Vcek,
            SigningKey::Vlek => SnpSigner::Vlek,
            _ => return None,
        };
        let endorsement = Endorsement::read(&evidence.vek);
        let stated = report.product();
        let product = stated.or_else(|| endorsement.as_ref().map(|key| key.product));
        let is_amds = |product| evidence.ark == vendor_chain(product).ark;
        if !evidence.ark.is_empty() && !product.is_some_and(is_amds) {
            return None;
        }
        let mut completed = evidence.clone();
        let fits = |key: &Endorsement| {
            let same_chip = key
                .hardware_id
                .as_ref()
                .is_none_or(|id| report.chip_id.starts_with(id));
            let valid = document(&evidence.vek).is_some_and(|vek| vek.validity.contains(now));
            same_chip && valid && key.tcb == report.reported_tcb.components(key.product)
        };
        let product = match (signer, endorsement.as_ref().filter(|key| fits(key))) {
            (_, Some(key)) => key.product,
            (SnpSigner::Vlek, None) => {
                if evidence.vek.is_empty() {
                    remarks.push(
                        "the report was signed by a VLEK, whose certificate only the cloud provider has: it must come from the host's certificate table"
                            .to_owned(),
                    );
                }
                product?
            }
            (SnpSigner::Vcek, None) => {
                let (product, vek) = self.vcek(&report, product, now, remarks)?;
                completed.vek = vek;
                product
            }
        };
        if completed.ask.is_empty() || completed.ark.is_empty() {
            match signer {
                SnpSigner::Vcek => {
                    let chain = vendor_chain(product);
                    completed.ask = chain.ask.to_vec();
                    completed.ark = chain.ark.to_vec();
                }
                SnpSigner::Vlek => {
                    let found = self.get(&Item::SnpChain { product, signer }, now);
                    if let Some(Content::Chain { ask, ark }) = content(found, remarks) {
                        (completed.ask, completed.ark) = (ask, ark);
                    }
                }
            }
        }
        let crl_holds = document(&evidence.crl).is_some_and(|crl| crl.validity.contains(now));
        if !crl_holds {
            let found = self.get(&Item::SnpCrl { product, signer }, now);
            if let Some(Content::Crl { list, .. }) = content(found, remarks) {
                completed.crl = list;
            }
        }
        Some(completed)
    }

    /// The VCEK. A report of version 2 does not name its product; only one product's service knows the chip.
    fn vcek(
        &self,
        report: &Report,
        product: Option<SnpProduct>,
        now: SystemTime,
        remarks: &mut Vec<String>,
    ) -> Option<(SnpProduct, Vec<u8>)> {
        if report.chip_id == [0; 64] {
            remarks.push(
                "the host masks the chip's identity, without which no VCEK can be found: it must come from the host's certificate table"
                    .to_owned(),
            );
            return None;
        }
        let mut failures = Vec::new();
        let candidates = match product {
            Some(product) => vec![product],
            None => vec![SnpProduct::Milan, SnpProduct::Genoa],
        };
        for product in candidates {
            let tcb = report.reported_tcb.components(product);
            let found = self.get(&Item::vcek(product, &report.chip_id, tcb), now);
            if let Some(Content::Certificate(vek)) = content(found, &mut failures) {
                return Some((product, vek));
            }
        }
        remarks.append(&mut failures);
        None
    }

    fn complete_tdx(
        &self,
        evidence: &TdxEvidence,
        now: SystemTime,
        remarks: &mut Vec<String>,
    ) -> Option<TdxEvidence> {
        let key = CollateralKey::of(&evidence.quote).filter(|key| key.is_intels)?;
        let mut collateral = evidence.collateral.clone().unwrap_or_default();
        let with_signature = |name: &str, json: &str, signature: &[u8]| {
            format!(
                r#"{{"{name}":{json},"signature":"{}"}}"#,
                hex::encode(signature)
            )
            .into_bytes()
        };
        let TdxCollateral {
            tcb_info,
            tcb_info_signature,
            qe_identity,
            qe_identity_signature,
            pck_crl,
            root_ca_crl,
            ..
        } = &collateral;
        let tcb_info = with_signature("tcbInfo", tcb_info, tcb_info_signature);
        let qe_identity = with_signature("enclaveIdentity", qe_identity, qe_identity_signature);
        let needed = [
            (Item::TcbInfo { fmspc: key.fmspc }, tcb_info.as_slice()),
            (Item::QeIdentity, &qe_identity),
            (
                Item::PckCrl {
                    issuer: key.pck_issuer,
                },
                pck_crl,
            ),
            (Item::RootCrl, root_ca_crl),
        ];
        let stale: Vec<Item> = needed
            .into_iter()
            .filter(|(item, bytes)| !serves(bytes, item, now))
            .map(|(item, _)| item)
            .collect();
        // Four documents of one vendor: together they take as long as the slowest.
        let found = thread::scope(|scope| {
            let fetches: Vec<_> = stale
                .iter()
                .map(|item| scope.spawn(move || self.get(item, now)))
                .collect();
            let joined = fetches.into_iter().map(|fetch| fetch.join().ok());
            joined.collect::<Vec<_>>()
        });
        let mut missing = false;
        for found in found {
            match found.and_then(|found| content(found, remarks)) {
                Some(content) => put(&mut collateral, content),
                None => missing = true,
            }
        }
        let collateral = match (missing, &evidence.collateral) {
            // Half of it verifies nothing; the remarks say what is missing.
            (true, None) => None,
            _ => Some(collateral),
        };
        Some(TdxEvidence {
            quote: evidence.quote.clone(),
            collateral,
        })
    }
}

fn put(collateral: &mut TdxCollateral, content: Content) {
    match content {
        Content::Signed {
            name: "tcbInfo",
            json,
            signature,
            issuer_chain,
        } => {
            collateral.tcb_info = json;
            collateral.tcb_info_signature = signature;
            collateral.tcb_info_issuer_chain = issuer_chain.unwrap_or_default();
        }
        Content::Signed {
            json,
            signature,
            issuer_chain,
            ..
        } => {
            collateral.qe_identity = json;
            collateral.qe_identity_signature = signature;
            collateral.qe_identity_issuer_chain = issuer_chain.unwrap_or_default();
        }
        Content::Crl { list, .. } if is_root_crl(&list) => collateral.root_ca_crl = list,
        Content::Crl { list, issuer_chain } => {
            collateral.pck_crl = list;
            collateral.pck_crl_issuer_chain = issuer_chain;
        }
        Content::Certificate(_) | Content::Chain { .. } => {}
    }
}

fn is_root_crl(list: &[u8]) -> bool {
    matches!(recognise(list), Some(Recognised::Document(items, _)) if items.contains(&Item::RootCrl))
}

fn document(bytes: &[u8]) -> Option<Document> {
    match recognise(bytes)? {
        Recognised::Document(_, document) => Some(document),
        Recognised::TcbSigningChain(_) | Recognised::PckChain => None,
    }
}

fn serves(bytes: &[u8], item: &Item, now: SystemTime) -> bool {
    match recognise(bytes) {
        Some(Recognised::Document(items, document)) => {
            items.contains(item) && document.validity.contains(now)
        }
        _ => false,
    }
}

/// What was found, with a remark when it is missing or stale.
fn content<E: ToString>(found: Result<Found, E>, remarks: &mut Vec<String>) -> Option<Content> {
    match found {
        Ok(Found { document, stale }) => {
            remarks.extend(stale.map(|error| error.to_string()));
            Some(document.content.clone())
        }
        Err(error) => {
            remarks.push(error.to_string());
            None
        }
    }
}

/// Whether evidence has every part that a vendor could add.
fn is_whole(evidence: &Evidence) -> bool {
    match evidence {
        Evidence::Snp(SnpEvidence {
            vek, ask, ark, crl, ..
        }) => [vek, ask, ark, crl].iter().all(|part| !part.is_empty()),
        Evidence::Tdx(evidence) => evidence.collateral.is_some(),
        _ => true,
    }
}

/// Appraises evidence with what it lacked. Evidence that is whole is appraised as it is; only when that fails, its parts are looked
/// at for stale ones. A refusal carries a remark for everything that is missing.
///
/// # Errors
/// When the evidence meets none of the verifier's reference values.
pub fn verify(
    verifier: &dyn EvidenceVerifier,
    collateral: &Collateral,
    evidence: &Evidence,
    report_data: &ReportData,
    now: SystemTime,
) -> Result<VerifiedEvidence, VerifyError> {
    let first = match is_whole(evidence) {
        true => Some(verifier.verify(evidence, report_data, now)),
        false => None,
    };
    if let Some(Ok(verified)) = first {
        return Ok(verified);
    }
    let Completion {
        evidence: completed,
        remarks,
    } = collateral.complete(evidence, now);
    let outcome = match first {
        Some(refusal) if completed == *evidence => refusal,
        _ => verifier.verify(&completed, report_data, now),
    };
    match outcome {
        Ok(verified) => {
            for remark in remarks {
                tracing::debug!("evidence was accepted without a document of its vendor: {remark}");
            }
            Ok(verified)
        }
        Err(VerifyError::Refused(mut report)) => {
            report.remarks.extend(remarks);
            Err(VerifyError::Refused(report))
        }
        Err(error) => Err(error),
    }
}

/// A verifier that completes evidence first.
#[derive(Debug, Clone)]
pub struct CompletingVerifier {
    /// Judges the completed evidence.
    pub verifier: Arc<dyn EvidenceVerifier>,
    /// Completes it.
    pub collateral: Arc<Collateral>,
}

impl EvidenceVerifier for CompletingVerifier {
    fn verify(
        &self,
        evidence: &Evidence,
        report_data: &ReportData,
        now: SystemTime,
    ) -> Result<VerifiedEvidence, VerifyError> {
        verify(
            &*self.verifier,
            &self.collateral,
            evidence,
            report_data,
            now,
        )
    }
}

/// An issuer whose evidence needs no vendor's service at the verifier's side.
#[derive(Debug, Clone)]
pub struct CompletingIssuer {
    /// Asks the TEE.
    pub issuer: Arc<dyn Issuer>,
    /// Completes what it gave.
    pub collateral: Arc<Collateral>,
    /// Judges what is valid.
    pub clock: Arc<dyn WallClock>,
}

impl Issuer for CompletingIssuer {
    fn issue(&self, report_data: &ReportData) -> Result<Evidence, IssueError> {
        let evidence = self.issuer.issue(report_data)?;
        let Completion { evidence, remarks } =
            self.collateral.complete(&evidence, self.clock.now());
        for remark in remarks {
            tracing::debug!("evidence goes out without a document of its vendor: {remark}");
        }
        Ok(evidence)
    }
}
