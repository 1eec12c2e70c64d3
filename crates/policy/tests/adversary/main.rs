//! An honest host, whose requests are all allowed, and an adversarial one, whose requests are refused.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod harmless;
mod honest;
mod kata;
mod mutants;
mod mutation;
mod pods;

use contrast_policy::Engine;
use honest::{Flavour, Host};

const FLAVOURS: [Flavour; 2] = [
    Flavour {
        disks: false,
        modern: false,
        instance: 0,
    },
    Flavour {
        disks: true,
        modern: true,
        instance: 1,
    },
];

/// The whole life of every pod on hosts of every kind, with a restart, a refresh of its volumes and its end; and of another
/// pod of the same workload, as after `kubectl rollout restart`.
#[test]
fn honest_host_is_never_refused() {
    let mut refused = Vec::new();
    for pod in pods::all() {
        let rego = pod.rego();
        for flavour in FLAVOURS {
            let mut engine = Engine::load(&rego).expect("loads");
            for request in Host::new(&pod, flavour).life() {
                let decision = engine
                    .allow(request.kind, &request.body)
                    .expect("evaluates");
                if !decision.allowed {
                    let why = decision.reasons.first().cloned().unwrap_or_default();
                    refused.push(format!(
                        "{} {flavour:?} {} {}: {why}",
                        pod.file, request.kind, request.container
                    ));
                }
            }
        }
    }
    let first: Vec<_> = refused
        .iter()
        .take(30)
        .map(|line| line.chars().take(400).collect::<String>())
        .collect();
    assert!(
        refused.is_empty(),
        "{} refused:\n{}",
        refused.len(),
        first.join("\n")
    );
}

/// Lines of survivors, few enough to read.
fn none_survived(outcome: &mutants::Outcome) {
    let lines: Vec<&str> = outcome
        .survivors
        .iter()
        .take(30)
        .map(String::as_str)
        .collect();
    assert!(
        lines.is_empty(),
        "{} of {} survived:\n{}",
        outcome.survivors.len(),
        outcome.mutants,
        lines.join("\n")
    );
    assert!(outcome.denied > outcome.mutants / 4, "{outcome:?}");
}

#[test]
fn every_change_of_a_field_is_refused_or_argued() {
    none_survived(&mutants::single_changes());
}

#[test]
fn every_disturbance_of_the_order_is_refused_or_argued() {
    none_survived(&mutants::sequences());
}

#[test]
fn one_change_does_not_cover_another() {
    none_survived(&mutants::double_changes(60));
}

/// The classes of what may pass are part of the reference. With `UPDATE_REFERENCE=1` the test writes them there.
#[test]
fn reference_lists_what_may_pass_and_why() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference/policy-coverage.md");
    let text = std::fs::read_to_string(&path).expect("the reference");
    let rows: Vec<String> = harmless::CLASSES
        .iter()
        .chain([&harmless::EXCHANGED])
        .map(|class| format!("| {} | {} |\n", class.name, class.reason))
        .collect();
    let (before, rest) = text.split_once("<!-- classes -->\n").expect("a beginning");
    let (_, after) = rest.split_once("<!-- end of classes -->").expect("an end");
    let expected = format!(
        "{before}<!-- classes -->\n| class | why it may pass |\n| --- | --- |\n{}<!-- end of classes -->{after}",
        rows.concat()
    );
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &expected).expect("writes");
    } else {
        assert!(
            text == expected,
            "{} is out of date: run this test with UPDATE_REFERENCE=1",
            path.display()
        );
    }
}
