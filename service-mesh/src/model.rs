//! What the sidecar shall do, checked as a whole: the only input of everything that produces configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use contrast_firewall::{
    APPLICATION_V4, Capture, EGRESS_FIRST_PORT, INGRESS_MTLS_PORT, INGRESS_TLS_PORT, Redirection,
};

pub use crate::contradiction::{Contradiction, ModelError};
use crate::{
    annotation::{Egress, EgressEntry, Ingress, IngressService, Listen, Name, Protocol, Remote},
    peer::{Peer, WorkloadPattern},
};

/// Ports for transparent egress: [`EGRESS_FIRST_PORT`] and the following.
const TRANSPARENT_MAX: u16 = 1000;

/// The mesh as one workload sees it. Its listeners do not overlap and do not lead back into themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    mode: Mode,
    ingress: Vec<IngressPort>,
    /// Whether TCP ports that no entry names are served, with a client certificate.
    serves_other_ports: bool,
    udp: BTreeSet<u16>,
    /// Whether anything comes in at all.
    is_server: bool,
    egress: Vec<EgressRoute>,
    admin: Option<SocketAddr>,
    metrics: Option<u16>,
    dns_resolver: Option<SocketAddr>,
    connection_log: bool,
}

/// How connections reach Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Envoy listens on the pod's address; the application on the same ports of a loopback address.
    Explicit {
        /// The pod's address; there is one when there is an ingress port.
        pod: Option<IpAddr>,
        /// The application's address.
        application: IpAddr,
    },
    /// Rules of the kernel give Envoy every connection.
    Transparent {
        /// Whether Envoy listens on IPv6 too.
        ipv6: bool,
    },
}

/// A TCP port on which Envoy serves for the application, or lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressPort {
    /// Name of the entry.
    pub name: Name,
    /// The port, of Envoy and of the application.
    pub port: u16,
    /// What a client must do.
    pub protection: Protection,
    /// What is spoken inside TLS.
    pub protocol: Protocol,
    /// The application listens on the pod's own address only.
    pub pod_address: bool,
}

/// What a client of an ingress port must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// Speak TLS 1.3 and present a certificate of the mesh CA.
    MutualTls {
        /// Workloads that may connect; empty: all.
        allow: Vec<WorkloadPattern>,
    },
    /// Speak TLS 1.3; a certificate that is presented must be of the mesh CA.
    Tls,
    /// Nothing: bytes pass as they are.
    Plain,
}

/// A remote that the application reaches through Envoy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRoute {
    /// Name of the entry.
    pub name: Name,
    /// Where Envoy listens for the application; never empty.
    pub listens: Vec<SocketAddr>,
    /// Connections that the kernel leads there.
    pub capture: Option<Capture>,
    /// Where Envoy connects to, with mutual TLS 1.3.
    pub remote: Remote,
    /// Who must answer.
    pub peer: Peer,
    /// What is spoken inside TLS.
    pub protocol: Protocol,
}

/// What the sidecar is told by its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// How connections reach Envoy.
    pub mode: Mode,
    /// Namespace of the pod, for workloads that are named without one.
    pub namespace: Option<String>,
    /// TCP ports that the application declares; only the explicit mode needs them.
    pub ports: Vec<u16>,
    /// Envoy's admin interface; none unless asked for.
    pub admin: Option<SocketAddr>,
    /// Port of the sidecar's metrics, without TLS; none unless asked for.
    pub metrics: Option<u16>,
    /// DNS server for egress names, instead of those in `/etc/resolv.conf`.
    pub dns_resolver: Option<SocketAddr>,
    /// Whether Envoy writes a line for each connection.
    pub connection_log: bool,
}

impl Mesh {
    /// The mesh that the annotations ask for.
    ///
    /// An ingress port that an entry names is served as the entry says: with TLS (`false`) the client certificate is optional, unless
    /// the entry says who is allowed; without TLS (`true`) bytes pass through. Other ports demand a client certificate: in transparent mode
    /// all of them, in explicit mode those that the application declares.
    ///
    /// # Errors
    /// All contradictions between the entries and the surroundings.
    pub fn new(
        ingress: &Ingress,
        egress: &Egress,
        surroundings: &Surroundings,
    ) -> Result<Self, ModelError> {
        let mut contradictions = Vec::new();
        let own = surroundings.namespace.as_deref();
        let mut mesh = Self {
            mode: surroundings.mode,
            ingress: Vec::new(),
            serves_other_ports: matches!(surroundings.mode, Mode::Transparent { .. }),
            udp: BTreeSet::new(),
            is_server: true,
            egress: Vec::new(),
            admin: surroundings.admin,
            metrics: surroundings.metrics,
            dns_resolver: surroundings.dns_resolver,
            connection_log: surroundings.connection_log,
        };
        match ingress {
            Ingress::Disabled => {
                mesh.is_server = false;
                mesh.serves_other_ports = false;
            }
            Ingress::Ports(entries) => {
                for entry in entries {
                    mesh.add_ingress(
                        &entry.name,
                        entry.port,
                        &entry.service,
                        own,
                        &mut contradictions,
                    );
                }
                mesh.add_declared(&surroundings.ports);
            }
        }
        for entry in &egress.0 {
            mesh.add_egress(entry, own, &mut contradictions);
        }
        mesh.check(&mut contradictions);
        match contradictions.is_empty() {
            true => Ok(mesh),
            false => Err(ModelError { contradictions }),
        }
    }

