use std::{
    fmt,
    net::{Ipv6Addr, TcpListener},
};

use crate::{backend::Backend, redirection::Redirection, routes, tool::ToolError};

/// Rules cannot be made or changed. Whatever was denied before stays denied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirewallError {
    /// No back end works.
    #[error(
        "expected nftables or iptables to make packet filter rules with, and none works; install nftables, and give the process \
         CAP_NET_ADMIN. Tried: {0}"
    )]
    NoBackend(Tried),
    /// Packets can be filtered, but not redirected.
    #[error(
        "expected a kernel that can redirect connections (TPROXY, NAT and connection tracking), and no back end can; use a guest kernel \
         with nft_tproxy or xt_TPROXY, or ingress mode `explicit`. Incoming traffic stays denied. Tried: {0}"
    )]
    NoRedirection(Tried),
    /// A change was refused.
    #[error("cannot {what} with {backend}")]
    Change {
        /// What was to be done.
        what: &'static str,
        /// With which back end.
        backend: Backend,
        /// Why not.
        #[source]
        source: ToolError,
    },
    /// The application's answers cannot be routed to Envoy.
    #[error("cannot route the application's answers to Envoy (iproute2)")]
    Routes(#[source] ToolError),
}

/// What each back end answered.
#[derive(Debug)]
pub struct Tried(pub Vec<(Backend, ToolError)>);

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (backend, error)) in self.0.iter().enumerate() {
            let separator = if position > 0 { "; " } else { "" };
            write!(f, "{separator}{backend}: {error}")?;
        }
        Ok(())
    }
}

/// Which rules of ours are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// The default deny: nothing new comes in.
    pub denied: bool,
    /// The redirection to Envoy.
    pub redirected: bool,
}

/// Looks which rules are there and changes nothing.
///
/// # Errors
/// When no back end says, or none has rules of ours and one keeps its own from this process; with what each said.
pub fn present() -> Result<Present, Tried> {
    let mut found = None;
    let mut tried: Vec<(Backend, ToolError)> = Vec::new();
    for backend in Backend::ALL {
        let look = || Ok((backend.is_denied()?, backend.is_redirected()?));
        match look() {
            Ok((denied, redirected)) => {
                let before = found.unwrap_or(Present {
                    denied: false,
                    redirected: false,
                });
                found = Some(Present {
                    denied: before.denied || denied,
                    redirected: before.redirected || redirected,
                });
            }
            Err(error) => tried.push((backend, error)),
        }
    }
    let found = found.filter(|found| {
        let any = found.denied || found.redirected;
        any || !tried.iter().any(|(_, error)| error.is_not_permitted())
    });
    found.ok_or(Tried(tried))
}

/// The rules of this process's network namespace. Its calls run programs and block for some milliseconds.
#[derive(Debug, Clone)]
pub struct Firewall {
    /// Back ends, the preferred first: one that can deny, and those that may have been used before; never empty.
    backends: Vec<Backend>,
}

impl Firewall {
    /// Finds a back end that works, by making and removing rules that affect nothing.
    ///
    /// # Errors
    /// When none works.
    pub fn probe() -> Result<Self, FirewallError> {
        Self::probe_among(&Backend::ALL)
    }

    /// As [`Firewall::probe`], but tries only `candidates`, the preferred first.
    ///
    /// # Errors
    /// When none works.
    pub fn probe_among(candidates: &[Backend]) -> Result<Self, FirewallError> {
        let mut tried = Vec::new();
        let mut candidates = candidates.iter().copied();
        for backend in candidates.by_ref() {
            match backend.probe_deny() {
                Ok(()) => {
                    let others = candidates.filter(|other| other.answers());
                    let backends = [backend].into_iter().chain(others).collect();
                    return Ok(Self { backends });
                }
                Err(error) => tried.push((backend, error)),
            }
        }
        Err(FirewallError::NoBackend(Tried(tried)))
    }

    /// Lets nothing new in. May be repeated.
    ///
    /// # Errors
    /// When no back end takes the rules.
    pub fn deny(&self) -> Result<(), FirewallError> {
        let mut tried = Vec::new();
        for backend in &self.backends {
            match backend.deny() {
                Ok(()) => return Ok(()),
                Err(error) => tried.push((*backend, error)),
            }
        }
        Err(FirewallError::NoBackend(Tried(tried)))
    }

    /// Takes the default deny away, with whichever back end it was made. It need not be there.
    ///
    /// # Errors
    /// When it cannot be taken away.
    pub fn open(&self) -> Result<(), FirewallError> {
        self.each("take the default deny away", Backend::open)
    }

    /// Whether the default deny is there.
    ///
    /// # Errors
    /// When a back end does not say.
    pub fn is_denied(&self) -> Result<bool, FirewallError> {
        let mut denied = false;
        self.each("look for the default deny", |backend| {
            denied |= backend.is_denied()?;
            Ok(())
        })?;
        Ok(denied)
    }

    /// The back end that can redirect, by trying without effect.
    ///
    /// # Errors
    /// When none can.
    pub fn redirector(&self, redirection: &Redirection) -> Result<Backend, FirewallError> {
        let mut tried = Vec::new();
        for backend in &self.backends {
            match backend.probe_mesh(redirection) {
                Ok(()) => return Ok(*backend),
                Err(error) => tried.push((*backend, error)),
            }
        }
        Err(FirewallError::NoRedirection(Tried(tried)))
    }

    /// Makes the redirection, in place of an earlier one. May be repeated. Returns the back end that did it.
    ///
    /// # Errors
    /// When no back end can, or the routes cannot be made.
    pub fn apply(&self, redirection: &Redirection) -> Result<Backend, FirewallError> {
        let redirector = self.redirector(redirection)?;
        routes::apply(redirection.ipv6, has_ipv6()).map_err(FirewallError::Routes)?;
        let change = |what, backend| {
            move |source| FirewallError::Change {
                what,
                backend,
                source,
            }
        };
        redirector
            .apply(redirection)
            .map_err(change("redirect traffic", redirector))?;
        // An earlier run may have found another back end to work.
        for backend in self.backends.iter().filter(|other| **other != redirector) {
            backend
                .remove()
                .map_err(change("remove an earlier redirection", *backend))?;
        }
        Ok(redirector)
    }

    /// Removes the redirection. It need not be there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<(), FirewallError> {
        self.each("remove the redirection", Backend::remove)?;
        routes::remove(has_ipv6()).map_err(FirewallError::Routes)
    }

    fn each(
        &self,
        what: &'static str,
        mut change: impl FnMut(Backend) -> Result<(), ToolError>,
    ) -> Result<(), FirewallError> {
        for backend in &self.backends {
            change(*backend).map_err(|source| FirewallError::Change {
                what,
                backend: *backend,
                source,
            })?;
        }
        Ok(())
    }
}

impl Backend {
    /// The redirection, its routes included, as text for a person.
    pub fn text(self, redirection: &Redirection) -> String {
        routes::print(redirection.ipv6) + &self.print(redirection)
    }

    /// The default deny as text for a person.
    pub fn deny_text(self) -> String {
        self.print_deny()
    }
}

/// Whether this network namespace has IPv6: whether ::1 can be bound.
pub fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}
