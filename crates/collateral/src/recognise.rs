//! From bytes to documents: what a file or an answer is, told by its content alone.

use std::{str::FromStr, time::SystemTime};

use contrast_attestation::{appraisal::SnpProduct, snp::Endorsement, tdx::PckIssuer};
use der::{DateTime, Decode as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use x509_cert::{Certificate, crl::CertificateList, name::Name};

use crate::{Content, Document, Item, SnpSigner, Validity, document::block};

/// What some bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recognised {
    /// A document, and every item that it can serve as.
    Document(Vec<Item>, Document),
    /// The chain of Intel's TCB signer alone, PEM, signer first.
    TcbSigningChain(String),
    /// The chain of a PCK CA alone. CRLs are verified with the chain that comes in the quote, so that nothing needs it.
    PckChain,
}

/// What the bytes are; nothing when they are of no kind that is known. JSON as PCS and PCCS serve it; certificates and CRLs in
/// PEM, DER, or DER in hex as PCCS sends it.
pub(crate) fn recognise(bytes: &[u8]) -> Option<Recognised> {
    if let Ok(answer) = serde_json::from_slice::<SignedAnswer<'_>>(bytes) {
        return signed(&answer);
    }
    let Blocks {
        certificates,
        lists,
    } = Blocks::of(bytes);
    match (certificates.as_slice(), lists.as_slice()) {
        (chain, [list]) => crl(list, chain),
        ([vek], []) if Endorsement::read(vek).is_some() => vcek(vek),
        ([first, rest @ ..], []) => chain(first, rest),
        _ => None,
    }
}

#[derive(Deserialize)]
struct SignedAnswer<'a> {
    #[serde(borrow, rename = "tcbInfo")]
    tcb_info: Option<&'a RawValue>,
    #[serde(borrow, rename = "enclaveIdentity")]
    enclave_identity: Option<&'a RawValue>,
    signature: String,
    #[serde(rename = "issuerChain")]
    issuer_chain: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    id: String,
    fmspc: Option<String>,
    issue_date: String,
    next_update: String,
}

fn signed(answer: &SignedAnswer<'_>) -> Option<Recognised> {
    let (name, value) = match (answer.tcb_info, answer.enclave_identity) {
        (Some(value), None) => ("tcbInfo", value),
        (None, Some(value)) => ("enclaveIdentity", value),
        _ => return None,
    };
    let header: Header = serde_json::from_str(value.get()).ok()?;
    let item = match (name, header.id.as_str(), &header.fmspc) {
        ("tcbInfo", "TDX", Some(text)) => {
            let mut fmspc = [0; 6];
            hex::decode_to_slice(text, &mut fmspc).ok()?;
            Item::TcbInfo { fmspc }
        }
        ("enclaveIdentity", "TD_QE", _) => Item::QeIdentity,
        // Those of SGX.
        _ => return None,
    };
    let moment = |text: &str| Some(DateTime::from_str(text).ok()?.to_system_time());
    let document = Document {
        content: Content::Signed {
            name,
            json: value.get().to_owned(),
            signature: hex::decode(&answer.signature).ok()?,
            issuer_chain: answer.issuer_chain.clone(),
        },
        validity: Validity {
            from: moment(&header.issue_date)?,
            until: moment(&header.next_update)?,
        },
    };
    Some(Recognised::Document(vec![item], document))
}

#[derive(Default)]
struct Blocks {
    certificates: Vec<Vec<u8>>,
    lists: Vec<Vec<u8>>,
}

impl Blocks {
    fn of(bytes: &[u8]) -> Self {
        let mut blocks = Self::default();
        let pem = pem::parse_many(bytes).unwrap_or_default();
        if !pem.is_empty() {
            for block in pem {
                blocks.take(block.into_contents());
            }
        } else if let Ok(der) = hex::decode(bytes.trim_ascii()) {
            blocks.take(der);
        } else {
            blocks.take(bytes.to_vec());
        }
        blocks
    }

    fn take(&mut self, der: Vec<u8>) {
        if CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der).is_ok() {
            self.lists.push(der);
        } else if Certificate::from_der(&der).is_ok() {
            self.certificates.push(der);
        }
    }
}

