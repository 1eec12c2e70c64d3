use std::{future::Future, panic::AssertUnwindSafe};

use futures::FutureExt;
use tokio::time::Instant;
use tonic::{Code, Response, Status};

use super::status::{ApiError, status};
use crate::ops::Metrics;

/// Runs one request: measures it, maps its error, and keeps a panic in it from taking other requests of the connection down.
pub(crate) async fn answer<T>(
    metrics: &Metrics,
    method: &'static str,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<Response<T>, Status> {
    let start = Instant::now();
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    let result = match outcome {
        Ok(Ok(message)) => Ok(Response::new(message)),
        Ok(Err(error)) => Err(status(method, &error)),
        Err(_) => Err(status(method, &ApiError::Panicked)),
    };
    let code = result.as_ref().map_or_else(Status::code, |_| Code::Ok);
    metrics.observe_request(method, code, start.elapsed());
    result
}