    fn add_ingress(
        &mut self,
        name: &Name,
        port: u16,
        service: &IngressService,
        own: Option<&str>,
        contradictions: &mut Vec<Contradiction>,
    ) {
        let IngressService::Tcp {
            tls,
            allow,
            protocol,
            pod_address,
        } = service
        else {
            // In explicit mode nothing holds UDP back.
            self.udp.insert(port);
            return;
        };
        let protection = match (tls, allow.as_slice()) {
            (false, _) => Protection::Plain,
            (true, []) => Protection::Tls,
            (true, allow) => {
                let resolve = |workload| WorkloadPattern::resolve(workload, own);
                match allow.iter().map(resolve).collect() {
                    Ok(allow) => Protection::MutualTls { allow },
                    Err(unknown) => {
                        contradictions.push(unknown.into());
                        return;
                    }
                }
            }
        };
        self.ingress.push(IngressPort {
            name: name.clone(),
            port,
            protection,
            protocol: *protocol,
            pod_address: *pod_address,
        });
    }

    /// Declared ports that no entry names, in explicit mode; in transparent mode they are among the other ones.
    fn add_declared(&mut self, ports: &[u16]) {
        if let Mode::Transparent { .. } = self.mode {
            return;
        }
        // A port may be declared more than once, by several containers or for several protocols.
        let ports: BTreeSet<u16> = ports.iter().copied().collect();
        for port in ports {
            if self.ingress.iter().all(|entry| entry.port != port) {
                self.ingress.push(IngressPort {
                    name: Name::of_port(port),
                    port,
                    protection: Protection::MutualTls { allow: vec![] },
                    protocol: Protocol::Tcp,
                    pod_address: false,
                });
            }
        }
    }

    fn add_egress(
        &mut self,
        entry: &EgressEntry,
        own: Option<&str>,
        contradictions: &mut Vec<Contradiction>,
    ) {
        let peer = match Peer::of(&entry.identity, &entry.remote.host, own) {
            Ok(peer) => peer,
            Err(unknown) => return contradictions.push(unknown.into()),
        };
        let (listens, capture) = match (entry.listen, self.mode) {
            (Listen::Address(address), _) => (vec![address], None),
            (Listen::Transparent, Mode::Explicit { .. }) => {
                return contradictions.push(Contradiction::NeedsRedirection {
                    entry: format!("egress {}", entry.name),
                    instead: "give the entry a loopback address, like 127.137.0.1:8081",
                });
            }
            (Listen::Transparent, Mode::Transparent { ipv6 }) => {
                let before = self.captures().count();
                // The number of entries is checked for all of them together.
                let offset = u16::try_from(before)
                    .unwrap_or(TRANSPARENT_MAX)
                    .min(TRANSPARENT_MAX);
                let listener = EGRESS_FIRST_PORT + offset;
                let capture = Capture {
                    port: entry.remote.port,
                    listener,
                };
                (on_loopback(listener, ipv6), Some(capture))
            }
        };
        self.egress.push(EgressRoute {
            name: entry.name.clone(),
            listens,
            capture,
            remote: entry.remote.clone(),
            peer,
            protocol: entry.protocol,
        });
    }

    fn captures(&self) -> impl Iterator<Item = Capture> {
        self.egress.iter().filter_map(|route| route.capture)
    }

    /// How connections reach Envoy.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// TCP ports that are served as their entries say.
    pub fn ingress(&self) -> &[IngressPort] {
        &self.ingress
    }

    /// Whether Envoy serves TCP ports that [`ingress`](Self::ingress) does not name, with a client certificate.
    pub fn serves_other_ports(&self) -> bool {
        self.serves_other_ports
    }

    /// Remotes that the application reaches through Envoy.
    pub fn egress(&self) -> &[EgressRoute] {
        &self.egress
    }

    /// Address of the admin interface when one was asked for.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Port of the sidecar's metrics when they were asked for.
    pub fn metrics(&self) -> Option<u16> {
        self.metrics
    }

