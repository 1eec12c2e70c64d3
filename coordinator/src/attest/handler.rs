use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use contrast_attest_document::{ANSWER_BYTES_MAX, Answer, Nonce, Request, Statement, report_data};
use contrast_attestation::{Issuer, ReportData};
use contrast_clock::WallClock;
use contrast_collateral::CompletingIssuer;
use der::DateTime;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError},
    task::spawn_blocking,
    time::Instant,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    answer::held,
    api::{ApiError, manifests_response, status},
    bucket::{Bucket, Pace},
    ops::Metrics,
    replica::Hosted,
};

/// A few people who look at the same time are not sent away. Firmware needs some tens of milliseconds for a report and serves one guest
/// request at a time, which hosts throttle; this leaves most of it to pods that enrol.
const PACE: Pace = Pace {
    burst: 10,
    period: Duration::from_millis(500),
};
/// A nonce and an option have about a hundred bytes.
const REQUEST_BYTES_MAX: usize = 4096;
/// What this API is, for programs.
const OPENAPI: &str = include_str!("../../../docs/reference/attest.openapi.json");
/// Answers being made at the same time: each may need the memory of the largest one several times over.
const ISSUING_MAX: usize = 2;
/// Bytes of answers that are being made or not sent yet. Those of up to 2 MiB never use it
/// up: 64 connections have 128 MiB of them, and two are made meanwhile.
const UNSENT_BYTES_MAX: usize = 4 * ANSWER_BYTES_MAX;

/// What answers are made of.
#[derive(Debug, Clone)]
pub(crate) struct AttestService {
    replica: Hosted,
    issuer: CompletingIssuer,
    clock: Arc<dyn WallClock>,
    metrics: Arc<Metrics>,
    bucket: Arc<Bucket>,
    issuing: Arc<Semaphore>,
    unsent: Arc<Semaphore>,
}

/// The parts of an answer that is being made.
#[derive(Debug)]
struct Place {
    _issuing: OwnedSemaphorePermit,
    /// Bytes: of the largest answer, until it is known how large it is.
    unsent: OwnedSemaphorePermit,
}

impl Place {
    fn take(issuing: &Arc<Semaphore>, unsent: &Arc<Semaphore>) -> Result<Self, TryAcquireError> {
        let bytes = u32::try_from(ANSWER_BYTES_MAX).unwrap_or(u32::MAX);
        Ok(Self {
            _issuing: Arc::clone(issuing).try_acquire_owned()?,
            unsent: Arc::clone(unsent).try_acquire_many_owned(bytes)?,
        })
    }

    /// What an answer that is made keeps until it is sent.
    fn made(mut self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.unsent.split(bytes)
    }
}

/// Who is confirmed has a token; who finds none does not ask the quorum, which costs all replicas something. The token is taken last: who
/// asks too early must not lock out who asks after the first `set`.
async fn confirmed_with_token<T>(
    bucket: &Bucket,
    confirmed: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    bucket.look(Instant::now()).map_err(Refusal::too_many)?;
    let confirmed = confirmed.await?;
    bucket.take(Instant::now()).map_err(Refusal::too_many)?;
    Ok(confirmed)
}

/// A request that gets no evidence.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: String,
    message: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(status: StatusCode, code: impl Into<String>, message: impl ToString) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.to_string(),
            retry_after: None,
        }
    }

    fn bad(error: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", error)
    }

    fn too_many(retry_after: Duration) -> Self {
        let message = "too many questions at the moment; ask again after the time in Retry-After";
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", message)
        }
    }

    /// As the user API tells it; everything that goes away by waiting or by what an owner does is 503.
    fn state(error: crate::state::StateError) -> Self {
        let told = status("Attest", &ApiError::State(error));
        let code = told
            .get_details_error_info()
            .map_or_else(|| "INTERNAL".to_owned(), |info| info.reason);
        let http = match told.code() {
            Code::FailedPrecondition | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(http, code, told.message())
    }

    fn internal(code: &str, cause: impl ToString) -> Self {
        tracing::error!(code, "no answer of the attest API: {}", cause.to_string());
        let message = "internal error of the Coordinator; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = json_response(self.status, body.to_string());
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (status, content_type, body.into()).into_response()
}

impl AttestService {
    pub(crate) fn new(
        replica: Hosted,
        issuer: CompletingIssuer,
        clock: Arc<dyn WallClock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            replica,
            issuer,
            clock,
            metrics,
            bucket: Arc::new(Bucket::full(PACE, Instant::now())),
            issuing: Arc::new(Semaphore::new(ISSUING_MAX)),
            unsent: Arc::new(Semaphore::new(UNSENT_BYTES_MAX)),
        }
    }

    pub(super) fn router(self) -> Router {
        let no_path = || async {
            let message = "there are only /v1/attest and /openapi.json";
            Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
        };
        let attest = get(by_query)
            .post(by_body)
            .options(preflight)
            .fallback(wrong_method);
        Router::new()
            .route("/v1/attest", attest)
            .route("/openapi.json", get(openapi).fallback(wrong_method))
            .fallback(no_path)
            .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
            .layer(map_response(with_headers))
            .with_state(self)
    }

    async fn attest(&self, nonce: Nonce, omit_policies: bool) -> Result<Response, Refusal> {
        let place = Place::take(&self.issuing, &self.unsent)
            .map_err(|_| Refusal::too_many(Duration::from_secs(1)))?;
        let confirmed = async { self.replica.confirmed().await.map_err(Refusal::state) };
        let active = confirmed_with_token(&self.bucket, confirmed).await?;
        let issued_at = DateTime::from_system_time(self.clock.now())
            .map_err(|error| Refusal::internal("CLOCK", error))?;
        let issuer = self.issuer.clone();
        let make = move || {
            // Here, so that it is held until the work is done, also when the caller is gone.
            let place = place;
            let history = manifests_response(&active);
            let statement = Statement::new(&nonce, issued_at.to_string(), history, omit_policies);
            let statement = statement
                .to_json()
                .map_err(|error| Refusal::internal("INTERNAL", error))?;
            let report_data = ReportData(report_data(&nonce, &statement));
            let evidence = issuer
                .issue(&report_data)
                .map_err(|error| Refusal::internal("EVIDENCE_FAILED", error))?;
            let json = Answer::new(evidence.encode(), statement).to_json();
            let json = json.map_err(|error| {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Refusal::new(status, "ANSWER_TOO_LARGE", error)
            })?;
            let json = Bytes::from(json);
            let unsent = place.made(json.len());
            Ok(held(json, unsent))
        };
        let made = spawn_blocking(make).await;
        let body = made.map_err(|error| Refusal::internal("PANICKED", error))??;
        Ok(json_response(StatusCode::OK, body))
    }

    /// Answers and counts.
    async fn answer(&self, question: Result<(Nonce, bool), Refusal>) -> Response {
        let outcome = match question {
            Ok((nonce, omit_policies)) => self.attest(nonce, omit_policies).await,
            Err(refusal) => Err(refusal),
        };
        let response = outcome.unwrap_or_else(IntoResponse::into_response);
        self.metrics.attest_answered(response.status().as_u16());
        response
    }
}

