//! Grammar of the annotations `servicemesh-ingress` and `servicemesh-egress`.
//!
//! ```text
//! ingress = "" | "DISABLED" | entry *( "##" entry )      entry = name "#" port "#" disable-tls
//! egress  = "" | entry *( "##" entry )                   entry = name "#" listen-ip ":" port "#" host ":" port
//! ```
//!
//! Empty entries are skipped and white space around an entry is ignored. `name` is 1 to 63 of `A-Z a-z 0-9 . _ -`;
//! `port` is 1 to 65535 in decimal digits; `disable-tls` is one of `1 t T TRUE true True` or `0 f F FALSE false False`;
//! `listen-ip` lies in 127.0.0.0/8; `host` is a DNS name, an IPv4 address or an IPv6 address in brackets.
//!
//! Every problem of a value is reported, not only the first. The sidecar obeys this grammar, and the CLI checks it before a pod
//! is deployed; both use this crate.

use std::{
    collections::BTreeSet,
    error::Error,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4},
    str::FromStr,
};

/// Names of Envoy objects that the service mesh makes itself; no entry may take one.
pub const RESERVED_NAMES: [&str; 5] = [
    "ingress",
    "ingressWithoutClientAuth",
    "IngressCluster",
    "BlackHoleCluster",
    "BlackHoleFilter",
];

/// Longest entry name in bytes.
pub const MAX_NAME_LENGTH: usize = 63;

const ENTRY_SEPARATOR: &str = "##";
const FIELD_SEPARATOR: char = '#';
const DISABLED: &str = "DISABLED";

/// Parsed value of `servicemesh-ingress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingress {
    /// `DISABLED`: the workload takes no part in the mesh as a server.
    Disabled,
    /// The declared ports in their order; none when the value is empty.
    Ports(Vec<IngressEntry>),
}

/// One port that the workload serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressEntry {
    /// Unique among the ingress entries.
    pub name: Name,
    /// TCP port, not 0; unique among the ingress entries.
    pub port: u16,
    /// Whether the port is passed through without TLS.
    pub disable_tls: bool,
}

/// Parsed value of `servicemesh-egress`: the declared remotes in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Egress(pub Vec<EgressEntry>);

/// One remote that the workload reaches through the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressEntry {
    /// Unique among the egress entries.
    pub name: Name,
    /// Where the workload connects to: in 127.0.0.0/8, port not 0; unique among the egress entries.
    pub listen: SocketAddrV4,
    /// The remote that Envoy connects to.
    pub remote: Remote,
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

impl FromStr for Name {
    type Err = Reason;

