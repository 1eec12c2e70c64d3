//! Runs the simulation: `cargo xtask sim`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program"
)]

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use clap::Parser;
use contrast_sim::world::{self, Tally};

/// Runs worlds, each fixed by its seed, and says which promise of the Coordinator was broken in which.
#[derive(Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Steps of each run.
    #[arg(long, default_value_t = 80)]
    steps: u64,
    /// Threads; as many as there are processors when not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Show the whole trace, not only its end.
    #[arg(long)]
    trace: bool,
    /// Show the replicas' logs (filter as of RUST_LOG), for one seed.
    #[arg(long)]
    log: Option<String>,
    /// Go on after the first failure.
    #[arg(long)]
    keep_going: bool,
    /// Succeed only if a promise is broken: for builds with a bug put in.
    #[arg(long)]
    expect_failure: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(filter) = &arguments.log {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    }
    if arguments.log.is_none() {
        // A panic is part of a run's verdict; redb's on damaged pages are expected, and caught.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.unwrap_or(processors);
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let offset = next.fetch_add(1, Ordering::Relaxed);
                    if offset >= arguments.seeds {
                        return;
                    }
                    let seed = arguments.seed + offset;
                    let outcome = world::run(seed, arguments.steps);
                    done.fetch_add(1, Ordering::Relaxed);
                    *total.lock().unwrap_or_else(PoisonError::into_inner) += &outcome.tally;
                    if outcome.verdict.is_none() && !arguments.trace {
                        continue;
                    }
                    let shown = if arguments.trace { usize::MAX } else { 30 };
                    let from = outcome.trace.len().saturating_sub(shown);
                    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                    if !arguments.expect_failure {
                        for line in outcome.trace.iter().skip(from) {
                            println!("{line}");
                        }
                        println!("seed {seed}: fingerprint {:016x}", outcome.fingerprint);
                    }
                    if let Some(verdict) = outcome.verdict {
                        println!("seed {seed}: BROKEN: {verdict}");
                        println!(
                            "repeat it with: cargo xtask sim --seed {seed} --steps {}",
                            arguments.steps
                        );
                        failures.push(seed);
                        if !arguments.keep_going {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let runs = done.load(Ordering::Relaxed);
    let failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{runs} seeds in {seconds:.1} s: {total}");
    println!("failures: {failures:?}");
    match failures.is_empty() == arguments.expect_failure {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
