//! What the sidecar shall do, checked as a whole: the only input of everything that produces configuration.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::annotation::{Egress, Ingress, IngressService, Listen, Name, Remote};

/// The mesh as one workload sees it. Its listeners do not overlap and do not lead back into themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    ingress: Vec<IngressPort>,
    egress: Vec<EgressRoute>,
    admin: Option<SocketAddr>,
    dns_resolver: Option<SocketAddr>,
}

/// A port on which Envoy serves for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressPort {
    /// Name of the entry.
    pub name: Name,
    /// Where Envoy listens: the pod's address.
    pub listen: SocketAddr,
    /// Where the application listens: a loopback address, same port.
    pub application: SocketAddr,
    /// What a client must do.
    pub protection: Protection,
}

/// What a client of an ingress port must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Speak TLS 1.3 and present a certificate of the mesh CA.
    MutualTls,
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
    /// Where Envoy listens for the application: in 127.0.0.0/8.
    pub listen: SocketAddr,
    /// Where Envoy connects to, with mutual TLS 1.3.
    pub remote: Remote,
}

/// Addresses that the sidecar is told by its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The pod's address; needed as soon as there is an ingress port.
    pub pod: Option<IpAddr>,
    /// Loopback address on which the application serves.
    pub application: IpAddr,
    /// Envoy's admin interface; none unless asked for.
    pub admin: Option<SocketAddr>,
    /// DNS server for egress names, instead of those in `/etc/resolv.conf`.
    pub dns_resolver: Option<SocketAddr>,
}

impl Mesh {
    /// The mesh of ingress mode *explicit*.
    ///
    /// Each of `ports` is served and demands a client certificate, unless an ingress entry names it: with TLS (`false`) the
    /// client certificate becomes optional, without TLS (`true`) bytes pass through. A port in neither is not served.
    ///
    /// # Errors
    /// All contradictions between the entries and the addresses.
    pub fn explicit(
        ingress: &Ingress,
        egress: &Egress,
        ports: &[u16],
        addresses: Addresses,
    ) -> Result<Self, ModelError> {
        let mut contradictions = Vec::new();
        let entries = served(ingress, ports);
        if !addresses.application.is_loopback() {
            contradictions.push(Contradiction::ApplicationAddress(addresses.application));
        }
        let pod = match addresses.pod {
            _ if entries.is_empty() => None,
            None => {
                contradictions.push(Contradiction::NoPodAddress);
                None
            }
            Some(pod)
                if pod.is_unspecified() || pod.is_multicast() || pod == addresses.application =>
            {
                contradictions.push(Contradiction::PodAddress(pod));
                None
            }
            pod => pod,
        };
        let ingress: Vec<_> = pod
            .iter()
            .flat_map(|&pod| entries.iter().map(move |entry| (pod, entry)))
            .map(|(pod, (name, port, protection))| IngressPort {
                name: name.clone(),
                listen: SocketAddr::new(pod, *port),
                application: SocketAddr::new(addresses.application, *port),
                protection: *protection,
            })
            .collect();
        let egress: Vec<_> = egress
            .0
            .iter()
            .filter_map(|entry| match entry.listen {
                Listen::Transparent => None,
                Listen::Address(listen) => Some(EgressRoute {
                    name: entry.name.clone(),
                    listen,
                    remote: entry.remote.clone(),
                }),
            })
            .collect();
        let mesh = Self {
            ingress,
            egress,
            admin: addresses.admin,
            dns_resolver: addresses.dns_resolver,
        };
        mesh.find_overlaps(&mut contradictions);
        mesh.find_loops(&mut contradictions);
        match contradictions.is_empty() {
            true => Ok(mesh),
            false => Err(ModelError { contradictions }),
        }
    }

    fn find_overlaps(&self, contradictions: &mut Vec<Contradiction>) {
        let mut listeners: Vec<(String, SocketAddr)> = Vec::new();
        listeners.extend(
            self.ingress
                .iter()
                .map(|port| (format!("ingress {}", port.name), port.listen)),
        );
        listeners.extend(
            self.egress
                .iter()
                .map(|route| (format!("egress {}", route.name), route.listen)),
        );
        listeners.extend(
            self.admin
                .iter()
                .map(|&admin| ("the admin interface".to_owned(), admin)),
        );
        let mut rest = listeners.as_slice();
        while let Some(((first, address), others)) = rest.split_first() {
            for (second, other) in others.iter().filter(|(_, other)| overlap(*address, *other)) {
                contradictions.push(Contradiction::Overlap {
                    first: first.clone(),
                    address: *address,
                    second: second.clone(),
                    other: *other,
                });
            }
            rest = others;
        }
    }

