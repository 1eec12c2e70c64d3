use std::{
    io::{self, Read},
    sync::Arc,
    thread,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use serde::Deserialize;
use ureq::{
    Agent, Body,
    config::RedirectAuthHeaders,
    http::{
        Response, StatusCode,
        header::{ACCEPT, CONTENT_RANGE, RANGE},
    },
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{Endpoint, RegistryError, RegistryLimits, RegistryOptions, auth::Authorizations};
use crate::shown::shown;

/// Answers other than manifests and layers.
const SMALL_MAX: u64 = 1024 * 1024;
const MESSAGE_CHARS_MAX: usize = 200;
const REDIRECTS_MAX: u32 = 5;
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Performs requests, with authentication and retries.
#[derive(Debug)]
pub(super) struct Client {
    /// TLS only, also after redirects.
    secure: Agent,
    insecure: Agent,
    authorizations: Authorizations,
    limits: RegistryLimits,
}

/// What a request is for.
struct Wanted<'a> {
    accept: &'a str,
    /// Bytes that may come.
    size: u64,
    /// Bytes before them that are not wanted.
    from: u64,
}

/// Bytes of a blob.
pub(super) struct Stream {
    pub(super) body: Box<dyn Read>,
    /// How many are before them.
    pub(super) from: u64,
}

/// Why one attempt failed, and whether another may help.
struct Attempt {
    error: RegistryError,
    retry: Option<Duration>,
}

impl Attempt {
    fn last(error: RegistryError) -> Self {
        Self { error, retry: None }
    }
}

impl Client {
    pub(super) fn new(options: &RegistryOptions) -> Result<Self, RegistryError> {
        let roots = match &options.ca {
            None => RootCerts::PlatformVerifier,
            Some(pem) => roots_with(pem)?,
        };
        Ok(Self {
            secure: agent(roots.clone(), true, &options.limits),
            insecure: agent(roots, false, &options.limits),
            authorizations: Authorizations::new(options.credentials.clone()),
            limits: options.limits,
        })
    }

    /// Gets a document of at most `limit` bytes; `None` if it is not there.
    pub(super) fn whole(
        &self,
        endpoint: &Endpoint,
        path: &str,
        accept: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        self.retrying(|| {
            let wanted = Wanted {
                accept,
                size: limit,
                from: 0,
            };
            let Some(answer) = self.answer(endpoint, path, &wanted)? else {
                return Ok(None);
            };
            let url = endpoint.url(path);
            let read = read_at_most(answer, limit);
            read.map(Some).map_err(|error| Attempt {
                error: RegistryError::Unreachable {
                    url,
                    reason: error.to_string(),
                },
                retry: Some(Duration::ZERO),
            })
        })
    }

    /// Begins to get a blob of `size` bytes after its first `from`; `None` if it is not there. A registry that cannot begin there begins
    /// with the first one.
    pub(super) fn stream(
        &self,
        endpoint: &Endpoint,
        path: &str,
        size: u64,
        from: u64,
    ) -> Result<Option<Stream>, RegistryError> {
        let wanted = Wanted {
            accept: "*/*",
            size: size.saturating_sub(from),
            from,
        };
        let answer = self.retrying(|| self.answer(endpoint, path, &wanted))?;
        let Some(answer) = answer else {
            return Ok(None);
        };
        let from = match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let found = answer.headers().get(CONTENT_RANGE);
                let found = found.and_then(|value| value.to_str().ok());
                if !found.is_some_and(|found| is_rest(found, from, size)) {
                    return Err(RegistryError::Range {
                        url: endpoint.url(path),
                        expected: format!("bytes {from}-{}/{size}", size.saturating_sub(1)),
                        found: shown(found.unwrap_or("no range")),
                    });
                }
                from
            }
            _ => 0,
        };
        let body = answer.into_body().into_with_config();
        let limit = size.saturating_sub(from).saturating_add(1);
        Ok(Some(Stream {
            body: Box::new(body.limit(limit).reader()),
            from,
        }))
    }

    pub(super) fn limits(&self) -> &RegistryLimits {
        &self.limits
    }

    fn retrying<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, Attempt>,
    ) -> Result<T, RegistryError> {
        let mut pauses = ExponentialBuilder::default()
            .with_min_delay(self.limits.pause)
            .with_max_times(self.limits.attempts.saturating_sub(1))
            .build();
        loop {
            let failed = match attempt() {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            match (failed.retry, pauses.next()) {
                (Some(at_least), Some(pause)) => {
                    thread::sleep(pause.max(at_least.min(RETRY_AFTER_MAX)));
                }
                _ => return Err(failed.error),
            }
        }
    }

    /// An answer with status 200, or 206 where a part is wanted; `None` for 404.
    fn answer(
        &self,
        endpoint: &Endpoint,
        path: &str,
        wanted: &Wanted<'_>,
    ) -> Result<Option<Response<Body>>, Attempt> {
        let url = endpoint.url(path);
        let mut authorization = self.authorizations.known(endpoint);
        let mut asked = false;
        loop {
            let sent = authorization.as_ref().map(|value| value.as_str());
            let answer = self.get(endpoint, &url, wanted, sent)?;
            match answer.status().as_u16() {
                200 => return Ok(Some(answer)),
                206 if wanted.from > 0 => return Ok(Some(answer)),
                404 => return Ok(None),
                401 if !asked => {
                    asked = true;
                    let obtained = self.authorizations.obtain(
                        self.agent(endpoint),
                        endpoint,
                        answer.headers(),
                    );
                    authorization = Some(obtained.map_err(Attempt::last)?);
                }
                401 | 403 => {
                    return Err(Attempt::last(RegistryError::Denied {
                        registry: endpoint.registry.clone(),
                        repository: endpoint.repository.clone(),
                        with_credentials: self.authorizations.has_credentials(endpoint),
                    }));
                }
                status => {
                    let retry = matches!(status, 408 | 429 | 500..=599)
                        .then(|| retry_after(&answer).unwrap_or_default());
                    return Err(Attempt {
                        error: RegistryError::Status {
                            url,
                            status,
                            message: message(answer),
                        },
                        retry,
                    });
                }
            }
        }
    }

    fn get(
        &self,
        endpoint: &Endpoint,
        url: &str,
        wanted: &Wanted<'_>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, Attempt> {
        let body = Duration::from_secs(wanted.size / self.limits.slowest.max(1));
        let request = self
            .agent(endpoint)
            .get(url)
            .header(ACCEPT, wanted.accept)
            .config()
            .timeout_recv_body(Some(self.limits.silence.saturating_add(body)))
            .build();
        let request = match wanted.from {
            0 => request,
            from => request.header(RANGE, format!("bytes={from}-")),
        };
        let request = match authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        };
        request.call().map_err(|error| Attempt {
            retry: is_transient(&error).then_some(Duration::ZERO),
            error: RegistryError::Unreachable {
                url: url.to_owned(),
                reason: reason(&error, endpoint),
            },
        })
    }

    fn agent(&self, endpoint: &Endpoint) -> &Agent {
        match endpoint.insecure {
            true => &self.insecure,
            false => &self.secure,
        }
    }
}

