//! The hash chain of manifests. It is the SDK's, so that every verifier computes the same.

pub use contrast_sdk::{
    digest::sha256,
    transition::{TransitionHash, TransitionHashError, transition_hash},
};
