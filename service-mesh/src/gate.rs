//! When the kernel lets connections in.

use contrast_firewall::{Firewall, FirewallError, Redirection};
use contrast_telemetry::exposure::PUBLIC;

use crate::model::Mesh;

/// The rules of transparent mode. In explicit mode there are none, and every step does nothing.
///
/// What is new stays out from [`Gate::close`] to [`Gate::open`]; nobody has to be alive for that.
#[derive(Debug)]
pub(crate) struct Gate(Option<Rules>);

#[derive(Debug)]
struct Rules {
    firewall: Firewall,
    redirection: Redirection,
}

impl Gate {
    /// Keeps out what is new, before anything else is done, and finds out whether the kernel can redirect what `mesh` needs.
    ///
    /// # Errors
    /// When rules cannot be made. What the guest denied stays denied.
    pub(crate) fn close(mesh: &Mesh) -> Result<Self, FirewallError> {
        let Some(redirection) = mesh.redirection() else {
            return Ok(Self(None));
        };
        let firewall = Firewall::probe()?;
        firewall.deny()?;
        let backend = firewall.redirector(&redirection)?;
        tracing::info!(%backend, ipv6 = redirection.ipv6, exposure = PUBLIC, "new connections are denied until Envoy is ready");
        Ok(Self(Some(Rules {
            firewall,
            redirection,
        })))
    }

    /// Leads connections to Envoy, in place of what an earlier run left. They are still denied.
    ///
    /// # Errors
    /// When rules or routes cannot be made.
    pub(crate) fn redirect(&self) -> Result<(), FirewallError> {
        let Some(rules) = &self.0 else { return Ok(()) };
        let backend = rules.firewall.apply(&rules.redirection)?;
        tracing::info!(%backend, exposure = PUBLIC, "connections are redirected to Envoy");
        Ok(())
    }

    /// Lets in what the redirection lets in.
    ///
    /// # Errors
    /// When the default deny cannot be taken away.
    pub(crate) fn open(&self) -> Result<(), FirewallError> {
        match &self.0 {
            Some(rules) => rules.firewall.open(),
            None => Ok(()),
        }
    }

    /// Keeps out what is new again; open connections stay.
    pub(crate) fn close_again(&self) {
        let Some(rules) = &self.0 else { return };
        // The redirection itself lets nothing in when Envoy is gone; this is for ports that pass it by.
        if let Err(error) = rules.firewall.deny() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot deny new connections; ports that are open without TLS stay open"
            );
        }
    }

    /// Whether Envoy runs as a user of its own, which the rules know.
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }
}
