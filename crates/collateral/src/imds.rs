//! Azure's Instance Metadata Service (IMDS), as far as evidence needs it.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use contrast_attestation::{
    SnpCertificates,
    hardware::{CloudHost, CloudHostError},
};
use serde::{Deserialize, Serialize};
use ureq::{Agent, Body, http::Response};

/// Where every Azure guest finds it: link-local, plain HTTP, answered by its host.
const BASE: &str = "http://169.254.169.254";
/// How long the host may take; it makes a TDX quote in less than a second.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Certificates take about 8 KiB, a quote 5 KiB.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

const CERTIFICATES: &str = "certificates of the SNP chip";
const QUOTE: &str = "TDX quote";

/// Asks Azure's Instance Metadata Service. The answers are the host's word; what counts in them is signed by the CPU vendor or the
/// CPU.
///
/// | request | answer |
/// | --- | --- |
/// | `GET /metadata/THIM/amd/certification`, `Metadata: true` | JSON: `vcekCert`, `certificateChain`, both PEM |
/// | `POST /acc/tdquote`, JSON `{"report": "<TDREPORT, base64url>"}` | JSON: `quote`, base64url |
///
/// Source: Microsoft, "Trusted Hardware Identity Management" and "Azure confidential VM guest attestation".
#[derive(Debug, Clone)]
pub struct AzureImds {
    base: String,
    agent: Agent,
}

impl Default for AzureImds {
    /// At 169.254.169.254.
    fn default() -> Self {
        Self::at(BASE)
    }
}

#[derive(Serialize)]
struct QuoteRequest {
    report: String,
}

#[derive(Deserialize)]
struct QuoteAnswer {
    quote: String,
}

impl AzureImds {
    /// A service below `base`, for example `http://127.0.0.1:8080`.
    pub fn at(base: &str) -> Self {
        let config = Agent::config_builder()
            // Link-local: no proxy can reach it, and none must see it.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT))
            .build();
        Self {
            base: base.trim_end_matches('/').to_owned(),
            agent: config.new_agent(),
        }
    }

    /// As the issuer of a guest wants it.
    pub fn shared() -> Arc<dyn CloudHost> {
        Arc::new(Self::default())
    }
}

impl CloudHost for AzureImds {
    fn snp_certificates(&self) -> Result<SnpCertificates, CloudHostError> {
        let url = format!("{}/metadata/THIM/amd/certification", self.base);
        let answer = self.agent.get(&url).header("Metadata", "true").call();
        let body = body(answer, CERTIFICATES)?;
        thim_certificates(&body).map_err(|problem| CloudHostError {
            what: CERTIFICATES,
            reason: format!("the answer of {url} {problem}"),
        })
    }

    fn td_quote(&self, td_report: &[u8]) -> Result<Vec<u8>, CloudHostError> {
        let url = format!("{}/acc/tdquote", self.base);
        let request = QuoteRequest {
            report: URL_SAFE_NO_PAD.encode(td_report),
        };
        let failed = |reason: String| CloudHostError {
            what: QUOTE,
            reason,
        };
        let request = serde_json::to_vec(&request).map_err(|error| failed(error.to_string()))?;
        // The service wants exactly this type, without a character set.
        let answer = self.agent.post(&url).content_type("application/json");
        let body = body(answer.send(&request), QUOTE)?;
        let answer: QuoteAnswer = serde_json::from_slice(&body)
            .map_err(|error| failed(format!("the answer of {url} has no `quote`: {error}")))?;
        URL_SAFE_NO_PAD
            .decode(answer.quote.trim_end_matches('='))
            .map_err(|error| failed(format!("`quote` from {url} is not base64url: {error}")))
    }
}