impl Endpoint {
    fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.base, self.repository)
    }
}

/// Whether a header `Content-Range` (RFC 9110) is of all bytes of a blob after the first `from`.
fn is_rest(found: &str, from: u64, size: u64) -> bool {
    let parts = found.strip_prefix("bytes ").and_then(|rest| {
        let (range, total) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number = |text: &str| text.trim().parse::<u64>().ok();
        Some((number(first)?, number(last)?, number(total)?))
    });
    parts == size.checked_sub(1).map(|last| (from, last, size))
}

/// Reads an answer with at most `limit` bytes.
pub(super) fn read_at_most(answer: Response<Body>, limit: u64) -> Result<Vec<u8>, ureq::Error> {
    let body = answer.into_body().into_with_config().limit(limit);
    body.read_to_vec()
}

pub(super) fn read_small(answer: Response<Body>) -> Result<Vec<u8>, ureq::Error> {
    read_at_most(answer, SMALL_MAX)
}

fn agent(roots: RootCerts, https_only: bool, limits: &RegistryLimits) -> Agent {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(roots)
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .https_only(https_only)
        .http_status_as_error(false)
        .max_redirects(REDIRECTS_MAX)
        // Blobs often lie elsewhere, and credentials are for the registry alone.
        .redirect_auth_headers(RedirectAuthHeaders::Never)
        .timeout_connect(Some(limits.connect))
        .timeout_recv_response(Some(limits.silence))
        .timeout_per_read(Some(limits.silence))
        .user_agent(concat!("contrast/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// The system's CAs and those of the user.
fn roots_with(pem: &[u8]) -> Result<RootCerts, RegistryError> {
    let unusable = |reason: String| RegistryError::Ca { reason };
    let mut roots = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) =
            item.map_err(|error| unusable(error.to_string()))?
        {
            roots.push(certificate);
        }
    }
    if roots.is_empty() {
        return Err(unusable(
            "no certificate in it; expected PEM with `BEGIN CERTIFICATE`".to_owned(),
        ));
    }
    let system = rustls_native_certs::load_native_certs().certs;
    roots.extend(
        system
            .iter()
            .map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()),
    );
    Ok(RootCerts::Specific(Arc::new(roots)))
}

fn is_transient(error: &ureq::Error) -> bool {
    matches!(
        error,
        ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed
    )
}

fn reason(error: &ureq::Error, endpoint: &Endpoint) -> String {
    match error {
        ureq::Error::Io(error) if is_plain_http(error) && !endpoint.insecure => format!(
            "it does not speak TLS; if it is yours, and on a network that you trust, write `[[registry]]`, `location = \"{}\"`, \
             `insecure = true` into registries.conf",
            endpoint.registry
        ),
        ureq::Error::RequireHttpsOnly(_) => "it redirects from HTTPS to HTTP".to_owned(),
        other => other.to_string(),
    }
}

/// rustls says so when the peer answers with something else than TLS records.
fn is_plain_http(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let value = answer.headers().get("Retry-After")?.to_str().ok()?;
    value.parse().ok().map(Duration::from_secs)
}

/// What a registry says (OCI distribution specification, "Error Codes"), fit for a terminal.
fn message(answer: Response<Body>) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let errors: Option<Errors> = read_small(answer)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let first = errors.and_then(|errors| errors.errors.into_iter().next());
    let Some(Error { code, message }) = first else {
        return String::new();
    };
    let text: String = format!(": {code} {message}")
        .chars()
        .filter(|char| !char.is_control())
        .take(MESSAGE_CHARS_MAX)
        .collect();
    shown(&text)
}
