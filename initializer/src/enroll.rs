use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use contrast_atls::{AtlsError, ClientConfig, Connector, Identity};
use contrast_pki::{KeyError, MeshAnswer, ReleasedSecret, RootKey};
use contrast_proto::mesh::{
    NewMeshCertRequest, NewMeshCertResponse, mesh_api_client::MeshApiClient,
};
use contrast_telemetry::traces::{self, Traced, traced};
use der::{Encode as _, pem::LineEnding};
use tonic::transport::Endpoint;
use tracing::Instrument as _;
use x509_cert::Certificate;
use zeroize::Zeroizing;

use crate::Sealed;

/// Longest time that the Coordinator may take for a certificate once it is connected.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often an idle connection is probed, and how long the other side may take to answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A mesh CA. Two are equal if they have the same key: each Coordinator replica makes a certificate of its own for it.
#[derive(Debug, Clone)]
pub struct MeshCaCertificate {
    /// The certificate, PEM.
    pub pem: String,
    /// Its key, `SubjectPublicKeyInfo` DER.
    pub key: Vec<u8>,
}

impl PartialEq for MeshCaCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for MeshCaCertificate {}

impl MeshCaCertificate {
    fn read(what: &str, pem: String) -> Result<Self, EnrollError> {
        let certificates = certificates(what, &pem)?;
        let [certificate] = certificates.as_slice() else {
            let found = certificates.len();
            return Err(unusable(format!(
                "{what}: expected one certificate, found {found}"
            )));
        };
        let key = public_key(certificate)?;
        Ok(Self { pem, key })
    }
}

/// What the Coordinator gave this pod.
pub struct Enrolled {
    /// Mesh CA, self-signed form.
    pub mesh_ca: MeshCaCertificate,
    /// Root CA certificate, PEM.
    pub root_ca: String,
    /// Its key, which signed the answer.
    pub root_key: RootKey,
    /// Leaf and intermediate, PEM, leaf first.
    pub certificate_chain: String,
    /// Workload secret, 64 bytes, when the manifest gives this workload one.
    pub workload_secret: Option<Zeroizing<Vec<u8>>>,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
    /// Transition under which the certificate was issued.
    pub transition: Vec<u8>,
    /// Mesh CA of the transition before, while it is trusted, self-signed form.
    pub previous_mesh_ca: Option<MeshCaCertificate>,
    /// How long the previous mesh CA stays trusted from now on.
    pub previous_mesh_ca_trusted: Duration,
    /// Sealed secrets that the manifest gives this pod.
    pub sealed: Sealed,
}

impl fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolled")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Enrolment failed. Every case may pass, so the caller tries again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrollError {
    /// The Coordinator's address cannot be used.
    #[error(
        "`{address}` is no usable Coordinator address; expected HOST or HOST:PORT in COORDINATOR_HOST"
    )]
    Address {
        /// What was configured.
        address: String,
        /// What is wrong with it.
        #[source]
        source: tonic::transport::Error,
    },
    /// Attested TLS failed: unreachable, refused, or not a Coordinator.
    #[error("no attested connection to the Coordinator at {address}")]
    Connection {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: Arc<AtlsError>,
    },
    /// The connection failed outside attested TLS.
    #[error("cannot connect to the Coordinator at {address}")]
    Transport {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The Coordinator answered with an error.
    #[error("the Coordinator refused the request ({code}): {message}")]
    Refused {
        /// gRPC status code.
        code: tonic::Code,
        /// The Coordinator's words.
        message: String,
    },
    /// No random nonce.
    #[error("cannot draw a nonce for the request")]
    Nonce(#[source] getrandom::Error),
    /// The answer of another deployment than the one that this pod belongs to.
    #[error(
        "the answer is of another deployment: expected the root CA key with SHA-256 {expected}, found {found}; what is installed stays. \
         If the deployment was founded anew, replace this pod; else somebody leads it to a Coordinator that is not its own"
    )]
    OtherDeployment {
        /// Of the deployment that enrolled this pod.
        expected: RootKey,
        /// Of the answer.
        found: RootKey,
    },
    /// An answer that the root CA did not sign for this request.
    #[error("the Coordinator's answer is not signed by the root CA that it names")]
    Signature(#[source] KeyError),
    /// The answer cannot be installed.
    #[error("the Coordinator's answer is unusable: {what}")]
    Answer {
        /// What is wrong.
        what: String,
    },
}

