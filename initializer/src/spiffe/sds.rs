use std::sync::Arc;

use bytes::Bytes;
use contrast_proto::secret::{
    Any, CertificateValidationContext, DataSource, DiscoveryRequest, DiscoveryResponse, Secret,
    TlsCertificate, data_source::Specifier, secret::Type,
    secret_discovery_service_server::SecretDiscoveryService,
};
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::{Svid, Updates, stream_permit};

const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Certificate and key.
const CERTIFICATE: &str = "default";
/// What is trusted.
const TRUST: &str = "ROOTCA";

#[derive(Debug)]
pub(super) struct Service {
    pub(super) updates: Updates,
    pub(super) streams: Arc<Semaphore>,
}

type Answer = Result<DiscoveryResponse, Status>;

#[tonic::async_trait]
impl SecretDiscoveryService for Service {
    type StreamSecretsStream = ReceiverStream<Answer>;

    #[expect(
        clippy::disallowed_methods,
        reason = "one task for each stream, which ends with it; the permit bounds them"
    )]
    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let permit = stream_permit(&self.streams)?;
        let (answers, receiver) = mpsc::channel(1);
        let updates = self.updates.clone();
        tokio::spawn(converse(request.into_inner(), updates, answers, permit));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let mut session = Session::default();
        session.asked(request.into_inner())?;
        let svid = self.updates.borrow().clone();
        let answer = svid.and_then(|svid| session.answer(&svid));
        let missing = || Status::unavailable("the pod is not enrolled yet; ask again");
        answer.map(Response::new).ok_or_else(missing)
    }
}

/// Lives as long as the client reads.
async fn converse(
    mut requests: Streaming<DiscoveryRequest>,
    mut updates: Updates,
    answers: mpsc::Sender<Answer>,
    _permit: OwnedSemaphorePermit,
) {
    let mut session = Session::default();
    loop {
        let outcome = tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) => session.asked(request),
                Ok(None) | Err(_) => return,
            },
            changed = updates.changed() => match changed {
                Ok(()) => {
                    session.changed();
                    Ok(())
                }
                Err(_) => return,
            },
            () = answers.closed() => return,
        };
        let answer = match outcome {
            Ok(()) => {
                let svid = updates.borrow_and_update().clone();
                svid.and_then(|svid| session.answer(&svid)).map(Ok)
            }
            Err(status) => Some(Err(status)),
        };
        let Some(answer) = answer else { continue };
        let ends = answer.is_err();
        if answers.send(answer).await.is_err() || ends {
            return;
        }
    }
}

/// What one client wants and has: decides what is sent, and when.
#[derive(Debug, Default)]
struct Session {
    names: Option<Vec<String>>,
    /// Number of the latest response.
    sent: u64,
    /// Something is to be sent.
    due: bool,
}

impl Session {
    /// A first request, other names, or the client's word on the latest response.
    fn asked(&mut self, request: DiscoveryRequest) -> Result<(), Status> {
        if !request.type_url.is_empty() && request.type_url != TYPE_URL {
            return Err(Status::invalid_argument(format!(
                "expected the type {TYPE_URL}, found {}",
                request.type_url
            )));
        }
        // It crossed with a response that the client answers next.
        let stale = !request.response_nonce.is_empty() && request.response_nonce != self.nonce();
        if stale {
            return Ok(());
        }
        if let Some(error) = request.error_detail {
            // To send the same again would be refused again.
            tracing::error!("Envoy refuses its certificate: {}", error.message);
        }
        if self.names.as_ref() != Some(&request.resource_names) {
            self.names = Some(request.resource_names);
            self.due = true;
        }
        Ok(())
    }

    /// There is another version.
    fn changed(&mut self) {
        self.due = self.names.is_some();
    }

    /// What is to be sent now.
    fn answer(&mut self, svid: &Svid) -> Option<DiscoveryResponse> {
        let names = self.names.as_ref().filter(|_| self.due)?;
        self.due = false;
        self.sent = self.sent.saturating_add(1);
        let wanted = |name: &&str| names.is_empty() || names.iter().any(|wanted| wanted == name);
        let resources = [CERTIFICATE, TRUST].into_iter().filter(wanted);
        Some(DiscoveryResponse {
            version_info: self.nonce(),
            resources: resources.map(|name| resource(name, svid)).collect(),
            type_url: TYPE_URL.to_owned(),
            nonce: self.nonce(),
        })
    }

    fn nonce(&self) -> String {
        self.sent.to_string()
    }
}

fn resource(name: &str, svid: &Svid) -> Any {
    let inline = |content: Bytes| {
        Some(DataSource {
            specifier: Some(Specifier::InlineBytes(content)),
        })
    };
    let kind = match name {
        CERTIFICATE => Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(svid.chain_pem.clone().into()),
            private_key: inline(svid.private_key_pem()),
        }),
        _ => Type::ValidationContext(CertificateValidationContext {
            trusted_ca: inline(svid.bundle_pem.clone().into()),
        }),
    };
    let secret = Secret {
        name: name.to_owned(),
        r#type: Some(kind),
    };
    Any {
        type_url: TYPE_URL.to_owned(),
        // It contains the key.
        value: Bytes::from_owner(Zeroizing::new(secret.encode_to_vec())),
    }
}