    fn from_str(text: &str) -> Result<Self, Reason> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > MAX_NAME_LENGTH || !text.bytes().all(allowed) {
            return Err(Reason::Name {
                found: text.to_owned(),
            });
        }
        if RESERVED_NAMES.contains(&text) {
            return Err(Reason::ReservedName {
                found: text.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Ingress {
    type Err = AnnotationError;

    fn from_str(text: &str) -> Result<Self, AnnotationError> {
        if text.trim() == DISABLED {
            return Ok(Self::Disabled);
        }
        let mut unique = Unique::default();
        parse_entries("servicemesh-ingress", text, |fields| {
            let [name, port, disable_tls] = fields;
            let (name, port, disable_tls) = (
                name.parse::<Name>(),
                parse_port(port),
                parse_bool(disable_tls),
            );
            let mut reasons = Vec::new();
            let name = unique.name(keep(name, &mut reasons), &mut reasons);
            let port = unique.listen(keep(port, &mut reasons), &mut reasons);
            let disable_tls = keep(disable_tls, &mut reasons);
            match (name, port, disable_tls) {
                (Some(name), Some(port), Some(disable_tls)) if reasons.is_empty() => {
                    Ok(IngressEntry {
                        name,
                        port,
                        disable_tls,
                    })
                }
                _ => Err(reasons),
            }
        })
        .map(Self::Ports)
    }
}

impl FromStr for Egress {
    type Err = AnnotationError;

    fn from_str(text: &str) -> Result<Self, AnnotationError> {
        let mut unique = Unique::default();
        parse_entries("servicemesh-egress", text, |fields| {
            let [name, listen, remote] = fields;
            let (name, listen, remote) = (
                name.parse::<Name>(),
                parse_listen(listen),
                remote.parse::<Remote>(),
            );
            let mut reasons = Vec::new();
            let name = unique.name(keep(name, &mut reasons), &mut reasons);
            let listen = unique.listen(keep(listen, &mut reasons), &mut reasons);
            let remote = keep(remote, &mut reasons);
            match (name, listen, remote) {
                (Some(name), Some(listen), Some(remote)) if reasons.is_empty() => Ok(EgressEntry {
                    name,
                    listen,
                    remote,
                }),
                _ => Err(reasons),
            }
        })
        .map(Self)
    }
}

/// Splits `text` into entries of three fields and hands each to `parse`; collects entries or problems.
fn parse_entries<T>(
    annotation: &'static str,
    text: &str,
    mut parse: impl FnMut([&str; 3]) -> Result<T, Vec<Reason>>,
) -> Result<Vec<T>, AnnotationError> {
    let mut entries = Vec::new();
    let mut problems = Vec::new();
    for entry in text
        .split(ENTRY_SEPARATOR)
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        let fields: Vec<&str> = entry.split(FIELD_SEPARATOR).collect();
        let parsed = match <[&str; 3]>::try_from(fields) {
            Ok(fields) => parse(fields),
            Err(fields) => Err(vec![Reason::Fields {
                found: fields.len(),
            }]),
        };
        match parsed {
            Ok(parsed) => entries.push(parsed),
            Err(reasons) => problems.extend(reasons.into_iter().map(|reason| Problem {
                entry: entry.to_owned(),
                reason,
            })),
        }
    }
    match problems.is_empty() {
        true => Ok(entries),
        false => Err(AnnotationError {
            annotation,
            problems,
        }),
    }
}

/// Moves an error into `reasons`, so that the other fields of the entry are still looked at.
fn keep<T>(parsed: Result<T, Reason>, reasons: &mut Vec<Reason>) -> Option<T> {
    parsed.map_err(|reason| reasons.push(reason)).ok()
}

/// Names and listening places seen so far in one value.
struct Unique<L> {
    names: BTreeSet<Name>,
    listens: BTreeSet<L>,
}

impl<L> Default for Unique<L> {
    fn default() -> Self {
        Self {
            names: BTreeSet::new(),
            listens: BTreeSet::new(),
        }
    }
}

impl<L: Ord + Copy + fmt::Display> Unique<L> {
    fn name(&mut self, name: Option<Name>, reasons: &mut Vec<Reason>) -> Option<Name> {
        let name = name?;
        if !self.names.insert(name.clone()) {
            reasons.push(Reason::RepeatedName {
                found: name.0.clone(),
            });
        }
        Some(name)
    }

    fn listen(&mut self, listen: Option<L>, reasons: &mut Vec<Reason>) -> Option<L> {
        let listen = listen?;
        if !self.listens.insert(listen) {
            reasons.push(Reason::RepeatedListen {
                found: listen.to_string(),
            });
        }
        Some(listen)
    }
}

/// Digits only, because `u16::from_str` would also take a sign.
fn parse_port(text: &str) -> Result<u16, Reason> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err(Reason::Port {
            found: text.to_owned(),
        }),
    }
}

fn parse_bool(text: &str) -> Result<bool, Reason> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Reason::DisableTls {
            found: text.to_owned(),
        }),
    }
}

fn parse_listen(text: &str) -> Result<SocketAddrV4, Reason> {
    let (ip, port) = text.rsplit_once(':').ok_or_else(|| Reason::ListenAddress {
        found: text.to_owned(),
    })?;
    match ip.parse::<Ipv4Addr>() {
        Ok(ip) if ip.is_loopback() => Ok(SocketAddrV4::new(ip, parse_port(port)?)),
        _ => Err(Reason::ListenAddress {
            found: text.to_owned(),
        }),
    }
}

