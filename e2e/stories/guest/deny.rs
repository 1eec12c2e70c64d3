//! The default deny.

use crate::boot::{Guest, possible};

const UNIT: &str = "contrast-deny-ingress.service";
const AGENT: &str = "nft list ruleset >/result/rules";

#[test]
fn agent_starts_behind_the_default_deny() {
    if !possible(&[]) {
        return;
    }
    let boot = Guest::new(&[UNIT], AGENT).boot();
    let rules = boot.read("rules").expect(&boot.console);
    assert!(rules.contains("table inet contrast_deny"), "{rules}");
    assert!(rules.contains("policy drop"), "{rules}");
    assert_eq!(boot.state(UNIT), "active", "{}", boot.console);
}

#[test]
fn agent_does_not_start_when_nothing_can_deny() {
    if !possible(&[]) {
        return;
    }
    let guest = Guest::new(&[UNIT], AGENT);
    for program in ["nft", "iptables-nft-restore", "iptables-legacy-restore"] {
        guest.remove_program(program);
    }
    let boot = guest.boot();
    assert_eq!(boot.read("rules"), None);
    assert_eq!(boot.state(UNIT), "failed", "{}", boot.console);
    let says = "expected nftables or iptables to make packet filter rules with";
    assert!(boot.console.contains(says), "{}", boot.console);
}