fn body(
    answer: Result<Response<Body>, ureq::Error>,
    what: &'static str,
) -> Result<Vec<u8>, CloudHostError> {
    let failed = |reason: String| CloudHostError { what, reason };
    let mut answer = answer.map_err(|error| failed(format!("no answer: {error}")))?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
    let body = body
        .read_to_vec()
        .map_err(|error| failed(format!("the answer breaks off: {error}")))?;
    match status {
        200 => Ok(body),
        status => Err(failed(format!("expected status 200, found {status}"))),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Certification {
    vcek_cert: String,
    certificate_chain: String,
}

/// The certificates in an answer of `/metadata/THIM/amd/certification`, JSON with `vcekCert` and `certificateChain` in PEM: VCEK, then
/// ASK and ARK. They are not verified here.
///
/// # Errors
/// Says in words what the answer is not.
pub fn thim_certificates(answer: &[u8]) -> Result<SnpCertificates, String> {
    let Certification {
        vcek_cert,
        certificate_chain,
    } = serde_json::from_slice(answer)
        .map_err(|error| format!("is no JSON with `vcekCert` and `certificateChain`: {error}"))?;
    let blocks = |field: &str, text: &str| -> Result<Vec<Vec<u8>>, String> {
        let blocks =
            pem::parse_many(text).map_err(|error| format!("has no PEM in `{field}`: {error}"))?;
        Ok(blocks.into_iter().map(pem::Pem::into_contents).collect())
    };
    let vek = <[Vec<u8>; 1]>::try_from(blocks("vcekCert", &vcek_cert)?);
    let chain = <[Vec<u8>; 2]>::try_from(blocks("certificateChain", &certificate_chain)?);
    match (vek, chain) {
        (Ok([vek]), Ok([ask, ark])) => Ok(SnpCertificates {
            vek,
            ask,
            ark,
            crl: Vec::new(),
        }),
        (vek, chain) => Err(format!(
            "has {} certificates in `vcekCert` and {} in `certificateChain`; expected one, and two",
            vek.map_or_else(|vek| vek.len(), |vek| vek.len()),
            chain.map_or_else(|chain| chain.len(), |chain| chain.len()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpListener,
        thread::{self, JoinHandle},
    };

    use super::*;

    /// First line and headers, and body.
    type Request = (Vec<String>, Vec<u8>);

    /// Answers one request, and gives what it was.
    fn serve(status: u16, body: &'static str) -> (AzureImds, JoinHandle<Request>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let address = listener.local_addr().expect("address");
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accepts");
            let mut reader = BufReader::new(stream);
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("line");
                match line.trim_end() {
                    "" => break,
                    line => head.push(line.to_ascii_lowercase()),
                }
            }
            let length = head
                .iter()
                .find_map(|line| line.strip_prefix("content-length: "));
            let mut sent = vec![0; length.map_or(0, |length| length.parse().expect("length"))];
            reader.read_exact(&mut sent).expect("body");
            let answer = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\nLocation: http://127.0.0.1:1/\r\n\r\n{body}",
                body.len()
            );
            reader
                .get_mut()
                .write_all(answer.as_bytes())
                .expect("answers");
            (head, sent)
        });
        (AzureImds::at(&format!("http://{address}/")), server)
    }

    const PEM: &str = "-----BEGIN CERTIFICATE-----\\nAQI=\\n-----END CERTIFICATE-----\\n";

    fn certification(vek: usize, chain: usize) -> String {
        format!(
            r#"{{"vcekCert":"{}","tcbm":"DB18000000000004","certificateChain":"{}","cacheControl":"86400"}}"#,
            PEM.repeat(vek),
            PEM.repeat(chain)
        )
    }

    #[test]
    fn certificates_are_asked_for_with_the_header_that_azure_wants() {
        let answer = certification(1, 2).leak();
        let (imds, server) = serve(200, answer);
        let certificates = imds.snp_certificates().expect("certificates");
        let one = vec![1, 2];
        assert_eq!(
            certificates,
            SnpCertificates {
                vek: one.clone(),
                ask: one.clone(),
                ark: one,
                crl: Vec::new()
            }
        );
        let (head, _) = server.join().expect("server");
        assert_eq!(head[0], "get /metadata/thim/amd/certification http/1.1");
        assert!(head.contains(&"metadata: true".to_owned()), "{head:?}");
    }

    #[test]
    fn the_tdreport_goes_out_and_the_quote_comes_back_in_base64url() {
        let (imds, server) = serve(200, r#"{"quote":"-_8"}"#);
        assert_eq!(imds.td_quote(&[0xFB; 2]).expect("quote"), [0xFB, 0xFF]);
        let (head, sent) = server.join().expect("server");
        assert_eq!(head[0], "post /acc/tdquote http/1.1");
        assert!(
            head.contains(&"content-type: application/json".to_owned()),
            "{head:?}"
        );
        assert_eq!(sent, br#"{"report":"-_s"}"#);
    }

    #[test]
    fn unwelcome_answers_are_named_and_redirects_not_followed() {
        for (status, body, expected) in [
            (404, "", "expected status 200, found 404"),
            (302, "", "expected status 200, found 302"),
            (200, "{}", "has no `quote`"),
            (200, r#"{"quote":"!"}"#, "is not base64url"),
        ] {
            let (imds, server) = serve(status, body);
            let error = imds.td_quote(&[0]).expect_err("refused").to_string();
            assert!(
                error.starts_with("no TDX quote from the cloud provider: "),
                "{error}"
            );
            assert!(error.contains(expected), "{error}");
            server.join().expect("server");
        }
        let error = AzureImds::at("http://127.0.0.1:1").snp_certificates();
        assert!(
            error
                .expect_err("refused")
                .reason
                .starts_with("no answer: ")
        );
    }

    #[test]
    fn an_answer_without_one_vcek_and_two_authorities_is_refused() {
        for (vek, chain) in [(0, 2), (2, 2), (1, 1), (1, 3)] {
            let problem = thim_certificates(certification(vek, chain).as_bytes());
            let expected =
                format!("has {vek} certificates in `vcekCert` and {chain} in `certificateChain`");
            assert!(problem.expect_err("refused").starts_with(&expected));
        }
        assert!(thim_certificates(b"{}").is_err());
    }
}
