use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore},
};

const DEADLINE: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Somebody outside the mesh who trusts a CA certificate: a browser, a data owner, or an attacker.
#[derive(Debug, Clone)]
pub struct MeshClient(Arc<ClientConfig>);

impl MeshClient {
    /// A client that trusts the CA certificates in `ca` and has no certificate of its own.
    ///
    /// # Errors
    /// When the file holds no certificate.
    pub fn anonymous(ca: &Path) -> Result<Self> {
        let config = ClientConfig::builder().with_root_certificates(roots(ca)?);
        Ok(Self(Arc::new(config.with_no_client_auth())))
    }

    /// A client that presents the certificate chain and key in the given files.
    ///
    /// # Errors
    /// When a file cannot be read or does not fit the others.
    pub fn with_certificate(ca: &Path, chain: &Path, key: &Path) -> Result<Self> {
        let chain = CertificateDer::pem_file_iter(chain)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(key)?;
        let config = ClientConfig::builder().with_root_certificates(roots(ca)?);
        Ok(Self(Arc::new(config.with_client_auth_cert(chain, key)?)))
    }

    /// Sends an HTTP/1.1 request over TLS and returns the whole answer, head and body.
    ///
    /// # Errors
    /// When the connection, the handshake or the answer fails.
    pub async fn request(
        &self,
        address: SocketAddr,
        name: &str,
        method: &str,
        path: &str,
    ) -> Result<String> {
        let exchange = async {
            let stream = TcpStream::connect(address)
                .await
                .context("cannot connect")?;
            let name = ServerName::try_from(name.to_owned())?;
            let mut stream = TlsConnector::from(Arc::clone(&self.0))
                .connect(name.clone(), stream)
                .await
                .context("TLS handshake failed")?;
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                name.to_str()
            );
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            // With TLS 1.3 a server that refuses the client's certificate says so only now.
            stream
                .take(ANSWER_BYTES_MAX)
                .read_to_string(&mut answer)
                .await
                .context("no answer")?;
            anyhow::ensure!(
                !answer.is_empty(),
                "the connection was closed without an answer"
            );
            Ok(answer)
        };
        timeout(DEADLINE, exchange)
            .await
            .context("no answer in time")?
    }
}

impl MeshClient {
    /// Sends plain HTTP to `address`, as somebody who knows nothing of the mesh would.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn plaintext(address: SocketAddr, path: &str) -> Result<String> {
        let exchange = async {
            let mut stream = TcpStream::connect(address)
                .await
                .context("cannot connect")?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream
                .take(ANSWER_BYTES_MAX)
                .read_to_string(&mut answer)
                .await
                .context("no answer")?;
            anyhow::ensure!(
                !answer.is_empty(),
                "the connection was closed without an answer"
            );
            Ok(answer)
        };
        timeout(DEADLINE, exchange)
            .await
            .context("no answer in time")?
    }
}

fn roots(ca: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca)
        .with_context(|| format!("cannot read {}", ca.display()))?;
    for certificate in certificates {
        roots.add(certificate?)?;
    }
    Ok(roots)
}