    /// DNS server for egress names when one was given.
    pub fn dns_resolver(&self) -> Option<SocketAddr> {
        self.dns_resolver
    }

    /// Whether Envoy writes a line for each connection.
    pub fn connection_log(&self) -> bool {
        self.connection_log
    }

    /// Rules that the kernel needs; none in explicit mode.
    pub fn redirection(&self) -> Option<Redirection> {
        let Mode::Transparent { ipv6 } = self.mode else {
            return None;
        };
        let with = |wanted: fn(&Protection) -> bool| {
            let ports = self.ingress.iter();
            ports
                .filter(move |port| wanted(&port.protection))
                .map(|port| port.port)
        };
        let ingress = contrast_firewall::Ingress {
            tls: with(|protection| *protection == Protection::Tls).collect(),
            plain: with(|protection| *protection == Protection::Plain)
                .chain(self.metrics)
                .collect(),
            udp: self.udp.clone(),
        };
        let opens_metrics = self.metrics.is_some();
        Some(Redirection {
            // Metrics are asked for from outside, also when the application serves nobody.
            ingress: (self.is_server || opens_metrics).then_some(ingress),
            egress: self.captures().collect(),
            ipv6,
        })
    }

    /// Whether any listener or cluster needs the mesh certificate.
    pub fn needs_certificates(&self) -> bool {
        let with_tls = |port: &IngressPort| port.protection != Protection::Plain;
        self.serves_other_ports || !self.egress.is_empty() || self.ingress.iter().any(with_tls)
    }

    /// Ingress entries whose application is Envoy's admin interface: a deliberate but dangerous exposure.
    pub fn exposed_admin(&self) -> impl Iterator<Item = &IngressPort> {
        self.ingress.iter().filter(|port| {
            let application = self.application(port.port);
            self.admin.is_some_and(|admin| overlap(admin, application))
        })
    }

    /// Where the application serves a port in explicit mode. In transparent mode Envoy reaches what listens on all addresses.
    fn application(&self, port: u16) -> SocketAddr {
        match self.mode {
            Mode::Explicit { application, .. } => SocketAddr::new(application, port),
            Mode::Transparent { .. } => (APPLICATION_V4, port).into(),
        }
    }

    fn check(&self, contradictions: &mut Vec<Contradiction>) {
        match self.mode {
            Mode::Explicit { pod, application } => {
                self.check_addresses(pod, application, contradictions);
                let served = pod.map(|pod| self.served_on(pod)).unwrap_or_default();
                self.find_overlaps(served, contradictions);
                self.find_loops(application, contradictions);
            }
            Mode::Transparent { .. } => {
                self.check_reserved_ports(contradictions);
                self.find_opened_ports(contradictions);
                // The kernel leads connections to ingress ports elsewhere, so Envoy does not listen on them.
                self.find_overlaps(Vec::new(), contradictions);
                self.find_application_aliases(contradictions);
            }
        }
    }

    fn check_addresses(
        &self,
        pod: Option<IpAddr>,
        application: IpAddr,
        contradictions: &mut Vec<Contradiction>,
    ) {
        if !application.is_loopback() {
            contradictions.push(Contradiction::ApplicationAddress(application));
        }
        match pod {
            _ if self.ingress.is_empty() => {}
            None => contradictions.push(Contradiction::NoPodAddress),
            Some(pod) if pod.is_unspecified() || pod.is_multicast() || pod == application => {
                contradictions.push(Contradiction::PodAddress(pod));
            }
            Some(_) => {}
        }
        for port in self.ingress.iter().filter(|port| port.pod_address) {
            contradictions.push(Contradiction::NeedsRedirection {
                entry: format!("the option `pod-address` of ingress {}", port.name),
                instead: "remove the option and let the application listen on loopback",
            });
        }
    }

    fn check_reserved_ports(&self, contradictions: &mut Vec<Contradiction>) {
        let count = self.captures().count();
        if count > TRANSPARENT_MAX.into() {
            contradictions.push(Contradiction::TransparentEntries {
                found: count,
                max: TRANSPARENT_MAX.into(),
            });
        }
        let listeners: BTreeSet<u16> = self.captures().map(|capture| capture.listener).collect();
        let mut taken: Vec<(String, u16)> = Vec::new();
        let named = |port: &IngressPort| (format!("ingress {}", port.name), port.port);
        taken.extend(self.ingress.iter().map(named));
        taken.extend(self.metrics.map(|port| ("the metrics".to_owned(), port)));
        let admin = self.admin.map(|admin| admin.port());
        taken.extend(admin.map(|port| ("the admin interface".to_owned(), port)));
        let own = self.egress.iter().filter(|route| route.capture.is_none());
        taken.extend(own.flat_map(|route| {
            let name = format!("egress {}", route.name);
            route
                .listens
                .iter()
                .map(move |listen| (name.clone(), listen.port()))
        }));
        for (what, port) in taken {
            if [INGRESS_MTLS_PORT, INGRESS_TLS_PORT].contains(&port) || listeners.contains(&port) {
                let last = listeners
                    .last()
                    .map(|last| format!(", {EGRESS_FIRST_PORT} to {last}"));
                contradictions.push(Contradiction::ReservedPort {
                    what,
                    port,
                    reserved: format!(
                        "{INGRESS_MTLS_PORT}, {INGRESS_TLS_PORT}{}",
                        last.unwrap_or_default()
                    ),
                });
            }
        }
    }

