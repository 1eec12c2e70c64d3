//! A Coordinator in a Kubernetes cluster, reached through `kubectl`.
//!
//! `kubectl` brings what a client of Kubernetes needs: kubeconfig files, contexts, credential plugins, proxies. What goes through its
//! port-forward is attested TLS, so neither it nor the cluster is trusted with anything.

mod forward;
pub(crate) mod kubectl;

pub(crate) use forward::{DEPLOYMENT, Forward, ForwardError, Port};
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
    way: Way,
}

/// Ends when dropped.
#[derive(Debug)]
pub(crate) struct Way(Option<Forward>);

impl Reached {
    /// The addresses and the way there, which must be kept while they are used.
    pub(crate) fn split(self) -> (Vec<CoordinatorAddress>, Way) {
        (self.addresses, self.way)
    }
}

impl Way {
    /// Waits until the addresses lead nowhere any more; for ever, if they are the user's own.
    pub(crate) async fn lost(&mut self) -> ForwardError {
        match &mut self.0 {
            Some(forward) => forward.ended().await,
            None => std::future::pending().await,
        }
    }
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
            way: Way(None),
        });
    };
    let spinner = output.spinner("forwarding a port with kubectl");
    let kubectl = Kubectl::new(kube.kube_context.clone());
    let forward = Forward::start(&kubectl, namespace, &[Port::any(Port::USER_API)]).await?;
    drop(spinner);
    Ok(Reached {
        addresses: forward.addresses().to_vec(),
        way: Way(Some(forward)),
    })
}
