//! Envoy's user and capabilities.
//!
//! The sidecar is root, because it changes the rules of the kernel. Envoy talks to the network, so it is not: it gets a user of its own, and of root's
//! capabilities only those that it cannot do without.

use std::{io, os::unix::fs::chown, path::Path, thread};

use contrast_firewall::ENVOY_UID;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities, capabilities_secure_bits,
    configure_capability_in_ambient_set, set_capabilities, set_capabilities_secure_bits,
};

/// Sockets with addresses of clients (`IP_TRANSPARENT`) and marks (`SO_MARK`); ports below 1024 for egress listeners.
const KEPT: [CapabilitySet; 2] = [CapabilitySet::NET_ADMIN, CapabilitySet::NET_BIND_SERVICE];

/// Runs `spawn` where a child that becomes another user keeps [`KEPT`], and only that, when it executes its program.
///
/// Capabilities belong to threads, so this one has its own and ends with it.
///
/// # Errors
/// When the sidecar lacks the capabilities itself, or the thread cannot be made.
pub(crate) fn with_kept_capabilities<T: Send>(
    spawn: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let run = move || {
            keep()?;
            spawn()
        };
        let thread = thread::Builder::new().spawn_scoped(scope, run)?;
        thread
            .join()
            .map_err(|_| io::Error::other("the thread that starts Envoy ended abnormally"))?
    })
}

fn keep() -> io::Result<()> {
    let kept = KEPT
        .into_iter()
        .fold(CapabilitySet::empty(), |all, one| all | one);
    let now = capabilities(None)?;
    if !now.permitted.contains(kept) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "expected the capabilities NET_ADMIN and NET_BIND_SERVICE; add them to the container's securityContext",
        ));
    }
    // Else the change of the user would take all capabilities away, also those that are kept on purpose.
    let bits = capabilities_secure_bits()? | CapabilitiesSecureBits::NO_SETUID_FIXUP;
    set_capabilities_secure_bits(bits)?;
    set_capabilities(
        None,
        CapabilitySets {
            inheritable: now.inheritable | kept,
            ..now
        },
    )?;
    for capability in KEPT {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Gives a file or directory to Envoy's user.
///
/// # Errors
/// When the system refuses.
pub(crate) fn give_to_envoy(path: &Path) -> io::Result<()> {
    chown(path, Some(ENVOY_UID), Some(ENVOY_UID))
}
