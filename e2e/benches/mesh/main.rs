//! What the service mesh costs: the same traffic directly, through two Envoys configured by hand, and through two sidecars with the same TLS
//! settings, whose client is led to Envoy by a loopback address, as by hand, or transparently; all on one machine, in network namespaces, in
//! turns.
//!
//! `cargo bench -p contrast-e2e --bench mesh` prints a table for `docs/performance.md`; it needs root, `nft`, Envoy and
//! `cargo build --release --bins`. Nothing here fails because something is slow.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that meets the unexpected has to stop there, and its output is its purpose"
)]

mod by_hand;
mod measure;
mod start;
mod table;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use contrast_e2e::harness::mesh::{Application, Bed, Generation};

use by_hand::{ByHand, Reached};
use measure::{Route, connections, sink};

/// Port of the echoing application, and of the one that only reads.
const ECHO: u16 = 8080;
const SINK: u16 = 8090;
/// Where the application dials in the pod whose egress is not transparent.
const ALIAS: Ipv4Addr = Ipv4Addr::new(127, 0, 5, 1);
const ROUNDS: usize = 16;
const SERVER: &str = "server";

fn main() {
    let Some(mut bed) = Bed::create("mesh bench").expect("network") else {
        return;
    };
    let generation = Generation::create().expect("CA");
    let names = |own: &[String]| [&[SERVER.to_owned()], own].concat();

    // Directly.
    let (near, far) = (bed.stranger().expect("node"), bed.stranger().expect("node"));
    // Ours.
    let server = bed.ready(&[], |own| {
        generation.issue("test/deployment/server", &names(own))
    });
    let server = server.expect("the server's sidecar is ready");
    let remote = server.addresses[0];
    let mut client = |egress: String| {
        let environment = [
            ("CONTRAST_INGRESS_PROXY_CONFIG", "DISABLED".to_owned()),
            ("CONTRAST_EGRESS_PROXY_CONFIG", egress),
        ];
        let client = bed.ready(&environment, |own| {
            generation.issue("test/deployment/client", own)
        });
        client.expect("the client's sidecar is ready")
    };
    let aliased = client(format!(
        "echo#{ALIAS}:{ECHO}#{remote}:{ECHO}##sink#{ALIAS}:{SINK}#{remote}:{SINK}"
    ));
    let transparent = client(format!(
        "echo#transparent#{remote}:{ECHO}##sink#transparent#{remote}:{SINK}"
    ));
    // By hand.
    let by_hand = ByHand::start(&mut bed, &generation, Reached::Directly);
    let redirected = ByHand::start(&mut bed, &generation, Reached::ByRules);

    let serving: Vec<_> = [far, server.node, by_hand.server, redirected.server]
        .into_iter()
        .map(|node| {
            let echo = Application::start(bed.network(), node, ECHO).expect("application");
            (echo, sink(bed.network(), node, SINK))
        })
        .collect();
    let route = |name, node, echo: SocketAddr, sink| Route {
        name,
        node,
        echo,
        sink,
    };
    let direct = bed.network().address(far);
    let routes = [
        route("direct", near, (direct, ECHO).into(), (direct, SINK).into()),
        route(
            "two Envoys by hand",
            by_hand.client,
            by_hand.full,
            by_hand.sink,
        ),
        route(
            "by hand, both pods with rules",
            redirected.client,
            redirected.full,
            redirected.sink,
        ),
        route(
            "two sidecars",
            aliased.node,
            (ALIAS, ECHO).into(),
            (ALIAS, SINK).into(),
        ),
        route(
            "two sidecars, transparent egress",
            transparent.node,
            (remote, ECHO).into(),
            (remote, SINK).into(),
        ),
    ];
    let again = route(
        "by hand, sessions resumed",
        by_hand.client,
        by_hand.resumed,
        by_hand.sink,
    );

    println!("{}\n", measure::machine());
    let network = bed.network();
    table::compare(network, &routes);
    let resumed: Vec<f64> = (0..ROUNDS).map(|_| connections(network, &again)).collect();
    println!(
        "\nby hand with resumption (Envoy's default): {:.0} connections/s",
        measure::median(resumed)
    );
    measure::handshakes(
        network,
        near,
        &generation,
        (remote, ECHO).into(),
        by_hand.server_tls,
    );
    drop(serving);
    drop((aliased, transparent));
    drop(server);
    start::report(&mut bed, &generation, &by_hand, Duration::from_secs(20));
}
