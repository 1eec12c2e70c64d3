use axum::{
    body::Bytes,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::{Value, json};

use crate::state::StateError;

/// A request that gets no result. The text is for the caller: it never contains keys or plaintext.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The request cannot be answered as it is.
    #[error("{0}")]
    Bad(String),
    /// Vault's words, so that clients know them. Does not say whether the key exists.
    #[error("permission denied")]
    Denied,
    #[error("no such path")]
    NoPath,
    #[error("unsupported operation")]
    Method { allow: &'static str },
    #[error("the body has more than {max} bytes; split the request")]
    TooLarge { max: usize },
    #[error("the request took longer than {seconds} s")]
    Slow { seconds: u64 },
    /// There is no confirmed state, which Vault calls sealed.
    #[error("the Coordinator is sealed: {0}")]
    Sealed(#[from] StateError),
    #[error("internal error of the Coordinator; its log says more")]
    Internal,
}

impl Failure {
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::Bad(text.into())
    }

    /// Logs the cause, which is not for the caller.
    pub(super) fn internal(what: &'static str, cause: impl ToString) -> Self {
        tracing::error!(what, "the transit engine failed: {}", cause.to_string());
        Self::Internal
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NoPath => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::Sealed(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// As Vault writes errors.
    pub(super) fn into_response(self) -> Response<Bytes> {
        let errors = match &self {
            Self::NoPath => json!([]),
            other => json!([other.to_string()]),
        };
        let mut response = respond(self.status(), &json!({ "errors": errors }));
        if let Self::Method { allow } = self {
            let allow = HeaderValue::from_static(allow);
            response.headers_mut().insert(header::ALLOW, allow);
        }
        response
    }
}

/// A result in the envelope that Vault's clients expect.
pub(super) fn enveloped(data: &Value) -> Value {
    json!({
        "lease_id": "",
        "renewable": false,
        "lease_duration": 0,
        "data": data,
        "wrap_info": null,
        "warnings": null,
        "auth": null,
    })
}

pub(super) fn respond(status: StatusCode, body: &Value) -> Response<Bytes> {
    json_response(status, Bytes::from(body.to_string()))
}

/// `body` is JSON already.
pub(super) fn json_response(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
