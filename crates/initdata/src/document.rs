use std::{collections::BTreeMap, io::Read as _, io::Write as _};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};

/// Annotation of the pod that carries the document: base64 of gzip of the TOML text.
pub const INITDATA_ANNOTATION: &str = "io.katacontainers.config.hypervisor.cc_init_data";

const VERSION: &str = "0.1.0";
const ALGORITHM: &str = "sha256";
const POLICY_KEY: &str = "policy.rego";
/// Largest document in bytes; a larger one is refused while it is unpacked.
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A document that is no initdata.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitdataError {
    /// Not base64.
    #[error("the initdata annotation is not base64")]
    Base64(#[source] base64::DecodeError),
    /// Not gzip, or larger than a document may be.
    #[error("the initdata annotation does not hold gzip of at most {DOCUMENT_BYTES_MAX} bytes")]
    Gzip(#[source] std::io::Error),
    /// Not text.
    #[error("the initdata document is not UTF-8")]
    Utf8,
    /// Not TOML of the expected shape.
    #[error("the initdata document is not TOML with `version`, `algorithm` and `[data]`")]
    Toml(#[source] toml::de::Error),
    /// Another version or algorithm.
    #[error("the initdata document has {field} `{found}`, expected `{expected}`")]
    Unsupported {
        /// `version` or `algorithm`.
        field: &'static str,
        /// What is supported.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// No policy.
    #[error("the initdata document has no `{POLICY_KEY}`")]
    NoPolicy,
    /// Cannot be written.
    #[error("the initdata document cannot be encoded: {0}")]
    Encode(String),
}

/// An initdata document: the exact bytes, which are what the hardware's hash covers, and the policy in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initdata {
    bytes: Vec<u8>,
    policy: String,
    others: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Toml {
    version: String,
    algorithm: String,
    data: BTreeMap<String, String>,
}

impl Initdata {
    /// A document that carries `policy`.
    ///
    /// # Errors
    /// When it is larger than a document may be.
    pub fn with_policy(policy: &str) -> Result<Self, InitdataError> {
        let document = Toml {
            version: VERSION.to_owned(),
            algorithm: ALGORITHM.to_owned(),
            data: BTreeMap::from([(POLICY_KEY.to_owned(), policy.to_owned())]),
        };
        let text = toml::to_string_pretty(&document)
            .map_err(|error| InitdataError::Encode(error.to_string()))?;
        if text.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(InitdataError::Encode(format!(
                "more than {DOCUMENT_BYTES_MAX} bytes"
            )));
        }
        Self::parse(text.into_bytes())
    }

    /// Reads a document.
    ///
    /// # Errors
    /// When the bytes are none, or of another version.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, InitdataError> {
        let text = str::from_utf8(&bytes).map_err(|_| InitdataError::Utf8)?;
        let mut document: Toml = toml::from_str(text).map_err(InitdataError::Toml)?;
        let supported = [
            ("version", VERSION, &document.version),
            ("algorithm", ALGORITHM, &document.algorithm),
        ];
        for (field, expected, found) in supported {
            if found != expected {
                return Err(InitdataError::Unsupported {
                    field,
                    expected,
                    found: found.clone(),
                });
            }
        }
        let policy = document
            .data
            .remove(POLICY_KEY)
            .ok_or(InitdataError::NoPolicy)?;
        Ok(Self {
            bytes,
            policy,
            others: document.data,
        })
    }

    /// Reads the pod's annotation.
    ///
    /// # Errors
    /// When it is not base64 of gzip of a document, or unpacks to more than a document may have.
    pub fn from_annotation(annotation: &str) -> Result<Self, InitdataError> {
        let packed = STANDARD.decode(annotation).map_err(InitdataError::Base64)?;
        let mut bytes = Vec::new();
        let mut unpacked = GzDecoder::new(packed.as_slice()).take(DOCUMENT_BYTES_MAX + 1);
        unpacked
            .read_to_end(&mut bytes)
            .map_err(InitdataError::Gzip)?;
        if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
            let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "it is larger");
            return Err(InitdataError::Gzip(error));
        }
        Self::parse(bytes)
    }

    /// The pod's annotation. The same document always gives the same text.
    ///
    /// # Errors
    /// Never: packing goes to memory.
    pub fn to_annotation(&self) -> Result<String, InitdataError> {
        let packed = pack(&self.bytes)?;
        Ok(STANDARD.encode(packed))
    }

    /// The exact bytes of the document.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the document: HOSTDATA, MRCONFIGID, and the manifest's key.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        for (to, from) in hash.iter_mut().zip(digest(&SHA256, &self.bytes).as_ref()) {
            *to = *from;
        }
        hash
    }

    /// The Rego text in the document.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// What the document says besides, by name: configuration of the guest's programs, such as `aa.toml`.
    pub fn others(&self) -> &BTreeMap<String, String> {
        &self.others
    }
}

/// Always the same for the same bytes.
pub(crate) fn pack(bytes: &[u8]) -> Result<Vec<u8>, InitdataError> {
    let encode = || -> std::io::Result<Vec<u8>> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(bytes)?;
        packer.finish()
    };
    encode().map_err(|error| InitdataError::Encode(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_survives_the_annotation_byte_for_byte() {
        let policy = "package agent_policy\nx := \"'''quotes\\\\\"\n";
        let initdata = Initdata::with_policy(policy).expect("fits");
        let annotation = initdata.to_annotation().expect("packs");
        let again = Initdata::from_annotation(&annotation).expect("unpacks");
        assert_eq!(again, initdata);
        assert_eq!(again.policy(), policy);
        assert_eq!(again.to_annotation().expect("packs"), annotation);
        assert_eq!(
            hex::encode(again.hash()),
            hex::encode(digest(&SHA256, initdata.bytes()))
        );
    }

    #[test]
    fn what_is_no_document_is_named() {
        let from = |text: &str| Initdata::parse(text.as_bytes().to_vec()).expect_err("no document");
        assert!(matches!(from("x = 1"), InitdataError::Toml(_)));
        let error = from("version = \"0.2.0\"\nalgorithm = \"sha256\"\n[data]\n").to_string();
        assert_eq!(
            error,
            "the initdata document has version `0.2.0`, expected `0.1.0`"
        );
        let empty = from("version = \"0.1.0\"\nalgorithm = \"sha256\"\n[data]\n");
        assert!(matches!(empty, InitdataError::NoPolicy));
        assert!(matches!(
            Initdata::from_annotation("%"),
            Err(InitdataError::Base64(_))
        ));
        assert!(matches!(
            Initdata::from_annotation("AAAA"),
            Err(InitdataError::Gzip(_))
        ));
    }

    #[test]
    fn decompression_bomb_is_refused() {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        let zeros = vec![b' '; 1024 * 1024];
        for _ in 0..64 {
            packer.write_all(&zeros).expect("packs");
        }
        let bomb = STANDARD.encode(packer.finish().expect("packs"));
        assert!(matches!(
            Initdata::from_annotation(&bomb),
            Err(InitdataError::Gzip(_))
        ));
    }
}