async fn by_query(State(service): State<AttestService>, method: Method, uri: Uri) -> Response {
    // A route for GET takes HEAD as well, which would cost evidence that nobody sees.
    if method == Method::HEAD {
        return wrong_method().await;
    }
    service.answer(read_query(uri.query())).await
}

fn read_query(query: Option<&str>) -> Result<(Nonce, bool), Refusal> {
    let request = Request::from_query(query.unwrap_or_default()).map_err(Refusal::bad)?;
    question(&request)
}

fn question(request: &Request) -> Result<(Nonce, bool), Refusal> {
    let nonce = Nonce::parse(&request.nonce).map_err(Refusal::bad)?;
    Ok((nonce, request.omits_policies()))
}

async fn by_body(
    State(service): State<AttestService>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    service.answer(read_body(body)).await
}

fn read_body(body: Result<Bytes, BytesRejection>) -> Result<(Nonce, bool), Refusal> {
    let body = body.map_err(|error| match error.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
            Refusal::new(status, "REQUEST_TOO_LARGE", message)
        }
        _ => Refusal::bad("the body could not be read"),
    })?;
    let request = Request::parse(&body).map_err(|error| {
        let source = std::error::Error::source(&error);
        let cause = source.map_or_else(String::new, |cause| format!(": {cause}"));
        Refusal::bad(format!("{error}{cause}"))
    })?;
    question(&request)
}

async fn openapi() -> Response {
    json_response(StatusCode::OK, Bytes::from_static(OPENAPI.as_bytes()))
}

async fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Content-Type"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

async fn wrong_method() -> Response {
    let message = "ask with GET or POST";
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let refusal = Refusal::new(status, "METHOD_NOT_ALLOWED", message);
    ([(header::ALLOW, "GET, POST, OPTIONS")], refusal).into_response()
}

/// Any page may read any answer: it is the same for everybody, and no credential takes part.
async fn with_headers(mut response: Response) -> Response {
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_empty_bucket_costs_no_question_to_the_quorum() {
        let bucket = Bucket::full(PACE, Instant::now());
        // Who is not confirmed takes no token.
        for _ in 0..100 {
            let refused = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "NO_MANIFEST", "");
            let refused = confirmed_with_token(&bucket, ready(Err::<(), _>(refused))).await;
            assert_eq!(refused.expect_err("refused").code, "NO_MANIFEST");
        }
        let mut asked = 0;
        for _ in 0..100 {
            let confirmed = async {
                asked += 1;
                Ok(())
            };
            if let Err(refusal) = confirmed_with_token(&bucket, confirmed).await {
                assert_eq!(refusal.status, StatusCode::TOO_MANY_REQUESTS);
            }
        }
        assert_eq!(asked, PACE.burst);
    }

    #[test]
    fn answers_that_nobody_reads_have_a_limit() {
        let issuing = Arc::new(Semaphore::new(ISSUING_MAX));
        let unsent = Arc::new(Semaphore::new(UNSENT_BYTES_MAX));
        let place = || Place::take(&issuing, &unsent);
        let making = [place().expect("first"), place().expect("second")];
        place().expect_err("two are being made");
        drop(making);
        let large = std::iter::repeat_with(place).map_while(Result::ok);
        let large = large.take(100).map(|place| {
            let part = place.made(ANSWER_BYTES_MAX);
            held(Bytes::from_static(b"as if it were large"), part)
        });
        let mut large: Vec<_> = large.collect();
        assert_eq!(large.len(), 4);
        place().expect_err("all is unsent");
        large.truncate(1);
        // Smaller ones give back what they do not take.
        let small = (0..64).map(|_| place().map(|place| place.made(2_000_000)));
        small
            .collect::<Result<Vec<_>, _>>()
            .expect("room for small ones");
    }
}