impl EnrollError {
    /// Whether the active manifest does not admit this pod, which only another manifest changes.
    pub fn is_not_admitted(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == tonic::Code::PermissionDenied)
    }

    pub(crate) fn refused(status: &tonic::Status) -> Self {
        let message = match (status.code(), status.message()) {
            (tonic::Code::Unimplemented, "") => {
                "its version does not know this request; update the Coordinators before the pods"
            }
            (_, message) => message,
        };
        Self::Refused {
            code: status.code(),
            message: message.to_owned(),
        }
    }
}

/// An attested connection to the mesh API at `address` (`HOST:PORT`).
pub(crate) async fn connect(
    address: &str,
    config: &ClientConfig,
    timeout: Duration,
) -> Result<MeshApiClient<Traced>, EnrollError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|source| EnrollError::Address {
            address: address.to_owned(),
            source,
        })?
        .timeout(timeout)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    let connector = Connector::new(config.clone());
    let channel = endpoint
        .connect_with_connector(connector.clone())
        .await
        .map_err(|source| match connector.last_failure() {
            Some(source) => EnrollError::Connection {
                address: address.to_owned(),
                source,
            },
            None => EnrollError::Transport {
                address: address.to_owned(),
                source,
            },
        })?;
    Ok(MeshApiClient::new(traced(channel)))
}

/// Asks the Coordinator at `address` (`HOST:PORT`) for a certificate on the key of `config.identity`. Whose Coordinator it is, is judged by
/// `deployment`, the root CA key of the deployment that this pod belongs to; the first answer, without one, decides that.
///
/// # Errors
/// When the Coordinator cannot be reached, refuses this pod's evidence, is of another deployment, or answers nonsense.
pub async fn enroll(
    address: &str,
    config: &ClientConfig,
    deployment: Option<&RootKey>,
) -> Result<Enrolled, EnrollError> {
    let asking = ask(address, config, deployment);
    asking.instrument(traces::root("enrol")).await
}

async fn ask(
    address: &str,
    config: &ClientConfig,
    deployment: Option<&RootKey>,
) -> Result<Enrolled, EnrollError> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(EnrollError::Nonce)?;
    let answer = connect(address, config, ANSWER_TIMEOUT)
        .await?
        .new_mesh_cert(NewMeshCertRequest {
            nonce: nonce.to_vec().into(),
        })
        .await
        .map_err(|status| EnrollError::refused(&status))?
        .into_inner();
    let root_key = origin(&answer, &nonce, config, deployment)?;
    checked(answer, root_key, config)
}

/// The root CA whose answer it is. Nobody can give one of this deployment but its Coordinators, and none of an earlier request.
fn origin(
    answer: &NewMeshCertResponse,
    nonce: &[u8],
    config: &ClientConfig,
    deployment: Option<&RootKey>,
) -> Result<RootKey, EnrollError> {
    let found = RootKey::of_certificate(&answer.root_ca)
        .map_err(|error| unusable(format!("root CA certificate: {error}")))?;
    if let Some(expected) = deployment.filter(|expected| **expected != found) {
        return Err(EnrollError::OtherDeployment {
            expected: expected.clone(),
            found,
        });
    }
    let released: Vec<_> = answer
        .sealed_secrets
        .iter()
        .map(|secret| ReleasedSecret {
            kind: &secret.kind,
            name: &secret.name,
            content: &secret.content,
        })
        .collect();
    let signed = MeshAnswer {
        nonce,
        public_key_spki: config.identity.spki(),
        mesh_ca: &answer.mesh_ca,
        certificate_chain: &answer.certificate_chain,
        root_ca: &answer.root_ca,
        workload_secret: &answer.workload_secret,
        transition: &answer.transition,
        previous_mesh_ca: &answer.previous_mesh_ca,
        previous_mesh_ca_trusted_ms: answer.previous_mesh_ca_trusted_ms,
        sealed_secrets: &released,
    };
    let signature = signed.message().verify(&found, &answer.signature);
    signature.map_err(EnrollError::Signature)?;
    Ok(found)
}

