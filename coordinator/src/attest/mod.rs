//! The attest API: evidence, history and CA certificates in one answer over plain HTTP, see `docs/reference/attest-api.md`.

mod handler;
mod server;

pub(crate) use handler::AttestService;
pub(crate) use server::serve;
