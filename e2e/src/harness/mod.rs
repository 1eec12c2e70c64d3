//! The parts of a cluster that are not ours, played on one machine; also without root, but for [`ReplicaSet`].
//!
//! | played part | how |
//! | --- | --- |
//! | hardware | a software TEE whose root the manifest pins as `insecure` |
//! | pod network | every pod is a network namespace; without root it has a loopback address of its own in 127.77.0.0/16 |
//! | service names | a DNS server on loopback |
//! | kubelet, kata-agent | [`Pod`]: reads the generated YAML, asks the pod's policy, starts the real programs |
//! | nodes of several Coordinators, and what goes wrong between them | [`ReplicaSet`]: network namespaces on a bridge, firewalls, disks |
//! | pods of which only the mesh matters | [`mesh`] |
//! | owner's laptop | [`Owner`]: runs the real `contrast` in a workspace directory |

mod agent;
mod cluster;
mod dns;
mod http;
pub(crate) mod loopback;
pub mod mesh;
mod mesh_client;
mod network;
mod owner;
mod pod;
mod process;
mod programs;
mod replicas;
mod yaml;

pub use cluster::{Cluster, CoordinatorPod, TeeKind};
pub use http::get;
pub use mesh_client::MeshClient;
pub use network::{Network, no_network_because};
pub use owner::{Output, Owner, OwnerKeys};
pub use pod::{Pod, PodSpec, Site};
pub use process::Process;
pub(crate) use programs::workspace_root;
pub use programs::{Build, envoy, program};
pub use replicas::{Disk, ReplicaSet};
