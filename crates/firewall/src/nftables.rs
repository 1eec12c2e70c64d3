//! The rules as text for `nft -f -`: one atomic transaction each.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::redirection::{
    APPLICATION_V6, EGRESS_MARK, ENVOY_UID, INGRESS_MTLS_PORT, INGRESS_TLS_PORT, Ingress,
    Redirection, TPROXY_MARK,
};

/// Table that holds the redirection.
pub(crate) const MESH: &str = "contrast_mesh";
/// Table that holds the default deny.
pub(crate) const DENY: &str = "contrast_deny";
const PROBE: &str = "contrast_probe";

/// Neighbour discovery, without which IPv6 has no addresses and no routes.
const NEIGHBOUR_DISCOVERY: &str = "meta nfproto ipv6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept";
/// The first packet of a TCP connection, whatever connection tracking remembers of an earlier one with the same ports.
const FIRST_PACKET: &str = "tcp flags & (syn | ack) == syn";

/// Deletes `table` whether it is there or not.
pub(crate) fn delete(table: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\n")
}

/// The default deny.
pub(crate) fn deny() -> String {
    let mut text = delete(DENY);
    write_deny(&mut text, DENY);
    text
}

fn write_deny(text: &mut String, table: &str) {
    let _ = write!(
        text,
        "table inet {table} {{
\tchain input {{
\t\ttype filter hook input priority filter - 10; policy drop;
\t\tiif \"lo\" accept
\t\t{NEIGHBOUR_DISCOVERY}
\t\t{FIRST_PACKET} counter drop comment \"new TCP connections\"
\t\tct state established,related accept
\t\tcounter drop comment \"everything else that is new\"
\t}}
}}
"
    );
}

/// The redirection, in place of an earlier one.
pub(crate) fn mesh(redirection: &Redirection) -> String {
    let mut text = delete(MESH);
    write_mesh(&mut text, MESH, redirection);
    text
}

fn write_mesh(text: &mut String, table: &str, redirection: &Redirection) {
    let _ = writeln!(text, "table inet {table} {{");
    write_prerouting(text, redirection);
    write_input(text, redirection);
    if !redirection.egress.is_empty() {
        write_output(text, redirection);
        write_leaving(text, redirection);
    }
    text.push_str("}\n");
}

fn write_prerouting(text: &mut String, redirection: &Redirection) {
    let reserved = set(&redirection.reserved_ports());
    let _ = write!(
        text,
        "\tchain prerouting {{
\t\ttype filter hook prerouting priority mangle; policy accept;
\t\tiif \"lo\" accept
\t\tip daddr 127.0.0.0/8 counter drop comment \"loopback is never outside\"
\t\tip6 daddr {{ ::1, {APPLICATION_V6} }} counter drop comment \"loopback is never outside\"
\t\tmeta l4proto != tcp accept
\t\ttcp flags & (syn | ack) != syn ct direction reply ct state established,related accept
\t\ttcp dport {reserved} counter drop comment \"ports of Envoy itself\"
"
    );
    if let Some(ingress) = &redirection.ingress {
        if !ingress.plain.is_empty() {
            let (families, plain) = (families(redirection), set(&ingress.plain));
            let _ = writeln!(text, "\t\t{families}tcp dport {plain} accept");
        }
        if !ingress.tls.is_empty() {
            let tls = format!("tcp dport {} ", set(&ingress.tls));
            write_tproxy(text, &tls, INGRESS_TLS_PORT, redirection.ipv6);
        }
        write_tproxy(
            text,
            "meta l4proto tcp ",
            INGRESS_MTLS_PORT,
            redirection.ipv6,
        );
    }
    text.push_str("\t}\n");
}

/// Without a listening socket the statement ends the rule, so the mark is not set and the input chain drops the packet.
fn write_tproxy(text: &mut String, selector: &str, port: u16, ipv6: bool) {
    let families = [("ipv4", "ip", "127.0.0.1"), ("ipv6", "ip6", "[::1]")];
    for (protocol, family, address) in families.iter().take(if ipv6 { 2 } else { 1 }) {
        let _ = writeln!(
            text,
            "\t\tmeta nfproto {protocol} {selector}tproxy {family} to {address}:{port} meta mark set {TPROXY_MARK:#x} accept"
        );
    }
}

fn write_input(text: &mut String, redirection: &Redirection) {
    let _ = write!(
        text,
        "\tchain input {{
\t\ttype filter hook input priority filter; policy drop;
\t\tiif \"lo\" accept
\t\tmeta mark {TPROXY_MARK:#x} accept
\t\t{NEIGHBOUR_DISCOVERY}
\t\tmeta l4proto {{ icmp, ipv6-icmp }} ct state related accept
"
    );
    if let Some(Ingress { plain, udp, .. }) = &redirection.ingress {
        let families = families(redirection);
        if !plain.is_empty() {
            let _ = writeln!(text, "\t\t{families}tcp dport {} accept", set(plain));
        }
        if !udp.is_empty() {
            let _ = writeln!(text, "\t\t{families}udp dport {} accept", set(udp));
        }
    }
    let _ = write!(
        text,
        "\t\t{FIRST_PACKET} counter drop comment \"new TCP connections that no listener of Envoy took\"
\t\tct direction reply ct state established,related accept
\t\tmeta l4proto tcp counter drop comment \"TCP that no socket of Envoy took\"
\t\tcounter drop comment \"everything else that is new\"
\t}}
"
    );
}

/// The priority is a number because nft 1.0.6 knows no name for it in this hook.
fn write_output(text: &mut String, redirection: &Redirection) {
    let _ = write!(
        text,
        "\tchain output {{
\t\ttype nat hook output priority -100; policy accept;
{}",
        uncaptured()
    );
    let families = families(redirection);
    for capture in &redirection.egress {
        let _ = writeln!(
            text,
            "\t\t{families}tcp dport {} redirect to :{}",
            capture.port, capture.listener
        );
    }
    text.push_str("\t}\n");
}

/// What egress leaves alone.
fn uncaptured() -> String {
    format!(
        "\t\toif \"lo\" accept
\t\tmeta skuid {ENVOY_UID} accept
\t\tmeta skgid {ENVOY_UID} accept
\t\tmeta mark {EGRESS_MARK:#x} accept
"
    )
}

/// What the redirection missed: connections from before it, and such that connection tracking takes for parts of others. Both families,
/// because a name may resolve to either.
fn write_leaving(text: &mut String, redirection: &Redirection) {
    let captured = redirection.egress.iter().map(|capture| capture.port);
    let _ = write!(
        text,
        "\tchain leaving {{
\t\ttype filter hook output priority filter; policy accept;
{}\t\ttcp dport {} counter drop comment \"captured ports that the redirection missed\"
\t}}
",
        uncaptured(),
        set(&captured.collect())
    );
}

/// What a rule that lets something in selects first.
fn families(redirection: &Redirection) -> &'static str {
    match redirection.ipv6 {
        true => "",
        false => "meta nfproto ipv4 ",
    }
}

fn set(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("{{ {} }}", ports.join(", "))
}

/// Makes the default deny under another name and deletes it, in one transaction that never takes effect.
pub(crate) fn probe_deny() -> String {
    let mut text = delete(PROBE);
    write_deny(&mut text, PROBE);
    text + &delete(PROBE)
}

/// As [`probe_deny`], with everything that a redirection can contain.
pub(crate) fn probe_mesh(ipv6: bool) -> String {
    let mut text = delete(PROBE);
    write_mesh(&mut text, PROBE, &Redirection::everything(ipv6));
    text + &delete(PROBE)
}
