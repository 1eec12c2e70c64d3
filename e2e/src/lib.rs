//! End to end: what a user would do, with the real programs on one machine.
//!
//! [`harness`] plays the parts that are not ours: the kubelet and kata-agent that start a pod's containers after asking
//! its policy, the service names of a cluster, and the hardware (a software TEE). `src/bin/demo` is the guided tour,
//! `stories/` are tests that each tell one story a user would tell. [`application`] is the code that the sample
//! application's four programs share.
//!
//! [`linearizability`] judges what concurrent clients saw of replicated Coordinators; [`load`] is such clients. [`vm`] boots
//! real kernels.

pub mod application;
pub mod harness;
pub mod linearizability;
pub mod load;
pub mod vm;
