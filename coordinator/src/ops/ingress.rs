use contrast_firewall::Firewall;
use contrast_telemetry::exposure::PUBLIC;

/// Takes the guest's default deny away. A failure is logged only: what was denied stays denied, and the probes fail.
pub fn open_ingress() {
    match Firewall::probe().and_then(|firewall| firewall.open()) {
        Ok(()) => tracing::info!(exposure = PUBLIC, "new connections from outside are let in"),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            "the default deny of the guest cannot be taken away; if there is one, nothing reaches this Coordinator"
        ),
    }
}
