use std::{mem, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody as _, to_bytes},
    http::{Method, Request, Response, StatusCode, request::Parts},
};
use contrast_clock::{Entropy, WallClock};
use http_body_util::{BodyExt as _, LengthLimitError};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    context::{Client, Context, Contexts},
    failure::{Failure, enveloped, json_response, respond},
    fields::Input,
    general,
    keys::Keys,
    operation::{Operation, describe},
    route::Route,
    shares::{Permit, Shares},
    usage::Usage,
};
use crate::{answer::held, ops::Metrics, replica::Hosted};

/// Most bytes of a body: what is encrypted here are keys, and what is larger is better encrypted with a data key.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// What is larger, or has more items, takes longer than a task may without a pause.
const SHORT_BYTES_MAX: usize = 16 * 1024;
const SHORT_ITEMS_MAX: usize = 4;
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
    pub(super) shares: Shares,
}

impl TransitService {
    pub(crate) fn new(replica: Hosted, clock: Arc<dyn WallClock>, metrics: Arc<Metrics>) -> Self {
        Self {
            contexts: Contexts::new(replica, clock),
            usage: Usage::new(Arc::clone(&metrics)),
            metrics,
            shares: Shares::new(),
        }
    }

    /// Answers and counts. The answer keeps its place among the requests until it is sent.
    pub(super) async fn answer(
        self: &Arc<Self>,
        client: &Arc<Client>,
        request: Request<Body>,
    ) -> Response<Body> {
        client.activity().happens();
        let (parts, mut body) = request.into_parts();
        let route = Route::of(parts.uri.path(), client.id());
        let label = route.as_ref().map_or("none", Route::label);
        let work = async {
            let mut place = None;
            let asked = (route, &parts, &mut body);
            let outcome = self.outcome(client, asked, &mut place).await;
            if outcome.is_err() {
                place = None;
            }
            discard(&mut body).await;
            (outcome, place)
        };
        let outcome = timeout(REQUEST_TIMEOUT, work).await;
        let (response, place) = match outcome {
            Ok((Ok(response), place)) => (response, place),
            Ok((Err(failure), _)) => (failure.into_response(), None),
            Err(_) => {
                let seconds = REQUEST_TIMEOUT.as_secs();
                (Failure::Slow { seconds }.into_response(), None)
            }
        };
        self.metrics
            .transit_answered(label, response.status().as_u16());
        let sent = Sent(Arc::clone(client));
        response.map(|bytes| held(bytes, (place, sent)))
    }

    async fn outcome(
        self: &Arc<Self>,
        client: &Client,
        (route, parts, body): (Result<Route, Failure>, &Parts, &mut Body),
        place: &mut Option<Permit>,
    ) -> Result<Response<Bytes>, Failure> {
        let route = route?;
        route.check_method(&parts.method)?;
        match &route {
            Route::OpenApi => {
                let document = Bytes::from_static(OPENAPI.as_bytes());
                return Ok(json_response(StatusCode::OK, document));
            }
            Route::Health => return self.health(parts).await,
            Route::SealStatus => {
                let sealed = self.contexts.current().await.is_err();
                return Ok(respond(StatusCode::OK, &general::seal_status(sealed)));
            }
            _ => {}
        }
        *place = Some(self.shares.request(client.share()).await);
        let context = self.contexts.current().await?;
        client.admit(&context, self.contexts.now())?;
        // Before the body is read: who has no key shall not cost its memory.
        if let Route::Key { name, .. } | Route::ReadKey { name } = &route {
            client.authorise(&context, name)?;
        }
        let data = match &route {
            Route::Key { .. } | Route::Random { .. } | Route::Hash { .. } => {
                let length = body.size_hint().upper();
                let permit = self.shares.body(client.share(), length).await;
                let body = read(body).await?;
                return self.work(client, (context, route), (body, permit)).await;
            }
            Route::ReadKey { name } => describe(&self.keys(&context, name))?,
            Route::LookupSelf => general::token(client.id()),
            Route::RenewSelf => return Err(general::renew()),
            // Answered above.
            Route::Health | Route::SealStatus | Route::OpenApi => return Err(Failure::NoPath),
        };
        Ok(respond(StatusCode::OK, &enveloped(&data)))
    }

    async fn health(&self, parts: &Parts) -> Result<Response<Bytes>, Failure> {
        let sealed = self.contexts.current().await.is_err();
        let (status, body) = general::health(parts.uri.query(), sealed, self.contexts.now())?;
        if parts.method != Method::HEAD {
            return Ok(respond(status, &body));
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        Ok(response)
    }

    fn keys<'a>(&'a self, context: &'a Context, name: &'a str) -> Keys<'a> {
        let derivation = context.active.keys().derivation();
        Keys::new(derivation, self.contexts.entropy(), (&self.usage, name))
    }

    /// Does what has a body: at once if it is short, else where it hinders nobody.
    async fn work(
        self: &Arc<Self>,
        client: &Client,
        (context, route): (Arc<Context>, Route),
        (body, permit): (Bytes, Permit),
    ) -> Result<Response<Bytes>, Failure> {
        let service = Arc::clone(self);
        let asymmetric = is_asymmetric(&route);
        let run = move |input: &Input| service.run(&context, &route, input);
        if body.len() > SHORT_BYTES_MAX {
            let work = move || run(&Input::read(&body)?);
            return self.shares.apart(client.share(), permit, work).await;
        }
        let input = Input::read(&body)?;
        if !asymmetric && is_short(&input) {
            return run(&input);
        }
        let work = move || run(&input);
        self.shares.apart(client.share(), permit, work).await
    }

    fn run(
        &self,
        context: &Context,
        route: &Route,
        input: &Input,
    ) -> Result<Response<Bytes>, Failure> {
        let entropy = self.contexts.entropy();
        let (status, data) = data_of(route, input, entropy, |name| self.keys(context, name))?;
        Ok(respond(status, &enveloped(&data)))
    }
}

/// Status and data of the answer to what has a body; `keys` gives those of a name.
pub(super) fn data_of<'a>(
    route: &'a Route,
    input: &Input,
    entropy: &dyn Entropy,
    keys: impl FnOnce(&'a str) -> Keys<'a>,
) -> Result<(StatusCode, Value), Failure> {
    let data = match route {
        Route::Key {
            operation,
            name,
            hash,
        } => return operation.run(&keys(name), input, *hash),
        Route::Random { bytes } => general::random(bytes.as_deref(), &input.fields, entropy)?,
        Route::Hash { algorithm } => general::hash(algorithm.as_deref(), &input.fields)?,
        // They have no body.
        _ => return Err(Failure::NoPath),
    };
    Ok((StatusCode::OK, data))
}

fn is_short(input: &Input) -> bool {
    input.batch().map_or(0, <[_]>::len) <= SHORT_ITEMS_MAX
}

/// Deriving a key for signatures alone takes as long as many other operations.
fn is_asymmetric(route: &Route) -> bool {
    let Route::Key { operation, .. } = route else {
        return false;
    };
    matches!(operation, Operation::Sign | Operation::Verify)
}

/// Tells a connection that an answer has been sent.
struct Sent(Arc<Client>);

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.activity().happens();
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
