use std::{mem, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{Method, Request, Response, StatusCode, request::Parts},
};
use contrast_clock::WallClock;
use http_body_util::{BodyExt as _, LengthLimitError};
use serde_json::Value;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    context::{Client, Contexts},
    failure::{Failure, enveloped, json_response, respond},
    fields::Input,
    general,
    keys::Keys,
    operation::describe,
    route::Route,
    usage::Usage,
};
use crate::{ops::Metrics, replica::Hosted};

/// Most bytes of a body: what is encrypted here are keys, and what is larger is better encrypted with a data key. Together with
/// [`REQUESTS_MAX`] it bounds the memory of requests to 256 MiB and a small multiple for decoding.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Requests at the same time; more wait.
const REQUESTS_MAX: usize = 256;
/// What this API is, for programs.
const OPENAPI: &str = include_str!("../../../docs/reference/transit.openapi.json");
/// Longest time for one request, waiting and its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The transit engine without its connections.
#[derive(Debug)]
pub(crate) struct TransitService {
    pub(super) contexts: Contexts,
    usage: Usage,
    metrics: Arc<Metrics>,
    requests: Semaphore,
}

impl TransitService {
    pub(crate) fn new(replica: Hosted, clock: Arc<dyn WallClock>, metrics: Arc<Metrics>) -> Self {
        Self {
            contexts: Contexts::new(replica, clock),
            usage: Usage::new(Arc::clone(&metrics)),
            metrics,
            requests: Semaphore::new(REQUESTS_MAX),
        }
    }

    /// Answers and counts.
    pub(super) async fn answer(&self, client: &Client, request: Request<Body>) -> Response<Body> {
        let (parts, mut body) = request.into_parts();
        let route = Route::of(parts.uri.path(), client.id());
        let label = route.as_ref().map_or("none", Route::label);
        let work = async {
            let outcome = self.outcome(client, route, &parts, &mut body).await;
            discard(&mut body).await;
            outcome
        };
        let outcome = timeout(REQUEST_TIMEOUT, work).await;
        let response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(failure)) => failure.into_response(),
            Err(_) => Failure::Slow {
                seconds: REQUEST_TIMEOUT.as_secs(),
            }
            .into_response(),
        };
        self.metrics
            .transit_answered(label, response.status().as_u16());
        response
    }

    async fn outcome(
        &self,
        client: &Client,
        route: Result<Route, Failure>,
        parts: &Parts,
        body: &mut Body,
    ) -> Result<Response<Body>, Failure> {
        let route = route?;
        route.check_method(&parts.method)?;
        if route == Route::OpenApi {
            return Ok(json_response(StatusCode::OK, Body::from(OPENAPI)));
        }
        // Nobody closes the semaphore.
        let _permit = self.requests.acquire().await;
        let now = self.contexts.now();
        let context = self.contexts.current().await;
        match &route {
            Route::Health => {
                let (status, body) = general::health(parts.uri.query(), context.is_err(), now)?;
                return Ok(match parts.method == Method::HEAD {
                    true => {
                        let mut response = Response::new(Body::empty());
                        *response.status_mut() = status;
                        response
                    }
                    false => respond(status, &body),
                });
            }
            Route::SealStatus => {
                return Ok(respond(
                    StatusCode::OK,
                    &general::seal_status(context.is_err()),
                ));
            }
            _ => {}
        }
        let context = context?;
        client.admit(&context, now)?;
        // Before the body is read: who has no key shall not cost its memory.
        if let Route::Key { name, .. } | Route::ReadKey { name } = &route {
            client.authorise(&context, name)?;
        }
        let keys = |name| Keys {
            derivation: context.active.keys().derivation(),
            entropy: self.contexts.entropy(),
            usage: &self.usage,
            name,
        };
        let mut status = StatusCode::OK;
        let data: Value = match &route {
            Route::Key {
                operation,
                name,
                hash,
            } => {
                let fields = Input::read(&read(body).await?)?;
                let (code, data) = operation.run(keys(name), &fields, *hash)?;
                status = code;
                data
            }
            Route::ReadKey { name } => describe(keys(name))?,
            Route::Random { bytes } => {
                let fields = Input::read(&read(body).await?)?;
                general::random(bytes.as_deref(), &fields.fields, self.contexts.entropy())?
            }
            Route::Hash { algorithm } => {
                let fields = Input::read(&read(body).await?)?;
                general::hash(algorithm.as_deref(), &fields.fields)?
            }
            Route::LookupSelf => general::token(client.id()),
            Route::RenewSelf => return Err(general::renew()),
            // Answered above.
            Route::Health | Route::SealStatus | Route::OpenApi => return Err(Failure::NoPath),
        };
        Ok(respond(status, &enveloped(&data)))
    }
}

/// Reads on when a request was refused before its body was wanted: a connection that is closed with unread bytes is reset, and the answer
/// may be lost with it. Beyond the limit that is the sender's loss.
async fn discard(body: &mut Body) {
    let mut left = BODY_BYTES_MAX;
    while left > 0
        && let Some(Ok(frame)) = body.frame().await
    {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        left = left.saturating_sub(bytes.max(1));
    }
}

async fn read(body: &mut Body) -> Result<Bytes, Failure> {
    let limited = to_bytes(mem::take(body), BODY_BYTES_MAX).await;
    limited.map_err(|error| {
        let source = std::error::Error::source(&error);
        match source.is_some_and(|cause| cause.is::<LengthLimitError>()) {
            true => Failure::TooLarge {
                max: BODY_BYTES_MAX,
            },
            false => Failure::bad("the body could not be read"),
        }
    })
}