/// What cannot be used must not replace what is installed.
fn checked(
    answer: NewMeshCertResponse,
    root_key: RootKey,
    config: &ClientConfig,
) -> Result<Enrolled, EnrollError> {
    let chain = certificates("certificate chain", &answer.certificate_chain)?;
    let mesh_ca = MeshCaCertificate::read("mesh CA certificate", answer.mesh_ca)?;
    let previous_mesh_ca = (!answer.previous_mesh_ca.is_empty())
        .then(|| MeshCaCertificate::read("previous mesh CA certificate", answer.previous_mesh_ca))
        .transpose()?;
    let Some(leaf) = chain.first() else {
        return Err(unusable("the certificate chain is empty".to_owned()));
    };
    check_key(leaf, config)?;
    let not_after = leaf.tbs_certificate().validity().not_after.to_system_time();
    let secret = Zeroizing::new(answer.workload_secret.to_vec());
    let workload_secret = match secret.len() {
        0 => None,
        64 => Some(secret),
        found => {
            let what = format!("workload secret has {found} bytes, expected 0 or 64");
            return Err(unusable(what));
        }
    };
    let sealed =
        Sealed::read(&answer.sealed_secrets).map_err(|error| unusable(error.to_string()))?;
    Ok(Enrolled {
        sealed,
        mesh_ca,
        root_ca: answer.root_ca,
        root_key,
        certificate_chain: answer.certificate_chain,
        workload_secret,
        not_after,
        transition: answer.transition.to_vec(),
        previous_mesh_ca,
        previous_mesh_ca_trusted: Duration::from_millis(answer.previous_mesh_ca_trusted_ms),
    })
}

fn unusable(what: String) -> EnrollError {
    EnrollError::Answer { what }
}

fn certificates(what: &str, pem: &str) -> Result<Vec<Certificate>, EnrollError> {
    match Certificate::load_pem_chain(pem.as_bytes()) {
        Ok(found) if found.is_empty() => Err(unusable(format!("{what}: no certificate"))),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(format!("{what}: {error}"))),
    }
}

/// A certificate for another key would only fail later, in Envoy, where the reason is hard to see.
fn check_key(leaf: &Certificate, config: &ClientConfig) -> Result<(), EnrollError> {
    match public_key(leaf)? == config.identity.spki() {
        true => Ok(()),
        false => Err(unusable("the certificate is for another key".to_owned())),
    }
}

fn public_key(certificate: &Certificate) -> Result<Vec<u8>, EnrollError> {
    let key = certificate.tbs_certificate().subject_public_key_info();
    key.to_der()
        .map_err(|error| unusable(format!("public key: {error}")))
}

/// The private key as it is installed: PKCS#8 PEM.
pub(crate) fn private_key_pem(identity: &Identity) -> Result<Zeroizing<String>, der::Error> {
    der::pem::encode_string("PRIVATE KEY", LineEnding::LF, identity.private_key_pkcs8())
        .map(Zeroizing::new)
        .map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinator_that_does_not_know_the_request_is_called_the_older_one() {
        let error = EnrollError::refused(&tonic::Status::unimplemented(""));
        let text = error.to_string();
        assert!(
            text.ends_with(
                "its version does not know this request; update the Coordinators before the pods"
            ),
            "{text}"
        );
        let own = EnrollError::refused(&tonic::Status::unimplemented("not on this port"));
        assert!(own.to_string().ends_with(": not on this port"), "{own}");
    }
}
