//! Grammar of the annotations `servicemesh-ingress` and `servicemesh-egress`.
//!
//! ```text
//! ingress  = "" | "DISABLED" | entry *( "##" entry )
//! entry    = name "#" port "#" disable-tls *( "#" option )
//! option   = "allow=" workload *( "," workload ) | "protocol=" protocol | "pod-address" | "udp"
//!
//! egress   = "" | entry *( "##" entry )
//! entry    = name "#" listen "#" host ":" port *( "#" option )
//! listen   = ip ":" port | "transparent"
//! option   = "identity=" ( "any" | workload *( "," workload ) ) | "protocol=" protocol
//!
//! workload = [ namespace "/" [ kind "/" ] ] name
//! protocol = "tcp" | "http1" | "http2" | "grpc"
//! ```
//!
//! A value has at most 131000 bytes. Empty entries are skipped and white space around an entry is ignored. `name` is 1 to 63 of `A-Z a-z 0-9 . _ -`;
//! `port` is 1 to 65535 in decimal digits; `disable-tls` is one of `1 t T TRUE true True` or `0 f F FALSE false False`;
//! `ip` lies in 127.0.0.0/8 or is `[::1]`; `host` is a DNS name, an IPv4 address or an IPv6 address in brackets. `transparent` goes with
//! every `port` but that of the Coordinator's mesh API.
//!
//! Every problem of a value is reported, not only the first, each with the character at which it is. `contrast generate` and the service
//! mesh read the values alike, because both do it with this crate; it uses the standard library alone.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

mod parse;
mod parts;
mod problem;

pub use problem::{AnnotationError, Problem, Reason};

/// Names of Envoy objects that the service mesh makes itself; no entry may take one.
pub const RESERVED_NAMES: [&str; 6] = [
    "ingress",
    "ingressWithoutClientAuth",
    "IngressCluster",
    "BlackHoleCluster",
    "BlackHoleFilter",
    "other",
];

/// Port of the Coordinator's mesh API. The Initializer reaches it from the pod, so no entry may capture it.
pub const MESH_API_PORT: u16 = 7777;

/// Longest value in bytes. The sidecar gets it as a variable of its environment, and Linux starts no program with one of 128 KiB or more,
/// the variable's name included.
pub const MAX_LENGTH: usize = 131_000;

/// Longest entry name in bytes.
pub const MAX_NAME_LENGTH: usize = 63;

const ENTRY_SEPARATOR: &str = "##";
const DISABLED: &str = "DISABLED";
const TRANSPARENT: &str = "transparent";
const ANY: &str = "any";
const ALLOW: &str = "allow";
const IDENTITY: &str = "identity";
const PROTOCOL: &str = "protocol";
const POD_ADDRESS: &str = "pod-address";
const UDP: &str = "udp";

/// Parsed value of `servicemesh-ingress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingress {
    /// `DISABLED`: the workload takes no part in the mesh as a server.
    Disabled,
    /// The named ports in their order; none when the value is empty.
    Ports(Vec<IngressEntry>),
}

/// One port that the workload serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressEntry {
    /// Unique among the ingress entries.
    pub name: Name,
    /// Not 0; unique among the ingress entries of the same transport.
    pub port: u16,
    /// What passes.
    pub service: IngressService,
}

/// What passes to the application on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IngressService {
    /// TCP.
    Tcp {
        /// Whether clients must speak TLS; without it the port is passed through as it is.
        tls: bool,
        /// Workloads that may connect, with a certificate of the mesh; empty: anybody with TLS. Only with TLS.
        allow: Vec<Workload>,
        /// What is spoken inside TLS. Only with TLS.
        protocol: Protocol,
        /// The application listens on the pod's own address only. Only with TLS.
        pod_address: bool,
    },
    /// UDP, as it is.
    Udp,
}

/// Parsed value of `servicemesh-egress`: the declared remotes in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Egress(pub Vec<EgressEntry>);

