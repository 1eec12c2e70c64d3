//! The check of a history. It is the SDK's, so that every verifier judges alike.

pub use contrast_sdk::history::{History, KnownTransition, Memory, newest_manifest};
