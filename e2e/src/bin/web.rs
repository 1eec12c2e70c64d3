//! Sample application, front end: a page with the counts and a form to vote.

use anyhow::Result;
use axum::{
    Router,
    extract::{Path, State},
    http::{Method, StatusCode},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use clap::Parser as _;
use contrast_e2e::application::{Arguments, CHOICES, http, serve, setting};

#[tokio::main]
async fn main() -> Result<()> {
    let api = setting("API_URL")?;
    let router = Router::new()
        .route("/", get(page))
        .route("/results", get(results))
        .route("/vote/{choice}", post(vote))
        .with_state(api);
    serve(Arguments::parse(), router).await
}

async fn page(State(api): State<String>) -> Response {
    let counts = match http::call(Method::GET, &format!("{api}/results")).await {
        Ok(counts) => counts,
        Err(error) => return bad_gateway(&error),
    };
    let buttons: String = CHOICES
        .iter()
        .map(|choice| {
            format!("<form method=post action=/vote/{choice}><button>{choice}</button></form>")
        })
        .collect();
    Html(format!(
        "<!doctype html><title>votes</title><pre>{counts}</pre>{buttons}"
    ))
    .into_response()
}

async fn results(State(api): State<String>) -> Response {
    match http::call(Method::GET, &format!("{api}/results")).await {
        Ok(counts) => counts.into_response(),
        Err(error) => bad_gateway(&error),
    }
}

async fn vote(State(api): State<String>, Path(choice): Path<String>) -> Response {
    if !CHOICES.contains(&choice.as_str()) {
        return (StatusCode::BAD_REQUEST, "no such choice").into_response();
    }
    match http::call(Method::POST, &format!("{api}/vote/{choice}")).await {
        Ok(_) => Redirect::to("/").into_response(),
        Err(error) => bad_gateway(&error),
    }
}

fn bad_gateway(error: &anyhow::Error) -> Response {
    (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response()
}
