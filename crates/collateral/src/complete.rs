use std::{sync::Arc, time::SystemTime};

use contrast_attestation::{
    Evidence, EvidenceVerifier, IssueError, Issuer, ReportData, SnpEvidence, TdxCollateral,
    TdxEvidence, VerifiedEvidence, VerifyError,
    appraisal::SnpProduct,
    snp::{Endorsement, Report, SigningKey, vendor_chain},
    tdx::CollateralKey,
};
use contrast_clock::WallClock;

use der::Decode as _;
use x509_cert::Certificate;

use crate::{
    Collateral, Content, Found, Item, SnpSigner, Unavailable, Validity,
    client::Effort,
    recognise::{Recognised, recognise, validity},
};

const NO_VLEK: &str = "the report was signed by a VLEK, whose certificate only the cloud provider has: it must come from the \
                       host's certificate table";
const MASKED_CHIP: &str = "the host masks the chip's identity, without which no VCEK can be found: it must come from the \
                           host's certificate table";

/// Evidence with what it lacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The evidence.
    pub evidence: Evidence,
    /// What is still missing, and why.
    pub remarks: Vec<String>,
    /// What only the evidence itself knew, or nobody, so that it cannot be told whether there is news.
    pub unseen: Vec<Item>,
}

impl Collateral {
    /// Puts beside `evidence` what is missing in it, and replaces what is not valid at `now`, is for another chip or TCB, or was issued
    /// before what is known here: an attester must not choose the past. Evidence of other makers (software TEEs) is left as it is,
    /// since no vendor knows it.
    pub fn complete(&self, evidence: &Evidence, now: SystemTime) -> Completion {
        self.complete_with(evidence, now, self.full_effort())
    }

    /// [`Collateral::complete`] with what is at hand. Waits for nothing; what is missing is
    /// [due](Collateral::due) from then on.
    pub fn complete_at_hand(&self, evidence: &Evidence, now: SystemTime) -> Completion {
        self.complete_with(evidence, now, Effort::Defer)
    }

    fn complete_with(&self, evidence: &Evidence, now: SystemTime, effort: Effort) -> Completion {
        let mut search = Search {
            collateral: self,
            now,
            effort,
            remarks: Vec::new(),
            unseen: Vec::new(),
        };
        let completed = match evidence {
            Evidence::Snp(snp) => search.complete_snp(snp).map(Evidence::Snp),
            Evidence::Tdx(tdx) => search.complete_tdx(tdx).map(Evidence::Tdx),
            Evidence::Vtpm(vtpm) => vtpm.hardware_evidence().ok().map(|hardware| {
                let completion = self.complete_with(&hardware, now, effort);
                (search.remarks, search.unseen) = (completion.remarks, completion.unseen);
                Evidence::Vtpm(vtpm.clone().with_hardware(completion.evidence))
            }),
            _ => None,
        };
        Completion {
            evidence: completed.unwrap_or_else(|| evidence.clone()),
            remarks: search.remarks,
            unseen: search.unseen,
        }
    }
}

/// Looks for what one piece of evidence lacks.
struct Search<'a> {
    collateral: &'a Collateral,
    now: SystemTime,
    effort: Effort,
    remarks: Vec<String>,
    unseen: Vec<Item>,
}

