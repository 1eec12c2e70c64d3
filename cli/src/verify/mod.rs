//! The verdict on a Coordinator: what was checked, what came out, and the files that `verify` leaves behind.

pub mod files;
pub mod history;
pub mod report;
