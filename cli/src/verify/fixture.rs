//! The history of the SDK's tests.

use contrast_sdk::{
    digest::sha256,
    history::{History, Memory},
    transition::{TransitionHash, transition_hash},
};

#[path = "../../../crates/sdk/src/history_fixture.rs"]
mod history;

pub(crate) use history::Deployment;
