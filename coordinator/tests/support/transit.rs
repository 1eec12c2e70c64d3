//! A client of the transit engine: TLS with a certificate of the mesh, HTTP/1.1 that is kept alive.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use contrast_atls::Identity;
use contrast_attestation::Issuer;
use contrast_clock::{SystemEntropy, WallClock};
use contrast_manifest::Manifest;
use contrast_pki::{LeafRequest, MeshCa, RootCa, SigningKey};
use contrast_proto::mesh::{NewMeshCertRequest, mesh_api_client::MeshApiClient};
use futures::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, body::Frame, client::conn::http1, header::HeaderMap};
use hyper_util::rt::TokioIo;
use rustls::{
    RootCertStore, client::WebPkiServerVerifier, crypto::aws_lc_rs::default_provider,
    time_provider::TimeProvider, version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use serde_json::Value;
use tokio::{net::TcpStream, runtime::Handle, task::JoinHandle};
use tokio_rustls::TlsConnector;

use super::{channel_as, now};

/// What a workload shows and trusts.
#[derive(Clone)]
pub struct Credentials {
    /// Certificate chain (PEM) and private key (PKCS#8 DER); without, the client shows nothing.
    pub own: Option<(String, Vec<u8>)>,
    /// The mesh CA that it trusts, PEM.
    pub mesh_ca: String,
}

impl Credentials {
    /// Attests as `guest`, and fetches a certificate.
    pub async fn fetch(mesh_api: SocketAddr, manifest: &Manifest, guest: Arc<dyn Issuer>) -> Self {
        let identity = Arc::new(Identity::generate(now()).expect("identity"));
        let verifier = Arc::new(manifest.coordinator_verifier());
        let channel = channel_as(mesh_api, Arc::clone(&identity), Some(guest), verifier).await;
        let mut mesh = MeshApiClient::new(channel.expect("connects"));
        let issued = mesh.new_mesh_cert(NewMeshCertRequest::default()).await;
        let issued = issued.expect("issues").into_inner();
        let key = identity.private_key_pkcs8().to_vec();
        Self {
            own: Some((issued.certificate_chain, key)),
            mesh_ca: issued.mesh_ca,
        }
    }

    /// The same trust, with a certificate for the workload secret `id` from a mesh CA that belongs to nobody.
    pub fn of_another_mesh(&self, id: &str) -> Self {
        Self {
            own: Some(Mesh::new().leaf("web", Some(id))),
            mesh_ca: self.mesh_ca.clone(),
        }
    }
}

/// A mesh of no Coordinator.
pub struct Mesh(pub MeshCa);

impl Mesh {
    pub fn new() -> Self {
        let root = SigningKey::generate(&SystemEntropy).expect("key");
        let root = RootCa::new(root, now()).expect("root CA");
        Self(MeshCa::generate(&SystemEntropy, &root, now()).expect("mesh CA"))
    }

    /// Certificate chain and private key of a member.
    pub fn leaf(&self, san: &str, id: Option<&str>) -> (String, Vec<u8>) {
        let key = SigningKey::generate(&SystemEntropy).expect("key");
        let request = LeafRequest {
            public_key_spki: key.public_key_spki(),
            sans: &[san.to_owned()],
            spiffe_id: None,
            peer_ip: None,
            workload_secret_id: id,
            extensions: &[],
            lifetime: Duration::from_hours(1),
        };
        let leaf = self.0.issue_leaf(&request, &SystemEntropy, now());
        let key = key.to_pkcs8_der().expect("key").to_vec();
        (leaf.expect("issues").chain_pem, key)
    }
}

/// Time as the client sees it.
#[derive(Debug)]
struct Time(Arc<dyn WallClock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.now().duration_since(SystemTime::UNIX_EPOCH);
        Some(UnixTime::since_unix_epoch(since.ok()?))
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
    read.expect("PEM")
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.get(name)?;
        Some(value.to_str().expect("text").to_owned())
    }
}

/// One connection.
pub struct Connection {
    sender: http1::SendRequest<UnsyncBoxBody<Bytes, Infallible>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects; an error if the server's certificate is not accepted. The server's opinion of the client's certificate is known only
    /// after the first request.
    pub async fn open(
        address: SocketAddr,
        credentials: &Credentials,
        clock: &Arc<dyn WallClock>,
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&credentials.mesh_ca) {
            roots.add(certificate).expect("a CA");
        }
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = verifier.build().expect("a verifier");
        let time = Arc::new(Time(Arc::clone(clock)));
        let builder = rustls::ClientConfig::builder_with_details(provider, time)
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .with_webpki_verifier(verifier);
        let config = match credentials.own.clone() {
            Some((chain, key)) => builder
                .with_client_auth_cert(certificates(&chain), PrivateKeyDer::Pkcs8(key.into()))
                .expect("a key"),
            None => builder.with_no_client_auth(),
        };
        let tcp = TcpStream::connect(address).await;
        let tcp = tcp.map_err(|error| error.to_string())?;
        tcp.set_nodelay(true).expect("sets");
        let name = ServerName::try_from("coordinator").expect("a name");
        let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let tls = tls.await.map_err(|error| error.to_string())?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| error.to_string())?;
        let driver = Handle::current().spawn(async {
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// Begins a request whose body, said to be of `length` bytes, never comes. Returns when an answer does.
    pub async fn stall(mut self, target: &str, length: usize) -> Result<u16, String> {
        let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, Infallible>>());
        let request = Request::builder()
            .method("POST")
            .uri(target)
            .header("host", "coordinator")
            .header("content-length", length)
            .body(body.boxed_unsync())
            .expect("a request");
        let answer = self.sender.send_request(request).await;
        Ok(answer.map_err(|error| error.to_string())?.status().as_u16())
    }

    /// Waits until the server ends it.
    pub async fn ended(mut self) {
        let driver = &mut self.driver;
        driver.await.expect("ends");
    }

    /// One request on it.
    pub async fn ask(
        &mut self,
        (method, target, body): (&str, &str, Bytes),
    ) -> Result<Answer, String> {
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "coordinator")
            .body(Full::new(body).boxed_unsync())
            .expect("a request");
        let answer = self.sender.send_request(request).await;
        let (head, body) = answer.map_err(|error| error.to_string())?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}
