//! The document of the Coordinator's attest API (port 1314): what it says, how the evidence beside it covers it, and a reader.
//!
//! A [`Statement`] is JSON that holds the caller's nonce, the history and the CA certificates. An [`Answer`] holds the exact bytes of a
//! statement and evidence whose report data is [`report_data`] of both. Whoever verifies that evidence against that report data knows that
//! the Coordinator said all of the statement after it saw the nonce. Nothing that this crate reads is trusted before that.
//!
//! It does no I/O, knows no clock and does not verify evidence. The format is described byte by byte in `docs/reference/attest-api.md`.

mod blob;
mod statement;

#[cfg(not(target_arch = "wasm32"))]
use aws_lc_rs::digest;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
#[cfg(target_arch = "wasm32")]
use ring::digest;
use serde::{Deserialize, Serialize};

pub use blob::Blob;
pub use statement::{Statement, StatementTransition};

/// Version of answers and statements that this crate writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// Largest answer, in bytes of JSON. A reader refuses more before it parses anything, and the Coordinator sends no more.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Size of a nonce, in bytes.
pub const NONCE_BYTES: usize = 32;

/// First bytes of the hashed text. The first field of attested TLS begins with a zero byte (of its length), so that no text of one is a
/// text of the other.
const LABEL: &[u8] = b"contrast attest v1";

/// What a document of the attest API is refused for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// A nonce of another size or encoding.
    #[error(
        "the nonce must be {NONCE_BYTES} bytes in base64 (or base64url without padding), found {found}"
    )]
    Nonce {
        /// What was found, for people.
        found: String,
    },
    /// A query without a nonce.
    #[error("the parameter `nonce` is missing: 32 bytes in base64url without padding")]
    NoNonce,
    /// More bytes than an answer may have.
    #[error(
        "the answer has {found} bytes, at most {ANSWER_BYTES_MAX} are read; ask with policies=omit to get less"
    )]
    TooLarge {
        /// Its size.
        found: usize,
    },
    /// A document of another version.
    #[error("the {what} has version {found}, this program reads version {VERSION}; update it")]
    Version {
        /// Answer or statement.
        what: &'static str,
        /// Its version.
        found: u32,
    },
    /// Not the JSON that the format asks for.
    #[error("the {what} is not the JSON of docs/reference/attest-api.md")]
    Json {
        /// Request, answer or statement.
        what: &'static str,
        /// Where it deviates.
        source: serde_json::Error,
    },
    /// An answer to another question: an old one, or one for somebody else.
    #[error("the statement names another nonce than the one asked with; ask again")]
    OtherNonce,
}

impl DocumentError {
    /// A name for programs, which stays the same when the text changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Nonce { .. } | Self::NoNonce => "BAD_NONCE",
            Self::TooLarge { .. } => "ANSWER_TOO_LARGE",
            Self::Version { .. } => "UNKNOWN_VERSION",
            Self::Json { .. } => "NOT_AN_ANSWER",
            Self::OtherNonce => "OTHER_NONCE",
        }
    }
}

/// A caller's random bytes, which make an answer fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; NONCE_BYTES]);

impl Nonce {
    /// Reads base64, or base64url without padding.
    ///
    /// # Errors
    /// When it is neither, or not of 32 bytes.
    pub fn parse(text: &str) -> Result<Self, DocumentError> {
        let refused = |found: String| DocumentError::Nonce { found };
        let bytes = BASE64_STANDARD
            .decode(text)
            .or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(text))
            .map_err(|_| refused("neither encoding".to_owned()))?;
        let found = bytes.len();
        let nonce = bytes.try_into();
        nonce
            .map(Self)
            .map_err(|_| refused(format!("{found} bytes")))
    }

    /// As in the query of a GET request: base64url without padding.
    pub fn to_base64url(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// The body of `POST /v1/attest`, or the query of `GET /v1/attest`. Unknown fields are ignored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The [`Nonce`], base64.
    pub nonce: String,
    /// `omit` leaves out the policy documents; anything else, or nothing, does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<String>,
}

