//! How fast a replicated Coordinator is: three real processes on loopback, each with a disk of its own.
//!
//! `cargo bench -p contrast-coordinator --bench cluster` runs every part and prints tables for `docs/performance.md`;
//! `-- failover commit issuing memory history` selects parts. `CONTRAST_BENCH_RUNS` changes how often the leader is killed. Nothing
//! here fails because something is slow.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that meets the unexpected has to stop there, and its output is its purpose"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod baseline;
mod commit;
mod failover;
mod history;
mod issuing;
mod memory;
mod table;
mod world;

use tokio::runtime::Runtime;

/// Name and code of each part, in the order in which they run.
const PARTS: [&str; 5] = ["failover", "commit", "issuing", "memory", "history"];

fn main() {
    // Cargo adds flags of its own.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    if let Some(unknown) = wanted.iter().find(|name| !PARTS.contains(&name.as_str())) {
        panic!("expected parts of {PARTS:?}, found {unknown:?}");
    }
    let runtime = Runtime::new().expect("runtime");
    println!("machine: {}", table::machine());
    for part in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == part) {
            continue;
        }
        println!("\n## {part} (load before: {})\n", table::load());
        runtime.block_on(async {
            match part {
                "failover" => failover::run().await,
                "commit" => commit::run().await,
                "issuing" => issuing::run().await,
                "memory" => memory::run().await,
                _ => history::run().await,
            }
        });
        println!("\nload after: {}", table::load());
    }
}