/// One remote that the workload reaches through the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressEntry {
    /// Unique among the egress entries.
    pub name: Name,
    /// What the workload connects to.
    pub listen: Listen,
    /// The remote that Envoy connects to.
    pub remote: Remote,
    /// Who must answer.
    pub identity: Identity,
    /// What is spoken inside TLS.
    pub protocol: Protocol,
}

/// What a workload connects to in order to reach a remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// An address in 127.0.0.0/8 or `::1`, port not 0; unique among the egress entries.
    Address(SocketAddr),
    /// The remote's port on any address; unique among the transparent entries, because the port is all that tells them apart, and never
    /// [`MESH_API_PORT`].
    Transparent,
}

/// Who must answer on an egress connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A member of the mesh whose certificate carries the host of the remote.
    Target,
    /// Any member of the mesh.
    AnyMember,
    /// One of these workloads; never empty.
    Workloads(Vec<Workload>),
}

/// What is spoken inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Bytes.
    #[default]
    Tcp,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without upgrade.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
}

/// A workload of the manifest, by the end of its SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Its namespace, an RFC 1123 label; `None`: that of the pod with the annotation.
    pub namespace: Option<String>,
    /// Its kind in lower case, for example `deployment`; `None`: any. Only with a namespace.
    pub kind: Option<String>,
    /// Its name, an RFC 1123 subdomain.
    pub name: String,
}

/// Host and port of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its host.
    pub host: Host,
    /// Its TCP port, not 0.
    pub port: u16,
}

/// A DNS name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A DNS name in lower case, at most 253 bytes without a trailing dot; labels as in RFC 1123, `_` allowed.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

/// Name of an entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Name of a port that no entry names: `port/` and the number. No entry can take it, because names have no `/`.
    pub fn of_port(port: u16) -> Self {
        Self(format!("port/{port}"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Protocol {
    const ALL: [Self; 4] = [Self::Tcp, Self::Http1, Self::Http2, Self::Grpc];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.namespace, &self.kind].into_iter().flatten() {
            write!(f, "{part}/")?;
        }
        f.write_str(&self.name)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Transparent => f.write_str(TRANSPARENT),
        }
    }
}

impl fmt::Display for IngressEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}#", self.name, self.port)?;
        match &self.service {
            IngressService::Udp => write!(f, "true#{UDP}"),
            IngressService::Tcp {
                tls,
                allow,
                protocol,
                pod_address,
            } => {
                write!(f, "{}", !tls)?;
                write_workloads(f, ALLOW, allow)?;
                write_protocol(f, *protocol)?;
                match pod_address {
                    true => write!(f, "#{POD_ADDRESS}"),
                    false => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for EgressEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}#{}", self.name, self.listen, self.remote)?;
        match &self.identity {
            Identity::Target => {}
            Identity::AnyMember => write!(f, "#{IDENTITY}={ANY}")?,
            Identity::Workloads(workloads) => write_workloads(f, IDENTITY, workloads)?,
        }
        write_protocol(f, self.protocol)
    }
}

fn write_workloads(
    f: &mut fmt::Formatter<'_>,
    option: &str,
    workloads: &[Workload],
) -> fmt::Result {
    for (position, workload) in workloads.iter().enumerate() {
        match position {
            0 => write!(f, "#{option}={workload}")?,
            _ => write!(f, ",{workload}")?,
        }
    }
    Ok(())
}

fn write_protocol(f: &mut fmt::Formatter<'_>, protocol: Protocol) -> fmt::Result {
    match protocol {
        Protocol::Tcp => Ok(()),
        other => write!(f, "#{PROTOCOL}={other}"),
    }
}

impl fmt::Display for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str(DISABLED),
            Self::Ports(entries) => write_entries(f, entries),
        }
    }
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_entries(f, &self.0)
    }
}

fn write_entries<T: fmt::Display>(f: &mut fmt::Formatter<'_>, entries: &[T]) -> fmt::Result {
    for (position, entry) in entries.iter().enumerate() {
        if position > 0 {
            f.write_str(ENTRY_SEPARATOR)?;
        }
        entry.fmt(f)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
