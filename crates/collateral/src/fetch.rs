use std::{
    fmt::Debug,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use percent_encoding::percent_decode_str;
use ureq::{
    Agent,
    tls::{RootCerts, TlsConfig},
};

use crate::{
    Content, Document, Endpoints, Item, Limits,
    document::is_of_vendor,
    recognise::{Recognised, recognise},
};

/// The largest answer, a TCB info, has about 20 KiB.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Headers with the chain of a document's signer, PEM in percent encoding (PCS API version 4).
const ISSUER_CHAIN_HEADERS: [&str; 3] = [
    "TCB-Info-Issuer-Chain",
    "SGX-Enclave-Identity-Issuer-Chain",
    "SGX-PCK-CRL-Issuer-Chain",
];

/// What a service answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// How long to wait before another request.
    pub retry_after: Option<Duration>,
    /// Chain of the signer, PEM, from a header of Intel's.
    pub issuer_chain: Option<String>,
    /// The service's clock, as it wrote it (RFC 9110, section 5.6.7); `None` for answers out of a cache.
    pub date: Option<String>,
    /// At most 1 MiB.
    pub body: Vec<u8>,
}

/// No answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// Performs requests.
pub trait Transport: Debug + Send + Sync {
    /// Gets `url`, and gives up after `timeout`.
    ///
    /// # Errors
    /// When there is no answer; one with an unwelcome status is an answer.
    fn get(&self, url: &str, timeout: Duration) -> Result<Answer, TransportError>;
}

/// HTTP/1.1, over TLS where the URL says so. Honours the variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`; server
/// certificates are checked against the system's CAs.
#[derive(Debug, Clone)]
pub struct HttpTransport(Agent);

impl Default for HttpTransport {
    fn default() -> Self {
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .user_agent(concat!("contrast/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(config.new_agent())
    }
}

impl Transport for HttpTransport {
    fn get(&self, url: &str, timeout: Duration) -> Result<Answer, TransportError> {
        let failed = |error: ureq::Error| TransportError(error.to_string());
        let request = self.0.get(url).config().timeout_global(Some(timeout));
        let mut answer = request.build().call().map_err(failed)?;
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let retry_after = header("Retry-After")
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs);
        let issuer_chain = ISSUER_CHAIN_HEADERS.iter().find_map(|name| header(name));
        let issuer_chain =
            issuer_chain.map(|chain| percent_decode_str(chain).decode_utf8_lossy().into_owned());
        // Of an answer that a cache kept, it is the time at which it was made.
        let date = header("Date").filter(|_| header("Age").is_none());
        let date = date.map(str::to_owned);
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        Ok(Answer {
            status,
            retry_after,
            issuer_chain,
            date,
            body: body.read_to_vec().map_err(failed)?,
        })
    }
}

/// A document could not be fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot fetch the {item} from {url}: {cause} ({attempts} attempt(s) in {:.1} s)", elapsed.as_secs_f32())]
pub struct FetchError {
    /// What was looked for.
    pub item: Item,
    /// Where.
    pub url: String,
    /// The last attempt's failure.
    pub cause: String,
    /// How often it was tried.
    pub attempts: u32,
    /// How long that took.
    pub elapsed: Duration,
    /// Whether the service said that there is no such document.
    pub absent: bool,
}

/// Why one attempt failed, and whether another may help.
struct Attempt {
    cause: String,
    absent: bool,
    retry: Option<Duration>,
}

/// Fetches documents, with retries, in bounded time.
#[derive(Debug)]
pub(crate) struct Fetcher {
    pub(crate) endpoints: Endpoints,
    pub(crate) transport: Box<dyn Transport>,
}

impl Fetcher {
    /// Gets `item` before `until`, retrying with pauses that grow and are random.
    pub(crate) fn fetch(
        &self,
        item: &Item,
        limits: &Limits,
        until: Instant,
    ) -> Result<Document, FetchError> {
        let url = self.endpoints.url(item);
        let start = Instant::now();
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(limits.first_pause)
            .with_max_delay(Duration::from_secs(2))
            .with_jitter()
            .without_max_times()
            .build();
        let mut attempts: u32 = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            attempts = attempts.saturating_add(1);
            let Attempt {
                cause,
                absent,
                retry,
            } = match self.attempt(item, &url, left.min(limits.attempt)) {
                Ok(document) => return Ok(document),
                Err(attempt) => attempt,
            };
            let next = pauses.next().unwrap_or(limits.attempt);
            let pause = retry.map(|at_least| at_least.max(next));
            let left = until.saturating_duration_since(Instant::now());
            match pause.filter(|pause| *pause < left) {
                Some(pause) => thread::sleep(pause),
                None => {
                    return Err(FetchError {
                        item: item.clone(),
                        url,
                        cause,
                        attempts,
                        elapsed: start.elapsed(),
                        absent,
                    });
                }
            }
        }
    }

    fn attempt(&self, item: &Item, url: &str, timeout: Duration) -> Result<Document, Attempt> {
        let answer = self.transport.get(url, timeout).map_err(|error| Attempt {
            cause: error.to_string(),
            absent: false,
            retry: Some(Duration::ZERO),
        })?;
        let failed = |cause: String, absent, retry| {
            Err(Attempt {
                cause,
                absent,
                retry,
            })
        };
        match answer.status {
            200 => document(item, &answer).ok_or_else(|| Attempt {
                cause: format!(
                    "the answer, {} bytes, is not that document, or its vendor did not sign it",
                    answer.body.len()
                ),
                absent: false,
                retry: None,
            }),
            404 => failed("there is none (status 404)".to_owned(), true, None),
            status @ (408 | 429 | 500..=599) => {
                let retry = answer.retry_after.unwrap_or_default();
                failed(format!("status {status}"), false, Some(retry))
            }
            status => failed(format!("status {status}"), false, None),
        }
    }
}

/// The document in an answer, when it is the one that was asked for.
fn document(item: &Item, answer: &Answer) -> Option<Document> {
    let Some(Recognised::Document(items, mut document)) = recognise(&answer.body) else {
        return None;
    };
    if !items.contains(item) || !is_of_vendor(item, &document.content) {
        return None;
    }
    match (&mut document.content, &answer.issuer_chain) {
        (Content::Signed { issuer_chain, .. }, Some(chain)) => *issuer_chain = Some(chain.clone()),
        (Content::Crl { issuer_chain, .. }, Some(chain)) => issuer_chain.clone_from(chain),
        _ => {}
    }
    Some(document)
}
