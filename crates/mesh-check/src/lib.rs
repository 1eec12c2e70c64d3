//! Why a connection of the service mesh is refused.
//!
//! [`check`] looks at the pod itself first: its certificate files, the kernel's rules, Envoy. With a [`Target`] it then connects to it as Envoy
//! would, and finishes a TLS handshake that a client would refuse, so that it can say everything that is wrong instead of the first
//! thing. What the server refuses, it says by a TLS alert or by closing the connection; TLS 1.3 lets it do so only behind the
//! handshake, so the check waits for that, sends one empty line, and waits again.
//!
//! Every check is a [`Row`]; rows that are not ok have a [`Reason`], a stable word. Nothing that is sent or received through the connection is
//! kept, and the private key never leaves the process.

mod certificate;
mod connection;
mod handshake;
mod own;
mod remote;
mod report;
mod target;

use std::{path::PathBuf, time::SystemTime};

pub use report::{Reason, Report, Row, State, Verdict};
pub use target::{Patience, Target, TargetError};

use crate::report::Rows;

/// What is known about the pod.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Directory with `certChain.pem`, `key.pem` and `mesh-ca.pem`, as the Initializer writes them.
    pub tls_config: PathBuf,
    /// File that exists while Envoy serves; `None`: not looked at.
    pub ready_file: Option<PathBuf>,
    /// Whether rules of the kernel lead connections to Envoy (ingress mode `transparent`).
    pub transparent: bool,
    /// The pod's namespace, for workloads that are named without one.
    pub namespace: Option<String>,
}

/// Checks the pod, and the way to `target` if there is one. `now` decides about certificates. Blocks while it connects.
pub fn check(pod: &Pod, target: Option<&Target>, patience: Patience, now: SystemTime) -> Report {
    let mut rows = Rows::default();
    let material = own::files(&pod.tls_config, now, &mut rows);
    own::envoy(pod, &mut rows);
    if let Some(target) = target {
        let seen_from = remote::Origin {
            material: &material,
            namespace: pod.namespace.as_deref(),
            patience,
            now,
        };
        seen_from.check(target, &mut rows);
    }
    Report::new(target.map(|target| target.remote.to_string()), rows)
}
