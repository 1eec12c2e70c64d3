//! Golden files of the texts that the programs get.
//!
//! `UPDATE_GOLDEN=1 cargo test -p contrast-firewall --test texts` writes the files anew; read the difference before committing it.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use contrast_firewall::{Backend, Capture, EGRESS_FIRST_PORT, Ingress, Redirection};

/// Both kinds of iptables get the same text, so one of them stands for both.
const BACKENDS: [Backend; 2] = [Backend::Nftables, Backend::IptablesNft];

fn ingress(tls: &[u16], plain: &[u16], udp: &[u16]) -> Option<Ingress> {
    Some(Ingress {
        tls: tls.iter().copied().collect(),
        plain: plain.iter().copied().collect(),
        udp: udp.iter().copied().collect(),
    })
}

fn captures(ports: &[u16]) -> Vec<Capture> {
    let listeners = EGRESS_FIRST_PORT..;
    ports
        .iter()
        .zip(listeners)
        .map(|(port, listener)| Capture {
            port: *port,
            listener,
        })
        .collect()
}

fn cases() -> Vec<(&'static str, Redirection)> {
    let case = |ingress, egress: &[u16], ipv6| Redirection {
        ingress,
        egress: captures(egress),
        ipv6,
    };
    let many: Vec<u16> = (9001..=9031).collect();
    vec![
        ("no-entries", case(ingress(&[], &[], &[]), &[], true)),
        (
            "tls-plain-udp",
            case(ingress(&[8443, 443], &[8080], &[5353, 53]), &[], true),
        ),
        ("disabled", case(None, &[], true)),
        (
            "egress",
            case(ingress(&[], &[], &[]), &[5432, 443, 80], true),
        ),
        ("disabled-with-egress", case(None, &[443], true)),
        (
            "without-ipv6",
            case(ingress(&[8443], &[8080], &[53]), &[443], false),
        ),
        // A rule of iptables' multiport takes 15 ports: 31 need three, of which the last has one.
        (
            "many-plain-ports",
            case(ingress(&[], &many, &many), &[], true),
        ),
    ]
}

fn compare(backend: Backend, case: &str, found: &str) {
    let kind = match backend {
        Backend::Nftables => "nftables",
        _ => "iptables",
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{kind}-{case}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).expect("golden file");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{} differs; if that is wanted, run again with UPDATE_GOLDEN=1; found {found}",
        path.display()
    );
}

#[test]
fn texts_are_those_of_the_golden_files() {
    for backend in BACKENDS {
        for (name, redirection) in cases() {
            compare(backend, name, &backend.text(&redirection));
        }
        compare(backend, "deny", &backend.deny_text());
    }
}

#[test]
fn both_kinds_of_iptables_get_the_same_text() {
    let legacy = |text: String| text.replace("-nft-restore", "-legacy-restore");
    for (name, redirection) in cases() {
        assert_eq!(
            legacy(Backend::IptablesNft.text(&redirection)),
            Backend::IptablesLegacy.text(&redirection),
            "{name}"
        );
    }
    assert_eq!(
        legacy(Backend::IptablesNft.deny_text()),
        Backend::IptablesLegacy.deny_text()
    );
}
