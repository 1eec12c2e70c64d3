//! The rules of README.md, checked in every state within the standard bounds.

use std::collections::BTreeSet;

use contrast_model::{ALWAYS, Bounds, Cluster, SOMETIMES};
use stateright::{Checker, Model, Path};

fn explore(bounds: Bounds) -> BTreeSet<&'static str> {
    let checker = Cluster::new(bounds)
        .checker()
        .symmetry()
        .threads(2)
        .spawn_dfs()
        .join();
    assert!(
        checker.is_done(),
        "the check must visit every state of {bounds:?}"
    );
    for name in ALWAYS {
        let broken = checker.discovery(name).map(Path::into_actions);
        assert_eq!(broken, None, "\"{name}\" does not hold within {bounds:?}");
    }
    checker.discoveries().into_keys().collect()
}

#[test]
fn the_rules_are_safe_within_the_standard_bounds_and_reach_what_they_are_for() {
    let reached: BTreeSet<_> = Bounds::STANDARD.into_iter().flat_map(explore).collect();
    for name in SOMETIMES {
        assert!(
            reached.contains(name),
            "expected a run in which {name}; found none"
        );
    }
}

#[test]
fn without_symmetry_the_check_finds_the_same() {
    let bounds = Bounds {
        restarts: 1,
        transitions: 1,
        ..Bounds::default()
    };
    let model = Cluster::new(bounds);
    let whole = model.clone().checker().threads(2).spawn_dfs().join();
    let halved = model.checker().symmetry().threads(2).spawn_dfs().join();
    assert!(halved.unique_state_count() < whole.unique_state_count());
    assert!(2 * halved.unique_state_count() >= whole.unique_state_count());
    let keys = |discoveries: Vec<&'static str>| discoveries.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(
        keys(whole.discoveries().into_keys().collect()),
        keys(halved.discoveries().into_keys().collect())
    );
}

#[test]
fn without_reduction_the_check_finds_the_same() {
    let bounds = Bounds {
        restarts: 1,
        transitions: 1,
        ..Bounds::default()
    };
    let model = Cluster::new(bounds).unreduced();
    let whole = model.checker().symmetry().threads(2).spawn_dfs().join();
    let reached: BTreeSet<_> = whole.discoveries().into_keys().collect();
    assert_eq!(reached, explore(bounds));
}

#[test]
fn a_single_replica_recovers_with_what_its_owner_knows() {
    let reached = explore(Bounds {
        replicas: 1,
        ..Bounds::default()
    });
    assert!(reached.contains("recovered after all were gone"));
    assert!(reached.contains("a rolled-back history was refused"));
}
