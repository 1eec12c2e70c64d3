use std::{future::Future, panic::AssertUnwindSafe};

use contrast_telemetry::traces;
use futures::FutureExt;
use tokio::time::Instant;
use tonic::{Code, Response, Status};

use super::status::{ApiError, classify, status};
use crate::{
    audit::Refusing,
    ops::{Metrics, code_name},
};

/// Runs one request: measures it, maps its error, and keeps a panic in it from taking other requests of the connection down.
pub(crate) async fn answer<T>(
    metrics: &Metrics,
    method: &'static str,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<Response<T>, Status> {
    run(metrics, method, None, work).await
}

/// As [`answer`], for a request that is decided about: an error is recorded in the audit stream. What is granted, `work` records itself,
/// because it knows what that is.
pub(crate) async fn decide<T>(
    metrics: &Metrics,
    method: &'static str,
    refusing: Refusing<'_>,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<Response<T>, Status> {
    run(metrics, method, Some(refusing), work).await
}

async fn run<T>(
    metrics: &Metrics,
    method: &'static str,
    refusing: Option<Refusing<'_>>,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<Response<T>, Status> {
    let start = Instant::now();
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    let mut reason = None;
    let result = match outcome.unwrap_or(Err(ApiError::Panicked)) {
        Ok(message) => Ok(Response::new(message)),
        Err(error) => {
            reason = Some(classify(&error).1);
            if let Some(refusing) = refusing {
                refusing.because(&error);
            }
            Err(status(method, &error))
        }
    };
    let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
    traces::answered(method, code_name(code), reason);
    metrics.observe_request(method, code, start.elapsed());
    result
}
