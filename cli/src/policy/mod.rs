//! Policies of pods, for people: show, explain, compare, test.

pub(crate) mod diff;
pub(crate) mod explain;
mod pods;
pub(crate) mod show;
pub(crate) mod test;
