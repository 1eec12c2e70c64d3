//! A small HTTP client for calls between the sample programs.

use anyhow::{Context, Result, ensure};
use axum::http::{Method, Request};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Sends a request without a body and returns the answer's text.
///
/// # Errors
/// When the peer cannot be reached or answers with anything but success.
pub async fn call(method: Method, url: &str) -> Result<String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let request = Request::builder()
        .method(method)
        .uri(url)
        .body(Empty::new())?;
    let answer = client
        .request(request)
        .await
        .with_context(|| format!("cannot call {url}"))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("answer of {url}: {error}"))?
        .to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    ensure!(status.is_success(), "{url} answered {status}: {text}");
    Ok(text)
}
