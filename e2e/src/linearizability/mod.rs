//! Whether what clients saw of a replicated Coordinator can be explained by one history that only grows.
//!
//! The object is a chain of transitions. A log says what each client asked, when it began to ask, when it had the answer, and
//! what that was. [`check`] decides whether there is one order of all operations that respects real time (an operation that had
//! its answer before another began comes first) and in which
//!
//! - a set that was acknowledged appends its transition to the head that it named as its base,
//! - a read returns the whole chain as it is at that moment,
//! - a set that was refused because its base is not the head finds another head,
//! - a certificate names the head, or one that was the head at most the configured bound before,
//! - a set without an answer took effect at some moment after it began, or never.
//!
//! Every transition is in the chain that was read last, so its position is known, and the search for an order becomes a sweep
//! over time: see [`check`].

mod check;
mod log;
#[cfg(test)]
mod tests;

pub use check::{Summary, Violation, check};
pub use log::{Answer, Hash, Link, Log, LogError, Operation, Question};