impl Search<'_> {
    /// The newest of what the evidence carries and what is known here, for each item; it is fetched when neither is valid. Returns what
    /// to put in the place of what is carried, and whether anything is missing.
    fn newest(&mut self, carried: Vec<(Item, &[u8])>) -> (Vec<(Item, Content)>, bool) {
        let mut contents = Vec::new();
        let mut lacking = Vec::new();
        for (item, bytes) in carried {
            let carried = read(bytes, &item, self.now);
            match (carried, self.collateral.valid(&item, self.now)) {
                (Some(carried), Some(known)) if carried.from >= known.validity.from => {}
                (_, Some(known)) => contents.push((item, known.content.clone())),
                (Some(_), None) => self.unseen.push(item),
                (None, None) => lacking.push(item),
            }
        }
        let found = self.find(&lacking);
        let is_missing = found.iter().any(Option::is_none);
        let missing = lacking.iter().zip(&found);
        let missing = missing.filter(|(_, content)| content.is_none());
        self.unseen.extend(missing.map(|(item, _)| item.clone()));
        let found = lacking.into_iter().zip(found);
        contents.extend(found.filter_map(|(item, content)| Some((item, content?))));
        (contents, is_missing)
    }

    fn find(&mut self, items: &[Item]) -> Vec<Option<Content>> {
        let found = self.collateral.find_all(items, self.now, self.effort);
        let contents = found.into_iter().map(|found| self.content(found));
        contents.collect()
    }

    /// What was found, with a remark when it is missing or stale.
    fn content(&mut self, found: Result<Found, Unavailable>) -> Option<Content> {
        match found {
            Ok(Found { document, stale }) => {
                self.remarks.extend(stale.map(|error| error.to_string()));
                Some(document.content.clone())
            }
            Err(error) => {
                self.remarks.push(error.to_string());
                None
            }
        }
    }

    fn complete_snp(&mut self, evidence: &SnpEvidence) -> Option<SnpEvidence> {
        let report = Report::parse(&evidence.report).ok()?;
        let signer = match report.signing_key() {
            SigningKey::Vcek => SnpSigner::Vcek,
            SigningKey::Vlek => SnpSigner::Vlek,
            SigningKey::Other(_) => return None,
        };
        if is_of_another_maker(&evidence.ark) {
            return None;
        }
        let endorsement = Endorsement::read(&evidence.vek);
        let stated = report
            .product()
            .or_else(|| endorsement.as_ref().map(|key| key.product));
        let mut completed = evidence.clone();
        let is_of_chip = |key: &Endorsement| {
            let id = key.hardware_id.as_ref();
            id.is_none_or(|id| report.chip_id.starts_with(id))
        };
        let fits = |key: &Endorsement| {
            // A chip whose identity is masked may have any VCEK, as far as the report tells.
            (report.chip_id == [0; 64] || is_of_chip(key))
                && key.tcb == report.reported_tcb.components(key.product)
                && certificate_holds(&evidence.vek, self.now)
        };
        let product = match (signer, endorsement.filter(fits)) {
            (_, Some(key)) => key.product,
            (SnpSigner::Vlek, None) => {
                if evidence.vek.is_empty() {
                    self.remarks.push(NO_VLEK.to_owned());
                }
                stated?
            }
            (SnpSigner::Vcek, None) => match self.vcek(&report, stated) {
                Some((product, vek)) => {
                    completed.vek = vek;
                    product
                }
                None => stated?,
            },
        };
        let lacks_chain = completed.ask.is_empty() || completed.ark.is_empty();
        if lacks_chain && signer == SnpSigner::Vcek {
            let chain = vendor_chain(product);
            completed.ask = chain.ask.to_vec();
            completed.ark = chain.ark.to_vec();
        }
        let mut carried = vec![(Item::SnpCrl { product, signer }, evidence.crl.as_slice())];
        if lacks_chain && signer == SnpSigner::Vlek {
            carried.push((Item::SnpChain { product, signer }, &[]));
        }
        let (contents, _) = self.newest(carried);
        for (_, content) in contents {
            match content {
                Content::Chain { ask, ark } => (completed.ask, completed.ark) = (ask, ark),
                Content::Crl { list, .. } => completed.crl = list,
                Content::Certificate(_) | Content::Signed { .. } => {}
            }
        }
        Some(completed)
    }

    /// The VCEK. A report of version 2 does not name its product; only one product's service knows the chip.
    fn vcek(
        &mut self,
        report: &Report,
        product: Option<SnpProduct>,
    ) -> Option<(SnpProduct, Vec<u8>)> {
        if report.chip_id == [0; 64] {
            self.remarks.push(MASKED_CHIP.to_owned());
            return None;
        }
        let products = match product {
            Some(product) => vec![product],
            None => vec![SnpProduct::Milan, SnpProduct::Genoa],
        };
        let vcek_of = |product: &SnpProduct| {
            let tcb = report.reported_tcb.components(*product);
            Item::vcek(*product, &report.chip_id, tcb)
        };
        let items: Vec<Item> = products.iter().map(vcek_of).collect();
        let remarks = self.remarks.len();
        let found = self.find(&items);
        let vcek = products
            .into_iter()
            .zip(found)
            .find_map(|found| match found {
                (product, Some(Content::Certificate(vek))) => Some((product, vek)),
                _ => None,
            });
        if vcek.is_some() {
            // That the other product's service does not know the chip is no news.
            self.remarks.truncate(remarks);
        }
        vcek
    }

    fn complete_tdx(&mut self, evidence: &TdxEvidence) -> Option<TdxEvidence> {
        let key = CollateralKey::of(&evidence.quote).filter(|key| key.is_intels)?;
        let mut collateral = evidence.collateral.clone().unwrap_or_default();
        let carried = Carried::by(&collateral);
        let (contents, missing) = self.newest(carried.items(&collateral, &key));
        for (item, content) in contents {
            put(&mut collateral, &item, content);
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

/// The signed JSON that evidence carries, in the shape of the vendor's answers.
struct Carried {
    tcb_info: Vec<u8>,
    qe_identity: Vec<u8>,
}

impl Carried {
    fn by(collateral: &TdxCollateral) -> Self {
        let signed = |name: &str, json: &str, signature: &[u8]| {
            let signature = hex::encode(signature);
            format!(r#"{{"{name}":{json},"signature":"{signature}"}}"#).into_bytes()
        };
        let TdxCollateral {
            tcb_info,
            tcb_info_signature,
            qe_identity,
            qe_identity_signature,
            ..
        } = collateral;
        Self {
            tcb_info: signed("tcbInfo", tcb_info, tcb_info_signature),
            qe_identity: signed("enclaveIdentity", qe_identity, qe_identity_signature),
        }
    }

    fn items<'a>(
        &'a self,
        collateral: &'a TdxCollateral,
        key: &CollateralKey,
    ) -> Vec<(Item, &'a [u8])> {
        let fmspc = key.fmspc;
        let issuer = key.pck_issuer;
        vec![
            (Item::TcbInfo { fmspc }, self.tcb_info.as_slice()),
            (Item::QeIdentity, &self.qe_identity),
            (Item::PckCrl { issuer }, &collateral.pck_crl),
            (Item::RootCrl, &collateral.root_ca_crl),
        ]
    }
}

/// Puts the content of `item` in its place.
pub(crate) fn put(collateral: &mut TdxCollateral, item: &Item, content: Content) {
    match (item, content) {
        (
            Item::TcbInfo { .. },
            Content::Signed {
                json,
                signature,
                issuer_chain,
                ..
            },
        ) => {
            collateral.tcb_info = json;
            collateral.tcb_info_signature = signature;
            collateral.tcb_info_issuer_chain = issuer_chain.unwrap_or_default();
        }
        (
            Item::QeIdentity,
            Content::Signed {
                json,
                signature,
                issuer_chain,
                ..
            },
        ) => {
            collateral.qe_identity = json;
            collateral.qe_identity_signature = signature;
            collateral.qe_identity_issuer_chain = issuer_chain.unwrap_or_default();
        }
        (Item::RootCrl, Content::Crl { list, .. }) => collateral.root_ca_crl = list,
        (Item::PckCrl { .. }, Content::Crl { list, issuer_chain }) => {
            collateral.pck_crl = list;
            collateral.pck_crl_issuer_chain = issuer_chain;
        }
        _ => {}
    }
}

/// Whether an ARK is there and is none of AMD's.
fn is_of_another_maker(ark: &[u8]) -> bool {
    let products = [SnpProduct::Milan, SnpProduct::Genoa, SnpProduct::Turin];
    !ark.is_empty()
        && !products
            .into_iter()
            .any(|product| ark == vendor_chain(product).ark)
}

/// Whether a VCEK or VLEK is valid at `now`.
fn certificate_holds(der: &[u8], now: SystemTime) -> bool {
    Certificate::from_der(der).is_ok_and(|certificate| validity(&certificate).contains(now))
}

/// The validity of the document for `item`, if that is what the bytes are and it is valid at `now`.
fn read(bytes: &[u8], item: &Item, now: SystemTime) -> Option<Validity> {
    match recognise(bytes)? {
        Recognised::Document(items, document) if items.contains(item) => {
            Some(document.validity).filter(|validity| validity.contains(now))
        }
        _ => None,
    }
}

/// Appraises evidence with what it lacked. A refusal carries a remark for everything that is missing. Documents that only
/// accepted evidence knew are [due](Collateral::due) from then on.
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
    let Completion {
        evidence,
        remarks,
        unseen,
    } = collateral.complete(evidence, now);
    match verifier.verify(&evidence, report_data, now) {
        Ok(verified) => {
            for remark in remarks {
                tracing::warn!("evidence was accepted without a document of its vendor: {remark}");
            }
            collateral.want(&unseen);
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

/// An issuer whose evidence carries what is at hand of its vendor's documents, so that a verifier needs no vendor's service.
/// Issuing waits for no one; what was missing is [due](Collateral::due).
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
        let issued = self.issuer.issue(report_data)?;
        let Completion {
            evidence,
            remarks,
            unseen,
        } = self.collateral.complete_at_hand(&issued, self.clock.now());
        self.collateral.want(&unseen);
        for remark in remarks {
            tracing::debug!("evidence goes out without a document of its vendor: {remark}");
        }
        Ok(evidence)
    }
}
