//! The same rules as text for `iptables-restore --noflush` and `ip6tables-restore --noflush`: one atomic transaction per table.
//!
//! Rules stand in chains of our own, which end with RETURN where the nftables rules accept, so that every chain of the others still
//! judges the packet. The first rule of a built-in chain leads to ours; an update puts it first again.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::redirection::{
    APPLICATION_V6, EGRESS_MARK, ENVOY_UID, INGRESS_MTLS_PORT, INGRESS_TLS_PORT, Ingress,
    Redirection, TPROXY_MARK,
};

/// A chain of ours and the built-in chain that leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) table: &'static str,
    pub(crate) built_in: &'static str,
    pub(crate) name: &'static str,
}

pub(crate) const DENY: Chain = Chain {
    table: "filter",
    built_in: "INPUT",
    name: "CONTRAST_DENY",
};
pub(crate) const INPUT: Chain = Chain {
    table: "filter",
    built_in: "INPUT",
    name: "CONTRAST_MESH_INPUT",
};
pub(crate) const PREROUTING: Chain = Chain {
    table: "mangle",
    built_in: "PREROUTING",
    name: "CONTRAST_MESH_PREROUTING",
};
pub(crate) const OUTPUT: Chain = Chain {
    table: "nat",
    built_in: "OUTPUT",
    name: "CONTRAST_MESH_OUTPUT",
};

pub(crate) const LEAVING: Chain = Chain {
    table: "filter",
    built_in: "OUTPUT",
    name: "CONTRAST_MESH_LEAVING",
};

/// Chains of the redirection, in the order in which they are filled: first those that drop.
pub(crate) const MESH: [Chain; 4] = [INPUT, LEAVING, PREROUTING, OUTPUT];

/// Most ports that one rule of `multiport` takes.
const MULTIPORT_MAX: usize = 15;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    const fn loopback(self) -> &'static str {
        match self {
            Self::V4 => "127.0.0.1",
            Self::V6 => "::1",
        }
    }
}

impl Chain {
    /// The rule that leads to this chain, as `iptables -S` prints it.
    pub(crate) fn jump(self) -> String {
        format!("-A {} -j {}", self.built_in, self.name)
    }

    /// Fills this chain with `rules` instead of what it held, and leads to it first. `jumps`: how many rules lead to it now.
    pub(crate) fn replace(self, jumps: usize, rules: &[String]) -> String {
        let Self {
            table,
            built_in,
            name,
        } = self;
        let mut text = format!("*{table}\n:{name} - [0:0]\n");
        for rule in rules {
            let _ = writeln!(text, "-A {name} {rule}");
        }
        // By content a deletion takes the first that matches, so the old jumps go before the new one comes; the kernel sees both at once.
        for _ in 0..jumps {
            let _ = writeln!(text, "-D {built_in} -j {name}");
        }
        let _ = writeln!(text, "-I {built_in} 1 -j {name}");
        text + "COMMIT\n"
    }

    /// Removes this chain, if it is there or not. `jumps`: how many rules lead to it now.
    pub(crate) fn remove(self, jumps: usize) -> String {
        let Self {
            table,
            built_in,
            name,
        } = self;
        let mut text = format!("*{table}\n:{name} - [0:0]\n");
        for _ in 0..jumps {
            let _ = writeln!(text, "-D {built_in} -j {name}");
        }
        let _ = writeln!(text, "-X {name}");
        text + "COMMIT\n"
    }
}

/// Rules of [`DENY`].
pub(crate) fn deny(family: Family) -> Vec<String> {
    let mut rules = vec!["-i lo -j RETURN".to_owned()];
    rules.extend(neighbour_discovery(family));
    rules.push("-p tcp -m tcp --tcp-flags SYN,ACK SYN -j DROP".to_owned());
    rules.push("-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN".to_owned());
    rules.push("-j DROP".to_owned());
    rules
}

/// Rules of `chain`, one of [`MESH`].
pub(crate) fn mesh(chain: Chain, family: Family, redirection: &Redirection) -> Vec<String> {
    match chain {
        INPUT => input(family, redirection),
        PREROUTING => prerouting(family, redirection),
        LEAVING => leaving(redirection),
        _ => output(family, redirection),
    }
}

