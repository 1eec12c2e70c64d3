//! Explores the model and prints what was found. Numbers on the command line change the bounds: restarts, clones,
//! transitions, terms, replicas. With the feature `mutants` it prints how each wrong rule fails.

use std::time::Instant;

use contrast_model::{ALWAYS, Bounds, Cluster, SOMETIMES};
use stateright::{Checker, Model};

fn main() -> std::process::ExitCode {
    let numbers: Result<Vec<u8>, _> = std::env::args().skip(1).map(|text| text.parse()).collect();
    let runs = match numbers.as_deref() {
        Ok([]) => Bounds::STANDARD.to_vec(),
        Ok(&[restarts, clones, transitions, terms]) => {
            vec![Bounds {
                restarts,
                clones,
                transitions,
                terms,
                ..Bounds::default()
            }]
        }
        Ok(&[restarts, clones, transitions, terms, replicas @ 1..=5]) => {
            vec![Bounds {
                replicas,
                restarts,
                clones,
                transitions,
                terms,
            }]
        }
        _ => {
            eprintln!("expected nothing, or: restarts clones transitions terms [replicas 1..=5]");
            return std::process::ExitCode::from(2);
        }
    };
    let mut safe = true;
    for bounds in runs {
        safe &= explore(bounds);
    }
    #[cfg(feature = "mutants")]
    mutants();
    if safe {
        std::process::ExitCode::SUCCESS
    } else {
        std::process::ExitCode::FAILURE
    }
}

/// Visits every state; whether all invariants hold.
fn explore(bounds: Bounds) -> bool {
    let start = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = Cluster::new(bounds)
        .checker()
        .symmetry()
        .threads(threads)
        .spawn_dfs()
        .join();
    println!("{bounds:?}");
    println!(
        "  {} states, {} steps, depth {}, {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        start.elapsed()
    );
    let discoveries = checker.discoveries();
    let mut safe = true;
    for name in ALWAYS {
        match discoveries.get(name) {
            None => println!("  holds      {name}"),
            Some(path) => {
                safe = false;
                println!("  BROKEN     {name}");
                for action in path.clone().into_actions() {
                    println!("      {action:?}");
                }
            }
        }
    }
    for name in SOMETIMES {
        let reached = if discoveries.contains_key(name) {
            "reached  "
        } else {
            "unreached"
        };
        println!("  {reached}  {name}");
    }
    safe
}

/// Prints the shortest counterexample to each wrong rule.
#[cfg(feature = "mutants")]
fn mutants() {
    for mutant in contrast_model::Mutant::ALL {
        let broken = mutant.breaks();
        println!("{mutant:?}: not \"{broken}\"");
        match contrast_model::counterexample(mutant, broken) {
            Some(actions) => actions.iter().for_each(|action| println!("    {action:?}")),
            None => println!("    nothing found"),
        }
    }
}