    /// An egress listener in the application's place would send whoever reaches the ingress port on to the remote, with
    /// this workload's certificate.
    fn find_loops(&self, contradictions: &mut Vec<Contradiction>) {
        for port in &self.ingress {
            let taken = self
                .egress
                .iter()
                .find(|route| route.listen == port.application);
            contradictions.extend(taken.map(|route| Contradiction::Loop {
                ingress: port.name.clone(),
                egress: route.name.clone(),
                address: port.application,
            }));
        }
    }

    /// Ports on which Envoy serves for the application.
    pub fn ingress(&self) -> &[IngressPort] {
        &self.ingress
    }

    /// Remotes that the application reaches through Envoy.
    pub fn egress(&self) -> &[EgressRoute] {
        &self.egress
    }

    /// Address of the admin interface when one was asked for.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// DNS server for egress names when one was given.
    pub fn dns_resolver(&self) -> Option<SocketAddr> {
        self.dns_resolver
    }

    /// Whether any listener or cluster needs the mesh certificate.
    pub fn needs_certificates(&self) -> bool {
        !self.egress.is_empty()
            || self
                .ingress
                .iter()
                .any(|port| port.protection != Protection::Plain)
    }

    /// Ingress entries whose application is Envoy's admin interface: a deliberate but dangerous exposure.
    pub fn exposed_admin(&self) -> impl Iterator<Item = &IngressPort> {
        self.ingress.iter().filter(|port| {
            self.admin
                .is_some_and(|admin| overlap(admin, port.application))
        })
    }
}

/// Ports to serve: those of the entries, then the declared ones that no entry names.
fn served(ingress: &Ingress, ports: &[u16]) -> Vec<(Name, u16, Protection)> {
    let entries = match ingress {
        Ingress::Disabled => return Vec::new(),
        Ingress::Ports(entries) => entries,
    };
    let named = entries.iter().filter_map(|entry| {
        let protection = match entry.service {
            IngressService::Tcp { tls: true, .. } => Protection::Tls,
            IngressService::Tcp { tls: false, .. } => Protection::Plain,
            IngressService::Udp => return None,
        };
        Some((entry.name.clone(), entry.port, protection))
    });
    // A port may be declared more than once, by several containers or for several protocols.
    let ports: BTreeSet<_> = ports.iter().collect();
    let others = ports
        .into_iter()
        .filter(|port| entries.iter().all(|entry| entry.port != **port))
        .map(|port| (Name::of_port(*port), *port, Protection::MutualTls));
    named.chain(others).collect()
}

fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// The entries and addresses contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the service mesh cannot be configured:{}", Lines(.contradictions))]
pub struct ModelError {
    /// Every contradiction; never empty.
    pub contradictions: Vec<Contradiction>,
}

struct Lines<'a>(&'a [Contradiction]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|contradiction| write!(f, "\n  {contradiction}"))
    }
}

