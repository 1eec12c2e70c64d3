//! The table that compares the ways from a client to applications.

use contrast_e2e::harness::Network;

use crate::{
    ROUNDS,
    measure::{Route, bulk, connections, exchanges, latencies, median},
};

/// Number of ways that are compared.
const ROUTES: usize = 5;

/// Measures all of `routes` in turns, and prints a row for each kind of traffic.
pub(crate) fn compare(network: &Network, routes: &[Route; ROUTES]) {
    println!("{}", header(routes));
    let in_turns = |work: &dyn Fn(&Route) -> f64| -> [f64; ROUTES] {
        let mut rounds = [(); ROUTES].map(|()| Vec::new());
        for _ in 0..ROUNDS {
            for (samples, route) in rounds.iter_mut().zip(routes) {
                samples.push(work(route));
            }
        }
        rounds.map(median)
    };
    row(
        "1 KiB request and response, one connection, median",
        "µs",
        in_turns(&|route| latencies(network, route)),
        1,
    );
    row(
        "1 KiB request and response, 16 connections",
        "/s",
        in_turns(&|route| exchanges(network, route)),
        0,
    );
    row(
        "one connection, bulk",
        "MB/s",
        in_turns(&|route| bulk(network, route)),
        0,
    );
    row(
        "connections with one exchange each, full handshakes",
        "/s",
        in_turns(&|route| connections(network, route)),
        0,
    );
}

/// The head of the table: names of the routes. By hand, without and with rules, are the baselines of the sidecars.
fn header(routes: &[Route]) -> String {
    let names: Vec<&str> = routes.iter().map(|route| route.name).collect();
    let lines = "| --- ".repeat(routes.len() + 3);
    format!(
        "| what | {} | sidecars / by hand | transparent / with rules |\n{lines}|",
        names.join(" | ")
    )
}

/// Prints a row of the table.
fn row(what: &str, unit: &str, values: [f64; ROUTES], digits: usize) {
    let [_, by_hand, with_rules, aliased, transparent] = values;
    let values = values.map(|value| format!("{value:.digits$} {unit}"));
    println!(
        "| {what} | {} | {:.3} | {:.3} |",
        values.join(" | "),
        aliased / by_hand,
        transparent / with_rules
    );
}