impl Request {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// When it is not such JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        serde_json::from_slice(bytes).map_err(|source| DocumentError::Json {
            what: "request",
            source,
        })
    }

    /// Reads the query of a request, without its question mark. Of a parameter that is given twice the first counts; nothing is
    /// percent-decoded.
    ///
    /// # Errors
    /// When it has no nonce. What the nonce is, is not looked at.
    pub fn from_query(query: &str) -> Result<Self, DocumentError> {
        let value = |name| {
            let mut parameters = query.split('&').filter_map(|one| one.split_once('='));
            let found = parameters.find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_owned())
        };
        Ok(Self {
            nonce: value("nonce").ok_or(DocumentError::NoNonce)?,
            policies: value("policies"),
        })
    }

    /// Whether it asks for an answer without the policy documents.
    pub fn omits_policies(&self) -> bool {
        self.policies.as_deref() == Some("omit")
    }
}

/// What the Coordinator answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    version: u32,
    /// Protobuf `contrast.v1.evidence.Evidence`.
    pub evidence: Blob,
    /// Exact bytes of the JSON of a [`Statement`].
    pub statement: Blob,
}

impl Answer {
    /// Puts together what the TEE gave for [`report_data`] of `statement`.
    pub fn new(evidence: Vec<u8>, statement: Vec<u8>) -> Self {
        Self {
            version: VERSION,
            evidence: Blob(evidence),
            statement: Blob(statement),
        }
    }

    /// Reads an answer. Nothing in it is trusted yet, and its statement is not read.
    ///
    /// # Errors
    /// When it is too large, of another version, or no answer.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(DocumentError::TooLarge { found: bytes.len() });
        }
        check_version("answer", bytes)?;
        parse("answer", bytes)
    }

    /// JSON.
    ///
    /// # Errors
    /// When it would be larger than readers accept.
    pub fn to_json(&self) -> Result<Vec<u8>, DocumentError> {
        let json = serde_json::to_vec(self).map_err(|source| DocumentError::Json {
            what: "answer",
            source,
        })?;
        match json.len() {
            0..=ANSWER_BYTES_MAX => Ok(json),
            found => Err(DocumentError::TooLarge { found }),
        }
    }

    /// What the evidence must carry for `nonce`.
    pub fn report_data(&self, nonce: &Nonce) -> [u8; 64] {
        report_data(nonce, &self.statement.0)
    }

    /// The statement, if it answers `nonce`. Believe it only after the evidence was verified against [`Answer::report_data`].
    ///
    /// # Errors
    /// When it is no statement, of another version, or names another nonce.
    pub fn statement(&self, nonce: &Nonce) -> Result<Statement, DocumentError> {
        let statement = Statement::parse(&self.statement.0)?;
        match statement.nonce.0 == nonce.0 {
            true => Ok(statement),
            false => Err(DocumentError::OtherNonce),
        }
    }
}

/// `SHA-512("contrast attest v1" || nonce || SHA-256(statement))`. All parts but the last have fixed sizes, so that no two inputs hash the
/// same text.
pub fn report_data(nonce: &Nonce, statement: &[u8]) -> [u8; 64] {
    let mut context = digest::Context::new(&digest::SHA512);
    context.update(LABEL);
    context.update(&nonce.0);
    context.update(digest::digest(&digest::SHA256, statement).as_ref());
    let mut hash = [0; 64];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The version is read before anything else: what another version looks like is not known here.
fn check_version(what: &'static str, bytes: &[u8]) -> Result<(), DocumentError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match parse::<Version>(what, bytes)?.version {
        VERSION => Ok(()),
        found => Err(DocumentError::Version { what, found }),
    }
}

fn parse<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { what, source })
}

#[cfg(test)]
mod tests;
