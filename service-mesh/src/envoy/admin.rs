//! Client of Envoy's admin interface: readiness, open connections, draining.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::Paths;
use crate::model::Mesh;

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Longest that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Envoy's admin interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminInterface {
    /// The private socket.
    Socket(PathBuf),
    /// The port that was asked for.
    Port(SocketAddr),
}

/// A request to the admin interface failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// Envoy does not listen there (yet).
    #[error("Envoy's admin interface cannot be reached")]
    Connect(#[source] io::Error),
    /// The exchange broke off.
    #[error("Envoy's admin interface did not answer {path}")]
    Exchange {
        /// Path of the request.
        path: &'static str,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer was an error.
    #[error("Envoy's admin interface answered {path} with status {found}, expected 200")]
    Status {
        /// Path of the request.
        path: &'static str,
        /// Status code of the answer.
        found: StatusCode,
    },
    /// No answer in time.
    #[error("Envoy's admin interface did not answer {path} within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout {
        /// Path of the request.
        path: &'static str,
    },
}

impl AdminInterface {
    /// The admin interface that the bootstrap of `mesh` opens.
    pub fn of(mesh: &Mesh, paths: &Paths) -> Self {
        match mesh.admin() {
            None => Self::Socket(paths.admin_socket()),
            // A wildcard is an address to listen on, not one to connect to.
            Some(address) if address.ip().is_unspecified() => {
                let loopback = match address {
                    SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                    SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                };
                Self::Port(SocketAddr::new(loopback, address.port()))
            }
            Some(address) => Self::Port(address),
        }
    }

    /// Whether Envoy is live: its configuration is loaded and its listeners are open.
    ///
    /// # Errors
    /// When Envoy cannot be asked; during its first moments that is normal.
    pub async fn is_live(&self) -> Result<bool, AdminError> {
        match self.request(Method::GET, "/ready").await {
            Ok(_) => Ok(true),
            Err(AdminError::Status {
                found: StatusCode::SERVICE_UNAVAILABLE,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether Envoy has taken a certificate and a CA. Until then it serves no TLS, although it may call itself live.
    ///
    /// # Errors
    /// When Envoy cannot be asked.
    pub async fn has_certificates(&self) -> Result<bool, AdminError> {
        let path = "/certs";
        let answer = self.request(Method::GET, path).await?;
        let contexts = serde_json::from_slice(&answer).map_err(|error| AdminError::Exchange {
            path,
            source: error.into(),
        })?;
        Ok(any_complete_context(&contexts))
    }

    /// The bootstrap that Envoy has loaded, in the JSON form of protobuf (`envoy.admin.v3.BootstrapConfigDump`).
    ///
    /// # Errors
    /// When Envoy cannot be asked, or has loaded more than can be read.
    pub async fn loaded_bootstrap(&self) -> Result<Value, AdminError> {
        let path = "/config_dump?mask=bootstrap";
        let answer = self.request(Method::GET, path).await?;
        serde_json::from_slice(&answer).map_err(|error| AdminError::Exchange {
            path,
            source: error.into(),
        })
    }

    /// Starts a graceful drain: listeners stay open for Envoy's drain time and then close.
    ///
    /// # Errors
    /// When Envoy cannot be asked.
    pub async fn drain_listeners(&self) -> Result<(), AdminError> {
        self.request(Method::POST, "/drain_listeners?graceful")
            .await
            .map(drop)
    }

    /// Number of connections that ingress and egress listeners have open now.
    ///
    /// # Errors
    /// When Envoy cannot be asked.
    pub async fn open_connections(&self) -> Result<u64, AdminError> {
        let path = "/stats?filter=%5Elistener%5C.(ingress%7Cegress)/.*%5C.downstream_cx_active%24";
        let answer = self.request(Method::GET, path).await?;
        Ok(sum_of_gauges(&String::from_utf8_lossy(&answer)))
    }

    /// Statistics of entries, their listeners, and certificates, as lines of `name: value`.
    ///
    /// # Errors
    /// When Envoy cannot be asked, or tells more than can be read.
    pub async fn statistics(&self) -> Result<String, AdminError> {
        let path = "/stats?filter=%5E(tcp%7Chttp%7Ccluster%7Clistener)%5C.(ingress%7Cegress)/%7C%5E(ingress%7Cegress)/.*rbac%7C%5Esds%5C.mesh_";
        let answer = self.request(Method::GET, path).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn request(&self, method: Method, path: &'static str) -> Result<Bytes, AdminError> {
        let exchange = async {
            match self {
                Self::Socket(socket) => {
                    let stream = UnixStream::connect(socket)
                        .await
                        .map_err(AdminError::Connect)?;
                    exchange(stream, method, path).await
                }
                Self::Port(address) => {
                    let stream = TcpStream::connect(address)
                        .await
                        .map_err(AdminError::Connect)?;
                    exchange(stream, method, path).await
                }
            }
        };
        timeout(REQUEST_TIMEOUT, exchange)
            .await
            .map_err(|_| AdminError::Timeout { path })?
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: Method,
    path: &'static str,
) -> Result<Bytes, AdminError> {
    let broken = |source| AdminError::Exchange { path, source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.into()))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "envoy")
        .body(Empty::<Bytes>::new())
        .map_err(|error| broken(error.into()))?;
    let answer = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| broken(error.into()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(broken)?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    // The connection future moves the bytes; it may end before the answer is taken, never the other way round.
    let (status, body) = tokio::select! {
        answer = &mut answer => answer?,
        ended = &mut connection => {
            ended.map_err(|error| broken(error.into()))?;
            answer.await?
        }
    };
    match status {
        StatusCode::OK => Ok(body),
        found => Err(AdminError::Status { path, found }),
    }
}

/// Whether the answer of `/certs` (`envoy.admin.v3.Certificates`) has a TLS context with certificate and CA.
fn any_complete_context(answer: &Value) -> bool {
    let filled = |context: &Value, key: &str| {
        context
            .get(key)
            .and_then(Value::as_array)
            .is_some_and(|list| !list.is_empty())
    };
    answer
        .get("certificates")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|context| filled(context, "cert_chain") && filled(context, "ca_cert"))
}

/// Sums the values of lines of the form `name: value`.
fn sum_of_gauges(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.rsplit_once(": ")?.1.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_summed_and_other_lines_ignored() {
        let text = "listener.ingress/web.downstream_cx_active: 2\n\nlistener.egress/api.downstream_cx_active: 3\nno gauge\n";
        assert_eq!(sum_of_gauges(text), 5);
        assert_eq!(sum_of_gauges(""), 0);
    }

    #[test]
    fn context_without_certificate_or_ca_is_not_complete() {
        let context = |text: &str| serde_json::from_str(text).expect("JSON");
        for text in [
            r#"{}"#,
            r#"{"certificates": []}"#,
            r#"{"certificates": [{"ca_cert": [{}], "cert_chain": []}]}"#,
            r#"{"certificates": [{"ca_cert": [], "cert_chain": [{}]}]}"#,
        ] {
            assert!(!any_complete_context(&context(text)), "{text}");
        }
        let complete = r#"{"certificates": [{}, {"ca_cert": [{}], "cert_chain": [{}]}]}"#;
        assert!(any_complete_context(&context(complete)));
    }

    #[tokio::test]
    async fn missing_envoy_is_a_connect_error() {
        let directory = tempfile::tempdir().expect("directory");
        let admin = AdminInterface::Socket(directory.path().join("admin.sock"));
        assert!(matches!(admin.is_live().await, Err(AdminError::Connect(_))));
    }
}