/// One contradiction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Contradiction {
    /// Ingress ports without an address to listen on.
    #[error(
        "ingress ports are declared, but the pod's address is not known; set CONTRAST_POD_IP from the pod's status.podIP"
    )]
    NoPodAddress,
    /// The pod's address cannot be told apart from the application's.
    #[error(
        "expected the pod's own address, found {0}; it must be neither a wildcard nor the address on which the application listens"
    )]
    PodAddress(IpAddr),
    /// The application would be reachable around the mesh.
    #[error(
        "expected a loopback address for the application, found {0}; on any other it could be reached around the mesh"
    )]
    ApplicationAddress(IpAddr),
    /// Two listeners on one address.
    #[error(
        "{first} ({address}) and {second} ({other}) listen on the same place; change one of the ports or addresses"
    )]
    Overlap {
        /// What listens.
        first: String,
        /// Where.
        address: SocketAddr,
        /// What else listens.
        second: String,
        /// Where.
        other: SocketAddr,
    },
    /// Ingress traffic would leave through an egress listener.
    #[error(
        "ingress {ingress} forwards to {address}, where egress {egress} listens; change the egress listen address"
    )]
    Loop {
        /// The ingress entry.
        ingress: Name,
        /// The egress entry.
        egress: Name,
        /// The address of both.
        address: SocketAddr,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: Addresses = Addresses {
        pod: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7))),
        application: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        admin: None,
        dns_resolver: None,
    };

    fn mesh(ingress: &str, egress: &str, addresses: Addresses) -> Result<Mesh, Vec<Contradiction>> {
        let (ingress, egress) = (
            ingress.parse().expect("ingress"),
            egress.parse().expect("egress"),
        );
        Mesh::explicit(&ingress, &egress, &[], addresses).map_err(|error| error.contradictions)
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    #[test]
    fn ingress_listens_on_the_pod_and_forwards_to_loopback_on_the_same_port() {
        let mesh = mesh("web#8080#false##health#8081#true", "", ADDRESSES).expect("mesh");
        let [web, health] = mesh.ingress() else {
            panic!("two ports expected")
        };
        assert_eq!(
            (web.listen, web.application),
            (address("10.0.0.7:8080"), address("127.0.0.1:8080"))
        );
        assert_eq!(
            (web.protection, health.protection),
            (Protection::Tls, Protection::Plain)
        );
        assert!(mesh.needs_certificates());
    }

    #[test]
    fn declared_port_demands_a_client_certificate_unless_an_entry_names_it() {
        let ingress = "web#8080#false".parse().expect("ingress");
        let mesh = Mesh::explicit(&ingress, &Egress::default(), &[8080, 8081, 8081], ADDRESSES);
        let mesh = mesh.expect("mesh");
        let found: Vec<_> = mesh
            .ingress()
            .iter()
            .map(|port| (port.listen.port(), port.protection))
            .collect();
        assert_eq!(
            found,
            [(8080, Protection::Tls), (8081, Protection::MutualTls)]
        );
        let none = Mesh::explicit(&Ingress::Disabled, &Egress::default(), &[8080], ADDRESSES);
        assert!(none.expect("mesh").ingress().is_empty());
    }

    #[test]
    fn certificates_are_not_awaited_when_nothing_needs_them() {
        let without_pod = Addresses {
            pod: None,
            ..ADDRESSES
        };
        for ingress in ["", "DISABLED"] {
            let mesh = mesh(ingress, "", without_pod).expect("mesh");
            assert!(mesh.ingress().is_empty() && !mesh.needs_certificates());
        }
        assert!(
            !mesh("health#8081#true", "", ADDRESSES)
                .expect("mesh")
                .needs_certificates()
        );
    }

    #[test]
    fn refuses_ingress_without_a_usable_pod_address() {
        let with_pod = |pod: Option<&str>| {
            let pod = pod.map(|text| text.parse().expect("address"));
            mesh("web#8080#false", "", Addresses { pod, ..ADDRESSES })
        };
        assert_eq!(with_pod(None), Err(vec![Contradiction::NoPodAddress]));
        for pod in ["0.0.0.0", "::", "224.0.0.1", "127.0.0.1"] {
            let found = pod.parse().expect("address");
            assert_eq!(
                with_pod(Some(pod)),
                Err(vec![Contradiction::PodAddress(found)])
            );
        }
    }

    #[test]
    fn refuses_an_application_address_that_others_can_reach() {
        let application = "10.0.0.7".parse().expect("address");
        let found = mesh(
            "",
            "",
            Addresses {
                application,
                ..ADDRESSES
            },
        );
        assert_eq!(
            found,
            Err(vec![Contradiction::ApplicationAddress(application)])
        );
    }

    #[test]
    fn refuses_ingress_that_would_leave_through_egress() {
        let found =
            mesh("web#8080#false", "api#127.0.0.1:8080#api:80", ADDRESSES).expect_err("a loop");
        assert!(
            matches!(found.as_slice(), [Contradiction::Loop { .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn refuses_listeners_in_one_place_and_names_each_pair() {
        let admin = Some(address("0.0.0.0:8080"));
        let found = mesh(
            "web#8080#false",
            "api#127.0.0.9:8080#api:80",
            Addresses { admin, ..ADDRESSES },
        )
        .expect_err("overlaps");
        let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "ingress web (10.0.0.7:8080) and the admin interface (0.0.0.0:8080) listen on the same place; change one of the ports or addresses",
                "egress api (127.0.0.9:8080) and the admin interface (0.0.0.0:8080) listen on the same place; change one of the ports or addresses",
            ]
        );
    }

    #[test]
    fn tells_which_ingress_entry_exposes_the_admin_interface() {
        let admin = Some(address("127.0.0.1:9901"));
        let mesh = mesh(
            "web#8080#false##admin#9901#false",
            "",
            Addresses { admin, ..ADDRESSES },
        )
        .expect("mesh");
        let exposed: Vec<_> = mesh
            .exposed_admin()
            .map(|port| port.name.as_str())
            .collect();
        assert_eq!(exposed, ["admin"]);
    }
}
