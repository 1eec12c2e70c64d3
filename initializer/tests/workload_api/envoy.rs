use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use contrast_initializer::Credentials;
use contrast_testbed::envoy;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::{Child, Command},
    time::{Instant, sleep},
};
use tokio_rustls::TlsConnector;

use crate::pod::{NAME, Pod, SPIFFE_ID};

const PATIENCE: Duration = Duration::from_secs(30);

/// A listener with mutual TLS whose secrets come from the socket.
fn bootstrap(socket: &Path, listener: &Path) -> String {
    let secret = |name: &str| {
        serde_json::json!({
            "name": name,
            "sds_config": {
                "resource_api_version": "V3",
                "api_config_source": {
                    "api_type": "GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "initializer"}}],
                },
            },
        })
    };
    serde_json::json!({
        "node": {"id": "test", "cluster": "test"},
        "static_resources": {
            "listeners": [{
                "name": "tls",
                "address": {"pipe": {"path": listener}},
                "filter_chains": [{
                    "transport_socket": {
                        "name": "envoy.transport_sockets.tls",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                            "require_client_certificate": true,
                            "common_tls_context": {
                                "tls_certificate_sds_secret_configs": [secret("default")],
                                "validation_context_sds_secret_config": secret("ROOTCA"),
                            },
                        },
                    },
                    "filters": [{
                        "name": "envoy.filters.network.echo",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo",
                        },
                    }],
                }],
            }],
            "clusters": [{
                "name": "initializer",
                "type": "STATIC",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                },
                "load_assignment": {
                    "cluster_name": "initializer",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": socket}}}}]}],
                },
            }],
        },
    })
    .to_string()
}

/// Where Envoy listens: no port, which another program could take before.
fn listener(pod: &Pod) -> PathBuf {
    pod.directory().join("envoy.sock")
}

fn start(envoy: &Path, pod: &Pod) -> Child {
    let configuration = pod.directory().join("envoy.json");
    fs::write(&configuration, bootstrap(&pod.socket(), &listener(pod))).expect("writes");
    Command::new(envoy)
        .arg("-c")
        .arg(&configuration)
        .args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "error"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("starts Envoy")
}

/// Says what the server answers and the certificate that it presents.
async fn greeting(
    pod: &Pod,
    credentials: &Credentials,
) -> Result<(String, Vec<u8>), Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    let bundle = credentials.bundle();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate?)?;
    }
    let chain = CertificateDer::pem_slice_iter(credentials.certificate_chain.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::Pkcs8(pod.private_key().to_vec().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let stream = UnixStream::connect(listener(pod)).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut tls = connector
        .connect(ServerName::try_from(NAME)?, stream)
        .await?;
    tls.write_all(b"hello").await?;
    let mut answer = [0; 5];
    tls.read_exact(&mut answer).await?;
    let presented = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let leaf = presented.first().ok_or("no certificate")?.to_vec();
    Ok((String::from_utf8(answer.to_vec())?, leaf))
}

/// Asks until a certificate other than `last` comes.
async fn next_certificate(pod: &Pod, credentials: &Credentials, last: &[u8]) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = greeting(pod, credentials).await;
        match found {
            Ok((answer, leaf)) if leaf != last => {
                assert_eq!(answer, "hello");
                return leaf;
            }
            found => assert!(Instant::now() < deadline, "not in time: {found:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_gets_its_secrets_from_the_socket_and_each_later_version() {
    let Some(envoy) = envoy() else { return };
    let pod = Pod::start();
    // Before the pod is enrolled: Envoy has to wait.
    let mut child = start(&envoy, &pod);
    let ca = pod.new_ca();
    let first = pod.install(&ca, Some(SPIFFE_ID), None);
    let leaf = next_certificate(&pod, &first, &[]).await;
    // A renewal, and then another mesh CA; the same connection to Envoy serves both, so a refused version would show.
    let second = pod.install(&ca, Some(SPIFFE_ID), None);
    let leaf = next_certificate(&pod, &second, &leaf).await;
    let next = pod.new_ca();
    let third = pod.install(&next, Some(SPIFFE_ID), None);
    next_certificate(&pod, &third, &leaf).await;
    let refused = greeting(&pod, &first).await;
    assert!(refused.is_err(), "the old CA is still trusted");
    child.kill().await.expect("ends");
}
