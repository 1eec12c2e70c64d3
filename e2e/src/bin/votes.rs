//! Sample application, votes: checks a vote and counts it in the store.

use anyhow::Result;
use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use clap::Parser as _;
use contrast_e2e::application::{Arguments, CHOICES, resp, serve, setting};

#[tokio::main]
async fn main() -> Result<()> {
    let router = Router::new()
        .route("/vote/{choice}", post(vote))
        .with_state(setting("STORE_ADDRESS")?);
    serve(Arguments::parse(), router).await
}

async fn vote(State(store): State<String>, Path(choice): Path<String>) -> Response {
    if !CHOICES.contains(&choice.as_str()) {
        return (StatusCode::BAD_REQUEST, "no such choice").into_response();
    }
    match resp::integer(&store, &["INCR", &choice]).await {
        Ok(count) => count.to_string().into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}
