use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Port of Envoy that takes redirected connections and demands a client certificate.
pub const INGRESS_MTLS_PORT: u16 = 15006;
/// Port of Envoy that takes redirected connections of clients that need no certificate.
pub const INGRESS_TLS_PORT: u16 = 15007;
/// First port of Envoy for captured outgoing connections: one per entry, in the order of entries.
pub const EGRESS_FIRST_PORT: u16 = 15100;
/// User and group that Envoy runs as; what they send is never captured.
pub const ENVOY_UID: u32 = 15006;
/// Mark of packets that TPROXY gave to a socket of Envoy; of redirected packets only these reach a socket.
pub const TPROXY_MARK: u32 = 0x1501;
/// Mark of Envoy's connections to remotes, which are not captured again.
pub const EGRESS_MARK: u32 = 0x1503;
/// Routing table that brings the application's answers to clients back to Envoy.
pub const ROUTE_TABLE: u32 = 1502;
/// Preference of the routing rules that lead to [`ROUTE_TABLE`].
pub const RULE_PREFERENCE: u32 = 1502;
/// Where Envoy reaches the application: a loopback address that no client can address, so that Envoy's connections and those of clients,
/// which have the same source address, never share a tuple. An application that binds 127.0.0.1 only is not reached.
pub const APPLICATION_V4: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);
/// As [`APPLICATION_V4`]; added to the loopback interface, because IPv6 has one loopback address only.
pub const APPLICATION_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x15, 0x6, 0, 0, 0, 0, 6);

/// What is redirected to Envoy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirection {
    /// Incoming connections; `None`: nothing new comes in.
    pub ingress: Option<Ingress>,
    /// Outgoing connections to capture.
    pub egress: Vec<Capture>,
    /// Whether Envoy listens on IPv6 too. If not, nothing new comes in over IPv6.
    pub ipv6: bool,
}

/// Ports whose traffic does not go to [`INGRESS_MTLS_PORT`]. TCP to every other port does; UDP to every other port is dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ingress {
    /// TCP ports redirected to [`INGRESS_TLS_PORT`].
    pub tls: BTreeSet<u16>,
    /// TCP ports that the application serves without Envoy.
    pub plain: BTreeSet<u16>,
    /// UDP ports that the application serves.
    pub udp: BTreeSet<u16>,
}

/// Outgoing TCP connections to `port` on any address outside the pod go to `listener` on 127.0.0.1 or ::1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// Port that the application dials.
    pub port: u16,
    /// Envoy's port for it, from [`EGRESS_FIRST_PORT`] on.
    pub listener: u16,
}

#[cfg(target_os = "linux")]
impl Redirection {
    /// Envoy's own ports, which nobody outside the pod may address.
    pub(crate) fn reserved_ports(&self) -> BTreeSet<u16> {
        let listeners = self.egress.iter().map(|capture| capture.listener);
        [INGRESS_MTLS_PORT, INGRESS_TLS_PORT]
            .into_iter()
            .chain(listeners)
            .collect()
    }

    /// A redirection with every kind of rule, to ask the kernel whether it knows them all.
    pub(crate) fn everything(ipv6: bool) -> Self {
        let port = || BTreeSet::from([1]);
        Self {
            ingress: Some(Ingress {
                tls: port(),
                plain: port(),
                udp: port(),
            }),
            egress: vec![Capture {
                port: 1,
                listener: EGRESS_FIRST_PORT,
            }],
            ipv6,
        }
    }
}
