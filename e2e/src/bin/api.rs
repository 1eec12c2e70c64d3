//! Sample application, API: takes votes, hands them to `votes`, reads the counts from `store`.

use anyhow::Result;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Parser as _;
use contrast_e2e::application::{Arguments, CHOICES, http, resp, serve, setting};
use serde_json::{Map, Value};

#[derive(Clone)]
struct Backends {
    votes: String,
    store: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let backends = Backends {
        votes: setting("VOTES_URL")?,
        store: setting("STORE_ADDRESS")?,
    };
    let router = Router::new()
        .route("/results", get(results))
        .route("/vote/{choice}", post(vote))
        .with_state(backends);
    serve(Arguments::parse(), router).await
}

async fn results(State(backends): State<Backends>) -> Response {
    let mut counts = Map::new();
    for choice in CHOICES {
        match resp::integer(&backends.store, &["GET", choice]).await {
            Ok(count) => counts.insert(choice.to_owned(), Value::from(count)),
            Err(error) => return bad_gateway(&error),
        };
    }
    Json(counts).into_response()
}

async fn vote(State(backends): State<Backends>, Path(choice): Path<String>) -> Response {
    match http::call(Method::POST, &format!("{}/vote/{choice}", backends.votes)).await {
        Ok(count) => count.into_response(),
        Err(error) => bad_gateway(&error),
    }
}

fn bad_gateway(error: &anyhow::Error) -> Response {
    (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response()
}
