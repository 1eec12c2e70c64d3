use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::get,
};
use contrast_attest_document::{Answer, Nonce, Request, Statement, report_data};
use contrast_attestation::{Issuer, ReportData};
use contrast_clock::WallClock;
use contrast_collateral::CompletingIssuer;
use der::DateTime;
use serde_json::json;
use tokio::{
    sync::{Semaphore, TryAcquireError},
    task::spawn_blocking,
    time::Instant,
};
use tonic::Code;
use tonic_types::StatusExt;

use super::bucket::Bucket;
use crate::{
    api::{ApiError, manifests_response, status},
    ops::Metrics,
    replica::Hosted,
};

/// A nonce and an option have about a hundred bytes.
const REQUEST_BYTES_MAX: usize = 4096;
/// What this API is, for programs.
const OPENAPI: &str = include_str!("../../../docs/reference/attest.openapi.json");
/// Answers being made at the same time: each may need the memory of the largest one several times over.
const ISSUING_MAX: usize = 2;

/// What answers are made of.
#[derive(Debug, Clone)]
pub(crate) struct AttestService {
    replica: Hosted,
    issuer: CompletingIssuer,
    clock: Arc<dyn WallClock>,
    metrics: Arc<Metrics>,
    bucket: Arc<Bucket>,
    issuing: Arc<Semaphore>,
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
        let mut response = json_response(self.status, body.to_string().into());
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

fn json_response(status: StatusCode, body: Bytes) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (status, content_type, body).into_response()
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
            bucket: Arc::new(Bucket::full(Instant::now())),
            issuing: Arc::new(Semaphore::new(ISSUING_MAX)),
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
        let permit = match Arc::clone(&self.issuing).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                return Err(Refusal::too_many(Duration::from_secs(1)));
            }
        };
        // Before a token is taken: who asks too early must not lock out who asks after the first `set`.
        let active = self.replica.confirmed().await.map_err(Refusal::state)?;
        self.bucket
            .take(Instant::now())
            .map_err(Refusal::too_many)?;
        let issued_at = DateTime::from_system_time(self.clock.now())
            .map_err(|error| Refusal::internal("CLOCK", error))?;
        let issuer = self.issuer.clone();
        let make = move || {
            // Held until the work is done, also when the caller is gone.
            let _permit = permit;
            let history = manifests_response(&active);
            let statement = Statement::new(&nonce, issued_at.to_string(), history, omit_policies);
            let statement = statement
                .to_json()
                .map_err(|error| Refusal::internal("INTERNAL", error))?;
            let report_data = ReportData(report_data(&nonce, &statement));
            let evidence = issuer
                .issue(&report_data)
                .map_err(|error| Refusal::internal("EVIDENCE_FAILED", error))?;
            Answer::new(evidence.encode(), statement)
                .to_json()
                .map_err(|error| {
                    let status = StatusCode::INTERNAL_SERVER_ERROR;
                    Refusal::new(status, "ANSWER_TOO_LARGE", error)
                })
        };
        let made = spawn_blocking(make).await;
        let json = made.map_err(|error| Refusal::internal("PANICKED", error))??;
        Ok(json_response(StatusCode::OK, json.into()))
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