impl FromStr for Remote {
    type Err = Reason;

    fn from_str(text: &str) -> Result<Self, Reason> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| Reason::Remote {
            found: text.to_owned(),
        })?;
        Ok(Self {
            host: host.parse()?,
            port: parse_port(port)?,
        })
    }
}

impl FromStr for Host {
    type Err = Reason;

    fn from_str(text: &str) -> Result<Self, Reason> {
        let invalid = || Reason::Host {
            found: text.to_owned(),
        };
        if let Some(inner) = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            return inner
                .parse::<Ipv6Addr>()
                .map(|ip| Self::Ip(ip.into()))
                .map_err(|_| invalid());
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A name whose last label is a number is a mistyped address; resolvers disagree on what it means.
        let number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        match name.len() <= 253
            && name.split('.').all(label)
            && !name.rsplit('.').next().is_some_and(number)
        {
            true => Ok(Self::Dns(name.to_ascii_lowercase())),
            false => Err(invalid()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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

impl fmt::Display for IngressEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}#{}", self.name, self.port, self.disable_tls)
    }
}

impl fmt::Display for EgressEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}#{}", self.name, self.listen, self.remote)
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

/// A value does not follow the grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationError {
    /// Annotation key without its prefix: `servicemesh-ingress` or `servicemesh-egress`.
    pub annotation: &'static str,
    /// Everything that is wrong, in the order of the entries; never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The entry as it was written, without surrounding white space.
    pub entry: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with an entry; `found` is the offending part as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "`found` is described on the enum")]
pub enum Reason {
    /// Not three fields.
    Fields { found: usize },
    /// Not a name.
    Name { found: String },
    /// One of [`RESERVED_NAMES`].
    ReservedName { found: String },
    /// An earlier entry has this name.
    RepeatedName { found: String },
    /// An earlier entry listens there.
    RepeatedListen { found: String },
    /// Not a port.
    Port { found: String },
    /// Not a truth value.
    DisableTls { found: String },
    /// Not an address in 127.0.0.0/8 with a port.
    ListenAddress { found: String },
    /// Not host and port.
    Remote { found: String },
    /// Neither a DNS name nor an IP address.
    Host { found: String },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fields { found } => {
                write!(f, "expected three fields separated by `#`, found {found}")
            }
            Self::Name { found } => write!(
                f,
                "expected a name of 1 to {MAX_NAME_LENGTH} of A-Z a-z 0-9 . _ -, found {found:?}"
            ),
            Self::ReservedName { found } => {
                write!(
                    f,
                    "the name {found:?} is used by the service mesh itself; choose another"
                )
            }
            Self::RepeatedName { found } => {
                write!(
                    f,
                    "the name {found:?} is taken by an earlier entry; names must differ"
                )
            }
            Self::RepeatedListen { found } => {
                write!(
                    f,
                    "an earlier entry listens on {found} already; choose another"
                )
            }
            Self::Port { found } => write!(f, "expected a port from 1 to 65535, found {found:?}"),
            Self::DisableTls { found } => {
                write!(
                    f,
                    "expected `true` or `false` for disabling TLS, found {found:?}"
                )
            }
            Self::ListenAddress { found } => {
                write!(
                    f,
                    "expected an address in 127.0.0.0/8 with a port, like 127.137.0.1:8081, found {found:?}"
                )
            }
            Self::Remote { found } => {
                write!(f, "expected a remote as host:port, found {found:?}")
            }
            Self::Host { found } => write!(
                f,
                "expected a DNS name, an IPv4 address or an IPv6 address in brackets, found {found:?}"
            ),
        }
    }
}

impl fmt::Display for AnnotationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not valid:", self.annotation)?;
        for Problem { entry, reason } in &self.problems {
            write!(f, "\n  entry {entry:?}: {reason}")?;
        }
        Ok(())
    }
}

impl Error for AnnotationError {}
impl Error for Reason {}

#[cfg(test)]
mod tests;
