//! Redirection of a pod's traffic to Envoy, and the default deny that stands before it.
//!
//! Two independent sets of rules judge every packet from outside, and it needs the consent of both:
//!
//! - The **default deny** ([`Firewall::deny`], [`Firewall::open`]) lets nothing new in: no TCP connection, no datagram, no echo request, on
//!   IPv4 and IPv6. Answers to what the pod itself began, neighbour discovery and the loopback interface stay.
//! - The **redirection** ([`Firewall::apply`]) gives every incoming TCP packet to a socket of Envoy (TPROXY: addresses stay as they
//!   are), except for the ports that [`Ingress`] names. A packet for which Envoy has no socket is dropped, so nothing reaches the
//!   application while Envoy is not there. Outgoing connections that a [`Capture`] names are redirected to Envoy.
//!
//! Connection tracking alone never opens the way: the first packet of a TCP connection is always judged as new, even if its ports are those
//! of an earlier connection that is still remembered, and packets of incoming connections need a socket of Envoy all their life.
//!
//! With nftables the two are the tables `inet contrast_deny` and `inet contrast_mesh`, each replaced in one atomic transaction. With iptables
//! they are chains named `CONTRAST_…`, replaced in one transaction per table, the dropping one first. Tables and chains of others
//! are untouched. Rules belong to the network namespace: they stay when the process that made them ends.
//!
//! [`Firewall::probe`] finds out what works by trying. Every program runs with a deadline, and every failure leaves the traffic
//! denied.
//!
//! Systems other than Linux have the numbers only, and what a redirection is.

#[cfg(target_os = "linux")]
mod backend;
#[cfg(target_os = "linux")]
mod firewall;
#[cfg(target_os = "linux")]
mod iptables;
#[cfg(target_os = "linux")]
mod nftables;
mod redirection;
#[cfg(target_os = "linux")]
mod routes;
#[cfg(target_os = "linux")]
mod tool;

#[cfg(target_os = "linux")]
pub use backend::Backend;
#[cfg(target_os = "linux")]
pub use firewall::{Firewall, FirewallError, Present, Tried, has_ipv6, present};
pub use redirection::{
    APPLICATION_V4, APPLICATION_V6, Capture, EGRESS_FIRST_PORT, EGRESS_MARK, ENVOY_UID,
    INGRESS_MTLS_PORT, INGRESS_TLS_PORT, Ingress, ROUTE_TABLE, RULE_PREFERENCE, Redirection,
    TPROXY_MARK,
};
#[cfg(target_os = "linux")]
pub use tool::ToolError;
