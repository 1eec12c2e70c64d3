use std::{fmt, sync::Arc, time::SystemTime};

use contrast_atls::{AtlsError, ClientConfig, Connector};
use contrast_proto::mesh::{NewMeshCertRequest, mesh_api_client::MeshApiClient};
use der::pem::LineEnding;
use tonic::transport::Endpoint;
use x509_cert::Certificate;
use zeroize::Zeroizing;

/// What the Coordinator gave this pod, ready to be installed.
pub struct Enrolled {
    /// Mesh CA certificate, PEM.
    pub mesh_ca: String,
    /// Root CA certificate, PEM.
    pub root_ca: String,
    /// Leaf and intermediate, PEM, leaf first.
    pub certificate_chain: String,
    /// Private key of the leaf, PKCS#8 PEM.
    pub private_key: Zeroizing<String>,
    /// Workload secret, 64 bytes, when the manifest gives this workload one.
    pub workload_secret: Option<Zeroizing<Vec<u8>>>,
    /// End of the leaf's validity.
    pub not_after: SystemTime,
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
    /// The answer cannot be installed.
    #[error("the Coordinator's answer is unusable: {what}")]
    Answer {
        /// What is wrong.
        what: String,
    },
    /// The own key cannot be written as PEM.
    #[error("the TLS key cannot be encoded")]
    Key(#[source] der::Error),
}

/// Asks the Coordinator at `address` (`HOST:PORT`) for a certificate on the key of `config.identity`.
///
/// # Errors
/// When the Coordinator cannot be reached, refuses this pod's evidence, or answers nonsense.
pub async fn enroll(address: &str, config: &ClientConfig) -> Result<Enrolled, EnrollError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|source| {
        EnrollError::Address {
            address: address.to_owned(),
            source,
        }
    })?;
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
    let answer = MeshApiClient::new(channel)
        .new_mesh_cert(NewMeshCertRequest {})
        .await
        .map_err(|status| EnrollError::Refused {
            code: status.code(),
            message: status.message().to_owned(),
        })?
        .into_inner();

    let chain =
        Certificate::load_pem_chain(answer.certificate_chain.as_bytes()).map_err(|error| {
            EnrollError::Answer {
                what: format!("certificate chain: {error}"),
            }
        })?;
    let Some(leaf) = chain.first() else {
        return Err(EnrollError::Answer {
            what: "the certificate chain is empty".to_owned(),
        });
    };
    check_key(leaf, config)?;
    let not_after = leaf.tbs_certificate().validity().not_after.to_system_time();
    let secret = Zeroizing::new(answer.workload_secret.to_vec());
    let workload_secret = match secret.len() {
        0 => None,
        64 => Some(secret),
        found => {
            let what = format!("workload secret has {found} bytes, expected 0 or 64");
            return Err(EnrollError::Answer { what });
        }
    };
    Ok(Enrolled {
        mesh_ca: answer.mesh_ca,
        root_ca: answer.root_ca,
        certificate_chain: answer.certificate_chain,
        private_key: private_key_pem(config)?,
        workload_secret,
        not_after,
    })
}

/// A certificate for another key would only fail later, in Envoy, where the reason is hard to see.
fn check_key(leaf: &Certificate, config: &ClientConfig) -> Result<(), EnrollError> {
    use der::Encode as _;
    let certified = leaf
        .tbs_certificate()
        .subject_public_key_info()
        .to_der()
        .map_err(|error| EnrollError::Answer {
            what: format!("public key: {error}"),
        })?;
    match certified == config.identity.spki() {
        true => Ok(()),
        false => Err(EnrollError::Answer {
            what: "the certificate is for another key".to_owned(),
        }),
    }
}

fn private_key_pem(config: &ClientConfig) -> Result<Zeroizing<String>, EnrollError> {
    let document = Zeroizing::new(config.identity.private_key_pkcs8().to_vec());
    der::pem::encode_string("PRIVATE KEY", LineEnding::LF, &document)
        .map(Zeroizing::new)
        .map_err(|error| EnrollError::Key(error.into()))
}