fn neighbour_discovery(family: Family) -> Vec<String> {
    // Router advertisement, neighbour solicitation and advertisement.
    let types: &[u8] = match family {
        Family::V4 => &[],
        Family::V6 => &[134, 135, 136],
    };
    types
        .iter()
        .map(|kind| format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j RETURN"))
        .collect()
}

fn input(family: Family, redirection: &Redirection) -> Vec<String> {
    let mut rules = vec!["-i lo -j RETURN".to_owned()];
    rules.extend(neighbour_discovery(family));
    let icmp = match family {
        Family::V4 => "icmp",
        Family::V6 => "ipv6-icmp",
    };
    rules.push(format!(
        "-p {icmp} -m conntrack --ctstate RELATED -j RETURN"
    ));
    rules.push(format!("-m mark --mark {TPROXY_MARK:#x} -j RETURN"));
    if let Some(ingress) = ingress(family, redirection) {
        rules.extend(ports("tcp", &ingress.plain, "RETURN"));
        rules.extend(ports("udp", &ingress.udp, "RETURN"));
    }
    rules.push("-p tcp -m tcp --tcp-flags SYN,ACK SYN -j DROP".to_owned());
    rules.push("-m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY -j RETURN".to_owned());
    rules.push("-p tcp -j DROP".to_owned());
    rules.push("-j DROP".to_owned());
    rules
}

fn prerouting(family: Family, redirection: &Redirection) -> Vec<String> {
    let loopback = match family {
        Family::V4 => vec!["127.0.0.0/8".to_owned()],
        Family::V6 => vec!["::1/128".to_owned(), format!("{APPLICATION_V6}/128")],
    };
    let mut rules = vec!["-i lo -j RETURN".to_owned()];
    rules.extend(
        loopback
            .iter()
            .map(|address| format!("-d {address} -j DROP")),
    );
    rules.push("! -p tcp -j RETURN".to_owned());
    rules.push(
        "-p tcp -m tcp ! --tcp-flags SYN,ACK SYN -m conntrack --ctstate RELATED,ESTABLISHED --ctdir REPLY -j RETURN"
            .to_owned(),
    );
    rules.extend(ports("tcp", &redirection.reserved_ports(), "DROP"));
    let Some(ingress) = ingress(family, redirection) else {
        return rules;
    };
    let tproxy = |port: u16| {
        let address = family.loopback();
        format!("TPROXY --on-port {port} --on-ip {address} --tproxy-mark {TPROXY_MARK:#x}")
    };
    rules.extend(ports("tcp", &ingress.plain, "RETURN"));
    rules.extend(ports("tcp", &ingress.tls, &tproxy(INGRESS_TLS_PORT)));
    rules.push(format!("-p tcp -j {}", tproxy(INGRESS_MTLS_PORT)));
    rules
}

/// What comes in over `family`, if anything does.
fn ingress(family: Family, redirection: &Redirection) -> Option<&Ingress> {
    let served = family == Family::V4 || redirection.ipv6;
    redirection.ingress.as_ref().filter(|_| served)
}

fn output(family: Family, redirection: &Redirection) -> Vec<String> {
    if redirection.egress.is_empty() || (family == Family::V6 && !redirection.ipv6) {
        return Vec::new();
    }
    let mut rules = uncaptured();
    rules.extend(redirection.egress.iter().map(|capture| {
        format!(
            "-p tcp -m tcp --dport {} -j REDIRECT --to-ports {}",
            capture.port, capture.listener
        )
    }));
    rules
}

/// What egress leaves alone.
fn uncaptured() -> Vec<String> {
    vec![
        "-o lo -j RETURN".to_owned(),
        format!("-m owner --uid-owner {ENVOY_UID} -j RETURN"),
        format!("-m owner --gid-owner {ENVOY_UID} -j RETURN"),
        format!("-m mark --mark {EGRESS_MARK:#x} -j RETURN"),
    ]
}

/// What the redirection missed, of both families.
fn leaving(redirection: &Redirection) -> Vec<String> {
    if redirection.egress.is_empty() {
        return Vec::new();
    }
    let captured = redirection.egress.iter().map(|capture| capture.port);
    let mut rules = uncaptured();
    rules.extend(ports("tcp", &captured.collect(), "DROP"));
    rules
}

fn ports(protocol: &str, ports: &BTreeSet<u16>, target: &str) -> Vec<String> {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    ports
        .chunks(MULTIPORT_MAX)
        .map(|some| {
            let some = some.join(",");
            format!("-p {protocol} -m multiport --dports {some} -j {target}")
        })
        .collect()
}

/// Fills a chain that nothing leads to and removes it: one text for each table, of which the kernel checks every rule.
pub(crate) fn probe(table: &'static str, rules: &[String]) -> String {
    let name = "CONTRAST_PROBE";
    let mut text = format!("*{table}\n:{name} - [0:0]\n");
    for rule in rules {
        let _ = writeln!(text, "-A {name} {rule}");
    }
    text + &format!("COMMIT\n*{table}\n:{name} - [0:0]\n-X {name}\nCOMMIT\n")
}
