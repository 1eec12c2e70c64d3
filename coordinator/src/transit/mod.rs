//! The transit engine: the part of Vault's HTTP API that encrypts with a key of the caller, over mutual TLS of the mesh; see
//! `docs/reference/transit.md`.
//!
//! Keys follow from the seed and are derived for each request; nothing is stored. A client's certificate says which key is its own.

mod algorithm;
mod ciphertext;
mod context;
mod failure;
mod fields;
mod fuzzed;
mod general;
mod handler;
mod keys;
mod life;
mod operation;
mod route;
mod server;
mod shares;
#[cfg(test)]
mod tests;
mod usage;

pub use fuzzed::answer_any;
pub(crate) use handler::TransitService;
pub(crate) use server::serve;
