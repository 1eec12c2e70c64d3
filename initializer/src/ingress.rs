//! The default deny: made when the guest boots, taken away here only in pods that have no service mesh.

use contrast_firewall::{Firewall, FirewallError};
use contrast_telemetry::exposure::PUBLIC;

/// Keeps out what is new in this network namespace. May be repeated.
///
/// # Errors
/// When no back end can make the rules.
pub fn deny_ingress() -> Result<(), FirewallError> {
    let firewall = Firewall::probe()?;
    firewall.deny()?;
    tracing::info!(exposure = PUBLIC, "new connections from outside are denied");
    Ok(())
}

/// Lets in what is new. A failure is logged only: the pod has its certificate, and what was denied stays denied.
///
/// A guest without the default deny is nothing to complain about, but whether it is there can be seen only by who may change it.
pub(crate) fn open_ingress() {
    match Firewall::probe().and_then(|firewall| firewall.open()) {
        Ok(()) => {
            tracing::info!(
                exposure = PUBLIC,
                "the pod has no service mesh; new connections from outside are let in"
            )
        }
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "the pod has no service mesh, and the default deny of the guest cannot be looked for or taken away; if there is one, nothing reaches the pod"
        ),
    }
}
