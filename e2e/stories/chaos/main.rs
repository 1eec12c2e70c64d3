//! The chart's topology under random failures: three Coordinators, twenty workloads, a port forwarder and `contrast dashboard`, each where it
//! would be in a cluster. Coordinators and workloads are killed, replicas are cut off, manifests are set, strangers are refused, and at the
//! end the numbers that an operator sees must be those of what the harness did and saw.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `CONTRAST_CHAOS_SECONDS` | how long things fail; 18 by default |
//! | `CONTRAST_CHAOS_SEED` | decides what fails when; the same by default |

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a story that meets the unexpected has to stop, and says what it measured"
)]

mod board;
mod judge;
mod ledger;
mod logs;
mod mesh;
mod owner;
mod probe;
mod random;
mod scene;
mod schedule;
mod strangers;
mod streams;
mod workload;

use std::time::Duration;

use contrast_e2e::harness::no_network_because;

use crate::{ledger::Ledger, scene::Scene, schedule::Schedule};

const SECONDS: u64 = 18;
const SEED: u64 = 0xC0_47_2A_57;

fn number(variable: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(variable) else {
        return default;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("{variable}: expected a whole number, found `{text}`"))
}

#[test]
fn numbers_on_the_dashboard_are_those_of_what_happened() {
    if let Some(reason) = no_network_because() {
        eprintln!("chaos: skipped, because {reason}");
        return;
    }
    let length = Duration::from_secs(number("CONTRAST_CHAOS_SECONDS", SECONDS));
    let seed = number("CONTRAST_CHAOS_SEED", SEED);
    let ledger = Ledger::new(seed);
    let directory = {
        let mut scene = Scene::begin(seed, &ledger);
        eprintln!(
            "chaos: seed {seed}, {length:?}; set up after {:?}, logs are in {} until the story succeeds",
            ledger.elapsed(),
            scene.path().display()
        );
        let figures = Schedule::new(seed, length).run(&mut scene, &ledger);
        let calm = scene.calm_down(&ledger);
        let verdict = judge::judge(&mut scene, &ledger, &calm);
        eprintln!("{figures}{verdict}");
        ledger.require_nothing_wrong(scene.path());
        scene.end()
    };
    logs::nothing_is_left(&directory);
    drop(directory);
    eprintln!("chaos: {:?} in all", ledger.elapsed());
}
