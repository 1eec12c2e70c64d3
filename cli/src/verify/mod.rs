//! The verdict on a Coordinator: what was checked, what came out, and the files that `verify` leaves behind.
//!
//! [`report::Report`] is all of it as data. Its three forms are the text on the terminal, JSON, and [`html`], a page that needs nothing else.

pub mod answer;
pub mod facts;
pub mod files;
pub mod history;
pub mod html;
pub mod report;
pub mod steps;

pub use contrast_sdk::{meaning, rows};

#[cfg(test)]
mod fixture;