    /// Where Envoy listens for ingress ports, on the pod's address.
    fn served_on(&self, pod: IpAddr) -> Vec<(String, SocketAddr)> {
        let named = |port: &IngressPort| {
            let address = SocketAddr::new(pod, port.port);
            (format!("ingress {}", port.name), address)
        };
        self.ingress.iter().map(named).collect()
    }

    /// Two listeners on one place: among `served` ones and those that both modes have.
    fn find_overlaps(
        &self,
        served: Vec<(String, SocketAddr)>,
        contradictions: &mut Vec<Contradiction>,
    ) {
        let mut listeners = served;
        for route in self.egress.iter().filter(|route| route.capture.is_none()) {
            let name = format!("egress {}", route.name);
            listeners.extend(route.listens.iter().map(|listen| (name.clone(), *listen)));
        }
        listeners.extend(
            self.admin
                .iter()
                .map(|&admin| ("the admin interface".to_owned(), admin)),
        );
        listeners.extend(self.metrics.map(|port| {
            let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
            ("the metrics".to_owned(), everywhere)
        }));
        let mut by_port: BTreeMap<u16, Vec<(String, SocketAddr)>> = BTreeMap::new();
        for (name, address) in listeners {
            let earlier = by_port.entry(address.port()).or_default();
            for (first, other) in earlier.iter().filter(|(_, other)| overlap(*other, address)) {
                contradictions.push(Contradiction::Overlap {
                    first: first.clone(),
                    address: *other,
                    second: name.clone(),
                    other: address,
                });
            }
            earlier.push((name, address));
        }
    }

    /// The port of the metrics is open without TLS, whatever its ingress entry says.
    fn find_opened_ports(&self, contradictions: &mut Vec<Contradiction>) {
        let Some(metrics) = self.metrics else { return };
        let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), metrics);
        let same = self.ingress.iter().filter(|port| port.port == metrics);
        contradictions.extend(same.map(|port| Contradiction::Overlap {
            first: format!("ingress {}", port.name),
            address: everywhere,
            second: "the metrics".to_owned(),
            other: everywhere,
        }));
    }

    /// Members could use what listens where redirected connections reach the application.
    fn find_application_aliases(&self, contradictions: &mut Vec<Contradiction>) {
        let egress = self.egress_listeners();
        let egress = egress.map(|(address, name)| (format!("egress {name}"), address));
        let admin = self.admin.iter();
        let admin = admin.map(|admin| ("the admin interface".to_owned(), *admin));
        let found = egress
            .chain(admin)
            .filter(|(_, address)| address.ip() == IpAddr::V4(APPLICATION_V4));
        contradictions
            .extend(found.map(|(what, address)| Contradiction::ApplicationAlias { what, address }));
    }

    /// An egress listener in the application's place would send whoever reaches the ingress port on to the remote, with
    /// this workload's certificate.
    fn find_loops(&self, application: IpAddr, contradictions: &mut Vec<Contradiction>) {
        let taken: BTreeMap<SocketAddr, &Name> = self.egress_listeners().collect();
        for port in &self.ingress {
            let address = SocketAddr::new(application, port.port);
            contradictions.extend(taken.get(&address).map(|egress| Contradiction::Loop {
                ingress: port.name.clone(),
                egress: (*egress).clone(),
                address,
            }));
        }
    }

    fn egress_listeners(&self) -> impl Iterator<Item = (SocketAddr, &Name)> {
        self.egress
            .iter()
            .flat_map(|route| route.listens.iter().map(|listen| (*listen, &route.name)))
    }
}

/// `port` on loopback, of both families where there are two.
pub(crate) fn on_loopback(port: u16, ipv6: bool) -> Vec<SocketAddr> {
    let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let v6 = ipv6.then_some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let addresses = [Some(v4), v6].into_iter().flatten();
    addresses.map(|ip| SocketAddr::new(ip, port)).collect()
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let meets = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && meets
}

#[cfg(test)]
mod tests;
