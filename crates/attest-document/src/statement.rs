use contrast_proto::user::{GetManifestsResponse, Transition};
use serde::{Deserialize, Serialize};

use crate::{Blob, DocumentError, Nonce, VERSION, check_version, parse};

/// What the Coordinator says. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    version: u32,
    /// The caller's nonce.
    pub nonce: Blob,
    /// When the Coordinator's own clock says that it was made, RFC 3339. The host controls that clock: freshness comes from the nonce.
    pub issued_at: String,
    /// The history, oldest first.
    pub transitions: Vec<StatementTransition>,
    /// Every distinct manifest, exact bytes, in order of first use.
    pub manifests: Vec<Blob>,
    /// Every distinct initdata document, exact bytes; empty with `policies_omitted`.
    pub policies: Vec<Blob>,
    /// Whether the caller asked to leave out the policies.
    pub policies_omitted: bool,
    /// Root CA certificate, PEM.
    pub root_ca: String,
    /// Mesh CA certificate of the latest transition, self-signed form, PEM.
    pub mesh_ca: String,
}

/// One transition: the fields of `contrast.v1.user.Transition`, all base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "sizes and meaning are in user.proto")]
pub struct StatementTransition {
    pub manifest_hash: Blob,
    pub previous: Blob,
    pub mesh_ca_public_key: Blob,
    pub signature: Blob,
    pub signing_public_key: Blob,
    pub seed_shares_digest: Blob,
}

impl Statement {
    /// A statement of `history`, with or without its policies.
    pub fn new(
        nonce: &Nonce,
        issued_at: String,
        history: GetManifestsResponse,
        omit_policies: bool,
    ) -> Self {
        let blobs = |documents: Vec<_>| documents.iter().map(blob).collect();
        Self {
            version: VERSION,
            nonce: Blob(nonce.0.to_vec()),
            issued_at,
            transitions: history.transitions.iter().map(from_proto).collect(),
            manifests: blobs(history.manifests),
            policies: match omit_policies {
                true => Vec::new(),
                false => blobs(history.policies),
            },
            policies_omitted: omit_policies,
            root_ca: history.root_ca,
            mesh_ca: history.mesh_ca,
        }
    }

    /// Reads the bytes of a statement.
    ///
    /// # Errors
    /// When they are of another version, or no statement.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        check_version("statement", bytes)?;
        parse("statement", bytes)
    }

    /// The bytes to bind evidence to.
    ///
    /// # Errors
    /// Never: all of it can be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, DocumentError> {
        serde_json::to_vec(self).map_err(|source| DocumentError::Json {
            what: "statement",
            source,
        })
    }

    /// What `GetManifests` of the user API answers, for the code that verifies histories. Lacks the policies with `policies_omitted`.
    pub fn into_history(self) -> GetManifestsResponse {
        let bytes = |blobs: Vec<Blob>| blobs.into_iter().map(|blob| blob.0.into()).collect();
        GetManifestsResponse {
            transitions: self.transitions.into_iter().map(to_proto).collect(),
            manifests: bytes(self.manifests),
            policies: bytes(self.policies),
            root_ca: self.root_ca,
            mesh_ca: self.mesh_ca,
        }
    }
}

fn blob(bytes: &impl AsRef<[u8]>) -> Blob {
    Blob(bytes.as_ref().to_vec())
}

fn from_proto(transition: &Transition) -> StatementTransition {
    StatementTransition {
        manifest_hash: blob(&transition.manifest_hash),
        previous: blob(&transition.previous),
        mesh_ca_public_key: blob(&transition.mesh_ca_public_key),
        signature: blob(&transition.signature),
        signing_public_key: blob(&transition.signing_public_key),
        seed_shares_digest: blob(&transition.seed_shares_digest),
    }
}

fn to_proto(transition: StatementTransition) -> Transition {
    Transition {
        manifest_hash: transition.manifest_hash.0.into(),
        previous: transition.previous.0.into(),
        mesh_ca_public_key: transition.mesh_ca_public_key.0.into(),
        signature: transition.signature.0.into(),
        signing_public_key: transition.signing_public_key.0.into(),
        seed_shares_digest: transition.seed_shares_digest.0.into(),
    }
}