fn vcek(der: &[u8]) -> Option<Recognised> {
    let Endorsement {
        product,
        hardware_id,
        tcb,
    } = Endorsement::read(der)?;
    let item = Item::vcek(product, &hardware_id?, tcb);
    let document = Document {
        content: Content::Certificate(der.to_vec()),
        validity: validity(&Certificate::from_der(der).ok()?),
    };
    Some(Recognised::Document(vec![item], document))
}

/// ASK and ARK in any order, or one of Intel's chains.
fn chain(first: &[u8], rest: &[Vec<u8>]) -> Option<Recognised> {
    let parsed = Certificate::from_der(first).ok()?;
    let subject = common_name(parsed.tbs_certificate().subject())?;
    if subject.contains("TCB Signing") {
        let others = rest.iter().map(|der| block("CERTIFICATE", der));
        let pem = block("CERTIFICATE", first) + &others.collect::<String>();
        return Some(Recognised::TcbSigningChain(pem));
    }
    if subject.contains("PCK P") || subject.contains("Root CA") {
        return Some(Recognised::PckChain);
    }
    let [second] = rest else { return None };
    let other = Certificate::from_der(second).ok()?;
    let self_issued =
        |of: &Certificate| of.tbs_certificate().issuer() == of.tbs_certificate().subject();
    let (ask, ark, parsed_ask, parsed_ark) = match (self_issued(&parsed), self_issued(&other)) {
        (false, true) => (first, second.as_slice(), parsed, other),
        (true, false) => (second.as_slice(), first, other, parsed),
        _ => return None,
    };
    let name = common_name(parsed_ask.tbs_certificate().subject())?;
    let signer = match name.contains("VLEK") {
        true => SnpSigner::Vlek,
        false => SnpSigner::Vcek,
    };
    let product = product_in(&name)?;
    let (lower, upper) = (validity(&parsed_ask), validity(&parsed_ark));
    let document = Document {
        content: Content::Chain {
            ask: ask.to_vec(),
            ark: ark.to_vec(),
        },
        validity: Validity {
            from: lower.from.max(upper.from),
            until: lower.until.min(upper.until),
        },
    };
    let item = Item::SnpChain { product, signer };
    Some(Recognised::Document(vec![item], document))
}

fn crl(list: &[u8], chain: &[Vec<u8>]) -> Option<Recognised> {
    let parsed = CertificateList::<x509_cert::certificate::Rfc5280>::from_der(list).ok()?;
    let parsed = parsed.tbs_cert_list;
    let issuer = common_name(&parsed.issuer)?;
    // A software TEE has CAs of the same kinds under other names; the verifier tells them apart by their keys.
    let pck_crl = |issuer| vec![Item::PckCrl { issuer }];
    let items = match issuer.as_str() {
        "Intel SGX Root CA" | "Software TEE Root CA (insecure)" => vec![Item::RootCrl],
        platform if platform.contains("PCK Platform CA") => pck_crl(PckIssuer::Platform),
        processor if processor.contains("PCK Processor CA") => pck_crl(PckIssuer::Processor),
        // AMD's lists do not tell which ASKs they are about; the ARK signs those of VCEKs and of VLEKs.
        ark if ark.starts_with("ARK-") => {
            let product = product_in(ark)?;
            let crl = |signer| Item::SnpCrl { product, signer };
            vec![crl(SnpSigner::Vcek), crl(SnpSigner::Vlek)]
        }
        _ => return None,
    };
    let document = Document {
        content: Content::Crl {
            list: list.to_vec(),
            issuer_chain: chain.iter().map(|der| block("CERTIFICATE", der)).collect(),
        },
        validity: Validity {
            from: time(parsed.this_update),
            until: time(parsed.next_update?),
        },
    };
    Some(Recognised::Document(items, document))
}

pub(crate) fn validity(certificate: &Certificate) -> Validity {
    let validity = certificate.tbs_certificate().validity();
    Validity {
        from: time(validity.not_before),
        until: time(validity.not_after),
    }
}

fn time(time: x509_cert::time::Time) -> SystemTime {
    time.to_system_time()
}

fn common_name(name: &Name) -> Option<String> {
    Some(name.common_name().ok()??.value().into_owned())
}

fn product_in(name: &str) -> Option<SnpProduct> {
    [SnpProduct::Milan, SnpProduct::Genoa, SnpProduct::Turin]
        .into_iter()
        .find(|product| name.ends_with(&product.to_string()))
}
