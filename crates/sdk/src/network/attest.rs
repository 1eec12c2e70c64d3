use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use contrast_attest_document::{ANSWER_BYTES_MAX, Nonce};
use contrast_attestation::printable;
use serde::Deserialize;
use ureq::{
    Agent,
    http::Uri,
    tls::{RootCerts, TlsConfig},
};

/// Where the API is when a URL names no path.
const PATH: &str = "/v1/attest";
/// Port of the attest API, when neither scheme nor port is named.
const PORT: u16 = 1314;
/// So much of an error's body is read; the Coordinator's have less than 1 KiB.
const ERROR_BYTES_MAX: u64 = 64 * 1024;

/// Text that is no URL of an attest API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the URL of an attest API, such as http://coordinator.example:{PORT}, without user name and query, found `{found}`"
)]
pub struct AttestUrlError {
    found: String,
}

/// URL of an attest API, without the question. Its text form is `http://HOST[:PORT]/PATH` or with `https`; when it is parsed, scheme and path
/// may be missing, and so may the port (1314) where the scheme is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestUrl(String);

impl fmt::Display for AttestUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AttestUrl {
    type Err = AttestUrlError;

    fn from_str(text: &str) -> Result<Self, AttestUrlError> {
        let refused = || AttestUrlError {
            found: printable(text).into_owned(),
        };
        let whole = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let uri: Uri = whole.parse().map_err(|_| refused())?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) =
            (uri.scheme_str(), uri.authority())
        else {
            return Err(refused());
        };
        let host = authority.host();
        let has_port = authority.as_str() != host;
        // Without a number behind the colon, or with one that no port has, there is no port to ask.
        if host.is_empty() || uri.query().is_some() || has_port && authority.port_u16().is_none() {
            return Err(refused());
        }
        if authority.as_str().contains('@') {
            return Err(refused());
        }
        let port = match has_port || text.contains("://") {
            true => String::new(),
            false => format!(":{PORT}"),
        };
        let path = match uri.path() {
            "" | "/" => PATH,
            path => path,
        };
        Ok(Self(format!("{scheme}://{authority}{port}{path}")))
    }
}

/// Whether the answer shall hold the initdata documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policies {
    /// All of them.
    #[default]
    Included,
    /// None: the answer is small, and they are not checked.
    Omitted,
}

/// Nothing to judge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody listens, the connection broke, time ran out, or the answer has more bytes than any reader takes.
    #[error("no answer from {url}")]
    NoAnswer {
        /// Who was asked.
        url: AttestUrl,
        /// Why.
        #[source]
        source: ureq::Error,
    },
    /// Something answered, and it was no proof.
    #[error("{url} gave no proof, status {status}{reason}")]
    Status {
        /// Who was asked.
        url: AttestUrl,
        /// HTTP status.
        status: u16,
        /// The error's code, of `docs/reference/attest-api.md`; empty when it is none of the attest API.
        code: String,
        /// Code and message for people, behind a colon.
        reason: String,
    },
}

/// Asks for an answer to `nonce`, which has to be random and new, and gives up after `patience`. Follows no redirection, and honours the
/// variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. Over `https`, the server's certificate is checked against the system's CAs,
/// although the answer does not need it.
///
/// # Errors
/// When there is no answer, or one with another status than 200.
pub fn fetch(
    url: &AttestUrl,
    nonce: &Nonce,
    policies: Policies,
    patience: Duration,
) -> Result<Vec<u8>, FetchError> {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .root_certs(RootCerts::PlatformVerifier)
        .build();
    let agent: Agent = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(patience))
        .user_agent(concat!("contrast-sdk/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let failed = |source| FetchError::NoAnswer {
        url: url.clone(),
        source,
    };
    let omit = match policies {
        Policies::Included => "",
        Policies::Omitted => "&policies=omit",
    };
    let question = format!("{url}?nonce={}{omit}", nonce.to_base64url());
    let mut answer = agent.get(&question).call().map_err(failed)?;
    let limited =
        |limit| move |body: &mut ureq::Body| body.with_config().limit(limit).read_to_vec();
    match answer.status().as_u16() {
        // One byte more than is read, so that the reader says what is wrong.
        200 => limited(
            u64::try_from(ANSWER_BYTES_MAX)
                .unwrap_or(u64::MAX)
                .saturating_add(1),
        )(answer.body_mut())
        .map_err(failed),
        status => {
            let body = limited(ERROR_BYTES_MAX)(answer.body_mut()).unwrap_or_default();
            let (code, reason) = reason(&body);
            let url = url.clone();
            Err(FetchError::Status {
                url,
                status,
                code,
                reason,
            })
        }
    }
}

/// The code, and code and message as the end of a sentence.
fn reason(body: &[u8]) -> (String, String) {
    #[derive(Deserialize)]
    struct Body {
        error: Reason,
    }
    #[derive(Deserialize)]
    struct Reason {
        code: String,
        message: String,
    }
    match serde_json::from_slice(body) {
        Ok(Body {
            error: Reason { code, message },
        }) => {
            let shown = format!(": {}: {}", printable(&code), printable(&message));
            (code, shown)
        }
        Err(_) => (
            String::new(),
            ", without a reason: is it an attest API?".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_completed_where_parts_are_missing() {
        for (text, wanted) in [
            ("host", "http://host:1314/v1/attest"),
            ("host:80", "http://host:80/v1/attest"),
            ("[::1]", "http://[::1]:1314/v1/attest"),
            ("http://host", "http://host/v1/attest"),
            ("https://host/", "https://host/v1/attest"),
            ("https://host:1/a/b", "https://host:1/a/b"),
            ("host/a", "http://host:1314/a"),
        ] {
            let url: AttestUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), wanted);
        }
    }

    #[test]
    fn what_is_no_url_of_an_attest_api_is_refused() {
        for text in [
            "",
            "http://",
            "ftp://host",
            "http://user@host",
            "http://host?nonce=1",
            "a b",
            "http://host:99999",
        ] {
            text.parse::<AttestUrl>().expect_err(text);
        }
    }
}
