//! What the four programs of the sample application share. They know nothing of attestation, certificates or the mesh.

pub mod http;
pub mod resp;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;

use crate::harness::loopback::LISTEN_ON_LOOPBACK;

/// The only flag of the sample programs.
#[derive(Debug, clap::Parser)]
pub struct Arguments {
    /// Address to serve on.
    #[arg(long)]
    listen: SocketAddr,
}

impl Arguments {
    /// Address to serve on: as it was said, or on loopback only where nothing redirects traffic.
    pub fn listen(&self) -> SocketAddr {
        match std::env::var_os(LISTEN_ON_LOOPBACK) {
            Some(_) => (Ipv4Addr::LOCALHOST, self.listen.port()).into(),
            None => self.listen,
        }
    }
}

/// Choices that can be voted for.
pub const CHOICES: [&str; 3] = ["tabs", "spaces", "both"];

/// Value of the environment variable `name`.
///
/// # Errors
/// When it is not set.
pub fn setting(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("environment variable {name} is not set"))
}

/// Serves `router` until the process ends.
///
/// # Errors
/// When the address is taken.
pub async fn serve(arguments: Arguments, router: Router) -> Result<()> {
    let listen = arguments.listen();
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    axum::serve(listener, router).await?;
    Ok(())
}
