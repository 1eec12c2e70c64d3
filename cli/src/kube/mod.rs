//! A Coordinator in a Kubernetes cluster, reached through `kubectl`.
//!
//! `kubectl` brings what a client of Kubernetes needs: kubeconfig files, contexts, credential plugins, proxies. What goes through its
//! port-forward is attested TLS, so neither it nor the cluster is trusted with anything.

mod forward;
mod kubectl;

pub(crate) use forward::{Forward, Port};
pub(crate) use kubectl::{Kubectl, KubectlError};

use crate::{
    address::CoordinatorAddress,
    args::{CoordinatorArgs, KubeArgs},
    diagnostic::Failure,
    output::Output,
};

/// Where the Coordinators are, and the way there if there is none without us.
#[derive(Debug)]
pub(crate) struct Reached {
    /// At least one.
    pub(crate) addresses: Vec<CoordinatorAddress>,
    /// Ends when dropped.
    _forward: Option<Forward>,
}

/// Finds the way to the Coordinators of the command line.
///
/// # Errors
/// When `kubectl` does not forward a port.
pub(crate) async fn reach(args: &CoordinatorArgs, output: &Output) -> Result<Reached, Failure> {
    through(&args.coordinator, &args.kube, output).await
}

/// As [`reach`], for commands with other options beside.
///
/// # Errors
/// When `kubectl` does not forward a port.
pub(crate) async fn through(
    addresses: &[CoordinatorAddress],
    kube: &KubeArgs,
    output: &Output,
) -> Result<Reached, Failure> {
    let Some(namespace) = kube.namespace() else {
        return Ok(Reached {
            addresses: addresses.to_vec(),
            _forward: None,
        });
    };
    let spinner = output.spinner("forwarding a port with kubectl");
    let kubectl = Kubectl::new(kube.kube_context.clone());
    let forward = Forward::start(&kubectl, namespace, &[Port::any(Port::USER_API)]).await?;
    drop(spinner);
    Ok(Reached {
        addresses: forward.addresses().to_vec(),
        _forward: Some(forward),
    })
}
