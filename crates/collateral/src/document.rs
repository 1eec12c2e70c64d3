use std::time::SystemTime;

use contrast_attestation::{snp::vendor_chain, tdx::root_signed_crl};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::Item;

/// One publication. Its signature was not checked; that it is the thing it was taken for was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What it says.
    pub content: Content,
    /// When it is valid.
    pub validity: Validity,
}

/// When something is valid, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// notBefore, thisUpdate or issueDate.
    pub from: SystemTime,
    /// notAfter or nextUpdate.
    pub until: SystemTime,
}

impl Validity {
    /// Whether it holds at `time`.
    pub fn contains(&self, time: SystemTime) -> bool {
        self.from <= time && time <= self.until
    }
}

/// What a document says, in the encodings of `contrast_attestation::Evidence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A certificate, DER.
    Certificate(Vec<u8>),
    /// ASK (or ASVK) and ARK, DER.
    Chain {
        /// AMD SEV key, or AMD SEV-VLEK key.
        ask: Vec<u8>,
        /// AMD root key.
        ark: Vec<u8>,
    },
    /// A revocation list, DER, and its signer's chain (PEM, signer first; empty when nobody sent it).
    Crl {
        /// The list.
        list: Vec<u8>,
        /// The chain.
        issuer_chain: String,
    },
    /// A JSON value with its signature.
    Signed {
        /// Its name in the vendor's answer: `tcbInfo` or `enclaveIdentity`.
        name: &'static str,
        /// The exact bytes that were signed.
        json: String,
        /// ECDSA P-256, r || s, 64 bytes.
        signature: Vec<u8>,
        /// Chain of the signer (PEM, signer first); none when nobody sent it.
        issuer_chain: Option<String>,
    },
}

/// PCS's answer, and the chain that PCS sends in a header.
#[derive(Serialize)]
struct SignedFile<'a> {
    #[serde(rename = "tcbInfo", skip_serializing_if = "Option::is_none")]
    tcb_info: Option<&'a RawValue>,
    #[serde(rename = "enclaveIdentity", skip_serializing_if = "Option::is_none")]
    enclave_identity: Option<&'a RawValue>,
    signature: String,
    #[serde(rename = "issuerChain", skip_serializing_if = "Option::is_none")]
    issuer_chain: Option<&'a str>,
}

impl Document {
    /// Its file in a bundle, text: PEM blocks, or for JSON the vendor's answer with one more member, `issuerChain` (PEM).
    pub fn to_file(&self) -> String {
        match &self.content {
            Content::Certificate(der) => block("CERTIFICATE", der),
            Content::Chain { ask, ark } => block("CERTIFICATE", ask) + &block("CERTIFICATE", ark),
            Content::Crl { list, issuer_chain } => block("X509 CRL", list) + issuer_chain,
            Content::Signed {
                name,
                json,
                signature,
                issuer_chain,
            } => {
                let value = serde_json::from_str::<&RawValue>(json).ok();
                let file = SignedFile {
                    tcb_info: value.filter(|_| *name == "tcbInfo"),
                    enclave_identity: value.filter(|_| *name == "enclaveIdentity"),
                    signature: hex::encode(signature),
                    issuer_chain: issuer_chain.as_deref(),
                };
                // Strings and raw JSON always serialize.
                serde_json::to_string(&file).unwrap_or_default() + "\n"
            }
        }
    }
}

/// Whether the vendor signed what is taken for `item`, as far as that can be told from it alone. What was forged would otherwise be
/// kept until there is something newer, which for certificates takes years. Intel's other documents are replaced soon.
pub(crate) fn is_of_vendor(item: &Item, content: &Content) -> bool {
    match (item, content) {
        (Item::Vcek { product, .. }, Content::Certificate(vcek)) => {
            vendor_chain(*product).signed_vcek(vcek)
        }
        (Item::SnpCrl { product, .. }, Content::Crl { list, .. }) => {
            vendor_chain(*product).signed_crl(list)
        }
        (Item::SnpChain { product, .. }, Content::Chain { ask, ark }) => {
            let chain = vendor_chain(*product);
            ark == chain.ark && chain.signed_ask(ask)
        }
        (Item::RootCrl, Content::Crl { list, .. }) => root_signed_crl(list),
        _ => true,
    }
}

pub(crate) fn block(tag: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), config)
}
