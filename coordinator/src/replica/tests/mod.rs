//! Replicas in one process, on real time. The simulation covers far more, and this is where it is seen step by step.

mod attacks;
mod hub;
mod news;
mod stories;
